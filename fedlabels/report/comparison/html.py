"""A comparison's tables as HTML: heads of several lines, bold entries, rows to filter."""

from fedlabels.report.comparison.cells import show
from fedlabels.report.comparison.format import Entry, Place, Table
from fedlabels.report.markup import Content, Markup, el


def table_html(table: Table) -> Markup:
    """Write a table as HTML.

    Parameters
    ----------
    table : Table
        One of a comparison's.

    Returns
    -------
    Markup
        A table in a box that scrolls on narrow screens. A row about a contender carries its shown
        name as ``data-method``; one about a setting carries its levels as ``data-row``, a line
        each, as the charts' keys have them.
    """
    kinds = [None if index < table.texts else "number" for index in range(len(table.header))]
    lines = [
        el("tr", [_head(text, kind) for text, kind in zip(line, kinds, strict=True)])
        for line in zip(*table.header, strict=True)
    ]
    places: list[Place | None] = [*table.places] if table.places else [None] * len(table.rows)
    rows = [_row(row, kinds, place) for row, place in zip(table.rows, places, strict=True)]
    inner = el("table", el("thead", lines), el("tbody", rows))
    return el("div", inner, class_="scroll")


def _head(text: str, kind: str | None) -> Markup:
    return el("th", text, scope="col", class_=kind)


def _row(row: list[Entry], kinds: list[str | None], place: Place | None) -> Markup:
    levels, contender = place if place else (None, None)
    return el(
        "tr",
        [el("td", _text(one), class_=kind) for one, kind in zip(row, kinds, strict=True)],
        data_method=show(contender) if contender is not None else None,
        data_row="\n".join(levels) if levels else None,
    )


def _text(entry: Entry) -> Content:
    return el("strong", entry.text) if entry.bold else entry.text
