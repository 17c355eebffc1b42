"""Building blocks of the page: sections and the outline that they come from, figures, tables."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from fedlabels.report.charts import Chart, Choice, encode
from fedlabels.report.markup import Content, Markup, el

_LONGEST_STEM = 120  # letters of a file name: file systems allow 255 bytes


@dataclass(frozen=True)
class Figure:
    """A card with a chart and how to read it.

    Parameters
    ----------
    anchor : str
        Its address within the page, and the name of its files.
    title : str
        What is shown.
    caption : str
        One sentence on how to read it.
    chart : Chart, Choice or Markup
        A chart, one chart for every setting, or a table.
    wide : bool
        Whether it takes the whole width.
    below : Content
        What follows the chart, such as a table of sums.
    method : str
        The method that it is about, for filters; empty for none.
    """

    anchor: str
    title: str
    caption: str
    chart: Chart | Choice | Markup
    wide: bool = False
    below: Content = None
    method: str = ""

    def render(self) -> Markup:
        """Return the figure as HTML; its chart is drawn by the page's script."""
        chart = self.chart if isinstance(self.chart, Markup) else drawn(self.chart)
        return el(
            "figure",
            el("h3", self.title),
            chart,
            self.below,
            el("figcaption", self.caption),
            id=self.anchor,
            class_="wide" if self.wide else None,
            data_method=self.method or None,
        )


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
        What comes before the figures.
    figures : sequence of Figure
        Cards, side by side where there is room.
    """

    anchor: str
    title: str
    lead: str
    content: Content = None
    figures: Sequence[Figure] = ()

    def render(self) -> Markup:
        """Return the section as HTML."""
        head = el("header", el("h2", self.title), el("p", self.lead))
        cards = [figure.render() for figure in self.figures]
        grid = el("div", cards, class_="grid") if cards else None
        return el("section", head, self.content, grid, id=self.anchor)


Subject = TypeVar("Subject")
Cards = Iterable[Figure | Markup | None]
"""What a section shows: figures, Markup before them, and None for what has no data."""


@dataclass(frozen=True)
class Part(Generic[Subject]):
    """A line of a page's outline: what its section shows of a run, or of a comparison.

    Parameters
    ----------
    anchor, title : str
        As the section has them.
    lead : str or callable
        One sentence under the heading: the question that the cards answer, or their answer, which
        depends on the subject.
    cards : callable
        From the subject to what is shown; without any card there is no section.
    """

    anchor: str
    title: str
    lead: str | Callable[[Subject], str]
    cards: Callable[[Subject], Cards]

    def section(self, subject: Subject) -> Section | None:
        """Return the section; None where it has nothing to show."""
        cards = [card for card in self.cards(subject) if card]
        if not cards:
            return None
        lead = self.lead if isinstance(self.lead, str) else self.lead(subject)
        content = [card for card in cards if isinstance(card, Markup)]
        figures = [card for card in cards if isinstance(card, Figure)]
        return Section(self.anchor, self.title, lead, content, figures)


def sections_of(outline: Iterable[Part[Subject]], subject: Subject) -> list[Section]:
    """Return the sections that have something to show, in the order of the outline.

    Parameters
    ----------
    outline : iterable of Part
        All parts that the page may have.
    subject : Any
        What the page is about.
    """
    return [section for part in outline if (section := part.section(subject))]


def figures_of(sections: Iterable[Section]) -> list[Figure]:
    """Return all figures of a page.

    Parameters
    ----------
    sections : iterable of Section
        Its parts.
    """
    return [figure for section in sections for figure in section.figures]


def named_charts(figures: Iterable[Figure]) -> Iterator[tuple[str, Figure, Chart]]:
    """Yield every chart with the name of its files; figures with a table have none."""
    taken: set[str] = set()
    for figure in figures:
        if isinstance(figure.chart, Markup):
            continue
        charts = figure.chart.charts if isinstance(figure.chart, Choice) else {(): figure.chart}
        for levels, chart in charts.items():
            listed = [level for level in levels if level != "*"]
            words = [_slug(figure.anchor, "_") or "figure"]
            words += [_slug(level) or ("other" if level else "absent") for level in listed]
            stem = unique = "-".join(words)[:_LONGEST_STEM]
            number = 2
            while unique.lower() in taken:
                unique, number = f"{stem}-{number}", number + 1
            taken.add(unique.lower())
            yield unique, figure, chart


def _slug(text: str, also: str = "") -> str:
    # a dot at the start would hide the file
    return "-".join(re.findall(rf"[A-Za-z0-9.{also}-]+", text)).lstrip(".")


def drawn(chart: Chart | Choice, class_: str = "chart") -> Markup:
    """Put a chart's data where the page's script draws it.

    Parameters
    ----------
    chart : Chart or Choice
        What is drawn.
    class_ : str
        ``"chart"``, or ``"chart spark"`` for one without axes.

    Returns
    -------
    Markup
        A ``div`` element.
    """
    # "<" could end the element: whatever a run folder holds, it is no markup here
    text = json.dumps(encode(chart), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    data = Markup(text.replace("<", "\\u003c"))
    hidden = el("noscript", el("p", "Charts need JavaScript; no network is used.", class_="note"))
    return el("div", el("script", data, type="application/json"), hidden, class_=class_)


def anchor(title: str) -> str:
    """Return the address of a figure within a page, and the name of its files.

    Parameters
    ----------
    title : str
        Its title.
    """
    return "".join(c if c.isalnum() else "-" for c in title.lower()).strip("-")


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
