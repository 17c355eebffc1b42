"""Clients x classes as squares: the area is the number of samples, the strong core the labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedlabels.report.markup import Markup, el, html
from fedlabels.report.numbers import plural

MOST_CLIENTS = 60
_LEFT, _TOP, _BOTTOM = 92, 12, 44
_ROOM = 885  # pixels for all clients when the chart takes the whole width
_HALF = 360  # and when it takes half of it
_HEIGHT = 640  # pixels for all classes
_CELL = (9.0, 62.0)  # smallest and largest side of a cell in pixels
_FEW = 14  # clients up to which half the width is enough
_SPARSE = 40  # from here on not every class is named
_TIPS = 12  # classes that are listed under the pointer

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Cell:
    """Room for one client's samples of one class.

    Parameters
    ----------
    width, height : float
        Pixels.
    """

    width: float
    height: float


def shown_clients(clients: int) -> Counts:
    """Choose the clients to draw.

    Parameters
    ----------
    clients : int
        How many there are, >= 1.

    Returns
    -------
    ndarray, shape (shown,)
        Client ids, evenly spaced, all when they are few.
    """
    return np.linspace(0, clients - 1, min(clients, MOST_CLIENTS)).round().astype(np.int64)


def needs_width(clients: int) -> bool:
    """Say whether the chart of so many clients takes the whole width of the page.

    Parameters
    ----------
    clients : int
        How many are drawn.
    """
    return clients > _FEW


def matrix_chart(
    labeled: Counts, total: Counts, *, client_ids: Counts, class_names: Sequence[str]
) -> Markup:
    """Draw who holds what.

    Parameters
    ----------
    labeled, total : ndarray, shape (shown, classes)
        Labeled and all samples.
    client_ids : ndarray, shape (shown,)
        Who the rows are.
    class_names : sequence of str
        What the columns are.

    Returns
    -------
    Markup
        An ``svg`` element with a fixed width, to be put into a box that scrolls.
    """
    clients, classes = total.shape
    room = _ROOM if needs_width(clients) else _HALF
    across = float(np.clip(room / clients, *_CELL))
    cell = Cell(across, float(np.clip(_HEIGHT / classes, _CELL[0], min(_CELL[1], 1.6 * across))))
    width, height = clients * cell.width, classes * cell.height
    most = full_square(total)
    body = [
        _lines(clients, classes, cell),
        el("path", d=_squares(total, most, cell), class_="fill-soft"),
        el("path", d=_squares(labeled, most, cell), class_="fill-1"),
        _class_names(class_names, cell),
        _client_names(client_ids, cell, height),
        _bands(labeled, total, client_ids, class_names, cell),
    ]
    whole = (_LEFT + width + 8, _TOP + height + _BOTTOM)
    return el(
        "svg",
        el("g", body, transform=f"translate({_LEFT} {_TOP})"),
        viewBox=f"0 0 {whole[0]:.1f} {whole[1]:.1f}",
        width=whole[0],
        height=whole[1],
        class_="chart matrix",
        role="img",
        aria_label=f"Samples of {plural(clients, 'client')} by class, labeled part in the middle.",
    )


def full_square(total: Counts) -> float:
    """Return the count that fills a cell: one huge shard must not shrink all others to dots.

    Parameters
    ----------
    total : ndarray, shape (shown, classes)
        Samples.

    Returns
    -------
    float
        The largest count, or where it stands far above the others twice the 95th percentile of
        those that are not 0; counts above it are drawn as a full cell.
    """
    held = total[total > 0]
    if not len(held):
        return 1.0
    return float(min(held.max(), 2 * np.quantile(held, 0.95)))


def _squares(counts: Counts, most: float, cell: Cell) -> str:
    """Write all squares as one path: hundreds of elements less in the page."""
    sides = 0.94 * min(cell.width, cell.height) * np.sqrt(np.minimum(counts / most, 1.0))
    pieces = []
    for client, label in np.argwhere(counts > 0).tolist():
        side = max(1.2, float(sides[client, label]))
        x = (client + 0.5) * cell.width - side / 2
        y = (label + 0.5) * cell.height - side / 2
        pieces.append(f"M{x:.1f} {y:.1f}h{side:.1f}v{side:.1f}h-{side:.1f}z")
    return "".join(pieces)


def _lines(clients: int, classes: int, cell: Cell) -> Markup:
    ends = range(classes + 1)
    pixels = [i * cell.height for i in ends]
    rows = [el("line", x1=0, x2=clients * cell.width, y1=y, y2=y) for y in pixels]
    return el("g", rows, class_="faint")


def _class_names(names: Sequence[str], cell: Cell) -> Markup:
    step = 1 if len(names) <= _SPARSE else 10
    chosen = range(0, len(names), step)
    shorten = [name if len(name) <= 11 else f"{name[:10]}…" for name in names]
    texts = [
        el("text", shorten[i], x=-10, y=(i + 0.5) * cell.height + 4, class_="tick end")
        for i in chosen
    ]
    return html(texts)


def _client_names(client_ids: Counts, cell: Cell, height: float) -> Markup:
    most = max(1, round(len(client_ids) * cell.width / 48))  # a name needs about 48 pixels
    step = -(-len(client_ids) // most)
    texts = [
        el(
            "text",
            f"{client_ids[i]:,}",
            x=(i + 0.5) * cell.width,
            y=height + 18,
            class_="tick middle",
        )
        for i in range(0, len(client_ids), step)
    ]
    name = el("text", "client", x=0, y=height + 38, class_="axis-name")
    return html([texts, name])


def _bands(
    labeled: Counts, total: Counts, client_ids: Counts, names: Sequence[str], cell: Cell
) -> Markup:
    bands = []
    for row, client in enumerate(client_ids.tolist()):
        held = plural(int(total[row].sum()), "sample")
        lines = [f"client {client:,}: {held}, {int(labeled[row].sum()):,} labeled"]
        order = np.argsort(-total[row], kind="stable")[:_TIPS]
        lines += [
            f"{names[i]}: {total[row, i]:,}, {labeled[row, i]:,} labeled"
            for i in order.tolist()
            if total[row, i]
        ]
        height = cell.height * total.shape[1]
        area = el("rect", x=row * cell.width, y=0, width=cell.width, height=height)
        bands.append(el("g", el("title", "\n".join(lines)), area, class_="band"))
    return html(bands)
