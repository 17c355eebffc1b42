"""Building blocks of the page: sections, figures, facts and tables."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedlabels.report.markup import Content, Markup, el


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Parameters
    ----------
    anchor : str
        Its address within the page.
    title : str
        Its heading, also in the navigation.
    lead : str
        One sentence under the heading.
    content : Content
        What follows.
    """

    anchor: str
    title: str
    lead: str
    content: Content

    def render(self) -> Markup:
        """Return the section as HTML."""
        head = el("header", el("h2", self.title), el("p", self.lead))
        return el("section", head, self.content, id=self.anchor)


def figure(
    title: str, chart: Content, caption: str, *, legend: Content = None, kind: str | None = None
) -> Markup:
    """Make a card with a chart and how to read it.

    Parameters
    ----------
    title : str
        What is shown.
    chart : Content
        The chart.
    caption : str
        One sentence on how to read it.
    legend : Content
        What the colors are.
    kind : str or None
        ``"wide"`` takes the whole width, ``"tall"`` the height of two.

    Returns
    -------
    Markup
        A ``figure`` element.
    """
    return el(
        "figure",
        el("h3", title),
        legend,
        chart,
        el("figcaption", caption),
        class_=kind,
    )


def grid(*cards: Content) -> Markup:
    """Put cards side by side where there is room.

    Parameters
    ----------
    *cards : Content
        Figures.

    Returns
    -------
    Markup
        A ``div`` element.
    """
    return el("div", cards, class_="grid")


def facts(pairs: Sequence[tuple[str, str]]) -> Markup:
    """List numbers with their names.

    Parameters
    ----------
    pairs : sequence of tuple of str
        Name and value.

    Returns
    -------
    Markup
        A ``dl`` element.
    """
    items = [el("div", el("dt", name), el("dd", value)) for name, value in pairs]
    return el("dl", items, class_="facts")


def table(head: Sequence[str], rows: Sequence[Sequence[Content]], *, texts: int = 1) -> Markup:
    """Make a table.

    Parameters
    ----------
    head : sequence of str
        Names of the columns.
    rows : sequence of sequence of Content
        Cells.
    texts : int
        How many columns at the left are texts; the others are numbers, set to the right.

    Returns
    -------
    Markup
        A table in a box that scrolls on narrow screens.
    """
    kinds = [None if i < texts else "number" for i in range(len(head))]
    names = [
        el("th", name, scope="col", class_=kind) for name, kind in zip(head, kinds, strict=True)
    ]
    lines = [
        el("tr", [el("td", cell, class_=kind) for cell, kind in zip(row, kinds, strict=True)])
        for row in rows
    ]
    inner = el("table", el("thead", el("tr", names)), el("tbody", lines))
    return el("div", inner, class_="scroll")
