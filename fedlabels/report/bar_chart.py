"""Bars: stacked over rounds or clients (SVG), and one a class (HTML)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedlabels.report.axes import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    frame,
    nice_range,
    tick_label,
    tick_text,
    ticks,
)
from fedlabels.report.markup import Markup, el, html

MOST_BARS = 80
_MANY = 30  # classes from which on their bars stand closer

Column = NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """One layer of a stack.

    Parameters
    ----------
    label : str
        What the legend says.
    tone : str
        Its color, ``"1"`` to ``"4"`` or ``"soft"``.
    values : ndarray, shape (bars,)
        Heights, >= 0; NaN counts as 0.
    """

    label: str
    tone: str
    values: Column


def bucket_width(things: int) -> int:
    """Return how many neighbors share a bar so that the bars stay broad enough to see.

    Parameters
    ----------
    things : int
        How many there are, >= 1.
    """
    return max(1, -(-things // MOST_BARS))


def bucket(values: Column, *, add: bool = False) -> Column:
    """Put neighbors together until at most `MOST_BARS` numbers are left.

    Parameters
    ----------
    values : ndarray, shape (n,)
        NaN counts as 0.
    add : bool
        Whether to take sums; else means.

    Returns
    -------
    ndarray, shape (bars,)
        One number for `bucket_width` neighbors; the last may be over fewer.
    """
    starts = np.arange(0, len(values), bucket_width(len(values)))
    sums = np.asarray(np.add.reduceat(np.nan_to_num(values), starts))
    return sums if add else sums / np.diff(np.append(starts, len(values)))


def stacked_bars(
    parts: Sequence[Part],
    *,
    first: int,
    noun: str,
    names: Sequence[str] | None = None,
    x_label: str,
    y_label: str,
    describe: str,
    write: Callable[[float], str],
    unit: float = 1.0,
    add: bool = False,
) -> Markup:
    """Draw stacked bars for numbered things, putting neighbors together when there are many.

    Parameters
    ----------
    parts : sequence of Part
        Layers from the ground up, all of the same length >= 1.
    first : int
        Number of the first thing.
    noun : str
        What a thing is, for the values under the pointer.
    names : sequence of str or None
        What each thing is called, instead of the noun and its number.
    x_label, y_label : str
        Names of the axes with their units.
    describe : str
        One sentence for those who cannot see the chart.
    write : callable
        Writes a height with its unit.
    unit : float
        What one unit of the vertical axis stands for.
    add : bool
        Whether neighbors are added; else their mean is drawn.

    Returns
    -------
    Markup
        An ``svg`` element.
    """
    things = len(parts[0].values)
    stacks = [bucket(part.values, add=add) for part in parts]
    width = bucket_width(things)
    tops = np.cumsum(np.stack(stacks), axis=0)
    x = Scale(first - 0.5, first + things - 0.5, LEFT, WIDTH - RIGHT)
    y = Scale(*nice_range([float(tops[-1].max()) / unit], zero=True), HEIGHT - BOTTOM, TOP)
    bars = []
    for index in range(len(stacks[0])):
        start = first + index * width
        end = min(start + width, first + things) - 1
        known = names[start - first] if names and width == 1 else None
        heights = [float(stack[index]) for stack in stacks]
        values = list(zip(parts, heights, strict=True))
        title = known or _title(noun, start, end, add)
        bars.append(_bar((x(start - 0.5), x(end + 0.5)), values, title, y, write, unit))
    marks = [tick_label(tick_text(v), x(v)) for v in ticks(x.low, x.high, whole=True)]
    texts = {"x_label": x_label, "y_label": y_label, "describe": describe}
    return frame(bars, x_ticks=html(marks), y=y, whole=add, **texts)


def bar_legend(parts: Sequence[Part]) -> Markup:
    """List the layers of a stack.

    Parameters
    ----------
    parts : sequence of Part
        The chart's layers.

    Returns
    -------
    Markup
        A list.
    """
    items = [el("li", el("i", class_=f"box back-{part.tone}"), part.label) for part in parts]
    return el("ul", items, class_="legend")


def class_bars(names: Sequence[str], shares: Sequence[float], notes: Sequence[str]) -> Markup:
    """Draw one horizontal bar a class, in as many columns as the page has room for.

    Parameters
    ----------
    names : sequence of str
        The classes.
    shares : sequence of float
        Lengths in [0, 1]; NaN draws none.
    notes : sequence of str
        What stands right of each bar.

    Returns
    -------
    Markup
        A list.
    """
    items = []
    for name, share, note in zip(names, shares, notes, strict=True):
        known = 0.0 if np.isnan(share) else share
        fill = el("i", class_="back-1", style=f"width:{100 * known:.1f}%")
        items.append(
            el(
                "li",
                el("span", name, class_="name", title=name),
                el("span", fill, class_="track"),
                el("span", note, class_="value"),
            )
        )
    return el("ol", items, class_="bars many" if len(items) > _MANY else "bars")


def _title(noun: str, start: int, end: int, add: bool) -> str:
    if start == end:
        return f"{noun} {start:,}"
    return f"{noun} {start:,} to {end:,}, {'sum' if add else 'mean'}"


def _bar(
    span: tuple[float, float],
    values: Sequence[tuple[Part, float]],
    named: str,
    y: Scale,
    write: Callable[[float], str],
    unit: float,
) -> Markup:
    start, end = span
    gap = min(2.0, 0.2 * (end - start))
    ground = 0.0
    boxes = []
    for part, value in values:
        top = ground + value / unit
        boxes.append(
            el(
                "rect",
                x=start + gap / 2,
                y=y(top),
                width=end - start - gap,
                height=y(ground) - y(top),
                class_=f"fill-{part.tone}",
            )
        )
        ground = top
    lines = [named, *(f"{part.label}: {write(value)}" for part, value in values)]
    area = el("rect", x=start, y=TOP, width=end - start, height=HEIGHT - BOTTOM - TOP)
    return html([boxes, el("g", el("title", "\n".join(lines)), area, class_="band")])
