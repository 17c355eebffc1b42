"""Line charts over rounds, with values that show up under the pointer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

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

_MOST_POINTS = 400  # more are thinned, keeping the peaks
_MOST_BANDS = 100  # places where the pointer finds values
_FEW_POINTS = 25  # up to here every point gets a mark

Column = NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """One line.

    Parameters
    ----------
    label : str
        What the legend says.
    tone : int
        Its color and dash, 1 to 4.
    x, y : ndarray, shape (points,)
        Points with x ascending; those with a NaN are left out.
    """

    label: str
    tone: int
    x: Column
    y: Column

    def points(self) -> tuple[Column, Column]:
        """Return the points that exist."""
        known = np.isfinite(self.x) & np.isfinite(self.y)
        return self.x[known], self.y[known]


def line_chart(
    series: Sequence[Series],
    *,
    y_label: str,
    describe: str,
    write: Callable[[float], str],
    y_range: tuple[float, float] | None = None,
) -> Markup:
    """Draw lines over rounds.

    Parameters
    ----------
    series : sequence of Series
        At least one with a point.
    y_label : str
        Name of the vertical axis with its unit.
    describe : str
        One sentence for those who cannot see the chart.
    write : callable
        Writes a value with its unit.
    y_range : tuple of float or None
        Ends of the vertical axis; None fits the values.

    Returns
    -------
    Markup
        An ``svg`` element.
    """
    known = [(one, *one.points()) for one in series]
    every_x = np.unique(np.concatenate([x for _, x, _ in known]))
    every_y = np.concatenate([y for _, _, y in known])
    first, last = float(every_x[0]), float(every_x[-1])
    alone = first == last
    x = Scale(first - alone, last + alone, LEFT, WIDTH - RIGHT)
    y = Scale(*(y_range or nice_range(every_y.tolist())), HEIGHT - BOTTOM, TOP)
    marks = [tick_label(tick_text(v), x(v)) for v in ticks(x.low, x.high, whole=True)]
    lines = [_line(one.tone, xs, ys, x, y) for one, xs, ys in known]
    return frame(
        [lines, _bands(known, every_x, x, y, write)],
        x_ticks=html(marks),
        y=y,
        x_label="round",
        y_label=y_label,
        describe=describe,
    )


def legend(series: Sequence[Series], write: Callable[[float], str]) -> Markup:
    """List the lines with their last values.

    Parameters
    ----------
    series : sequence of Series
        The chart's lines.
    write : callable
        Writes a value with its unit.

    Returns
    -------
    Markup
        A list.
    """
    items = []
    for one in series:
        swatch = el(
            "svg",
            el("line", x1=1, x2=25, y1=6, y2=6, class_=f"stroke-{one.tone}"),
            viewBox="0 0 26 12",
            class_="swatch",
            aria_hidden="true",
        )
        _, y = one.points()
        items.append(el("li", swatch, one.label, " ", el("b", write(float(y[-1])))))
    return el("ul", items, class_="legend")


def sparkline(values: Column) -> Markup:
    """Draw a line without axes, for beside a number.

    Parameters
    ----------
    values : ndarray, shape (points,)
        At least two finite numbers.

    Returns
    -------
    Markup
        An ``svg`` element.
    """
    index, y = thin(np.arange(len(values), dtype=np.float64), values, 120)
    low, high = float(y.min()), float(y.max())
    across = Scale(0, max(1.0, float(index[-1])), 3, 237)
    up = Scale(low, high if high > low else low + 1, 57, 5)
    path = _path(index, y, across, up)
    area = f"{path}L{across(index[-1]):.1f} 60L3 60Z"
    return el(
        "svg",
        el("path", d=area, class_="spark-area"),
        el("path", d=path, class_="line stroke-1"),
        el("circle", cx=across(index[-1]), cy=up(float(y[-1])), r=3.5, class_="fill-1"),
        viewBox="0 0 240 60",
        class_="spark",
        aria_hidden="true",
    )


def thin(x: Column, y: Column, most: int) -> tuple[Column, Column]:
    """Keep at most about so many points: the lowest and highest of each stretch, and the ends.

    Parameters
    ----------
    x, y : ndarray, shape (points,)
        Finite points.
    most : int
        About how many stay, >= 4.

    Returns
    -------
    tuple of ndarray
        The points that stay, in order.
    """
    if len(x) <= most:
        return x, y
    kept = {0, len(x) - 1}
    for part in np.array_split(np.arange(len(x)), most // 2):
        kept.update((int(part[y[part].argmin()]), int(part[y[part].argmax()])))
    index = sorted(kept)
    return x[index], y[index]


def _line(tone: int, xs: Column, ys: Column, x: Scale, y: Scale) -> Markup:
    few = len(xs) <= _FEW_POINTS
    dots = [
        el("circle", cx=x(a), cy=y(b), r=3.2, class_=f"fill-{tone}")
        for a, b in zip(xs.tolist(), ys.tolist(), strict=True)
        if few
    ]
    path = _path(*thin(xs, ys, _MOST_POINTS), x, y)
    return html([el("path", d=path, class_=f"line stroke-{tone}"), dots])


def _path(xs: Column, ys: Column, x: Scale, y: Scale) -> str:
    pairs = zip(xs.tolist(), ys.tolist(), strict=True)
    return "M" + "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in pairs) if len(xs) else ""


def _bands(
    known: Sequence[tuple[Series, Column, Column]],
    every_x: Column,
    x: Scale,
    y: Scale,
    write: Callable[[float], str],
) -> Markup:
    """Make invisible upright bands that show the values at their place when pointed at."""
    chosen = np.linspace(0, len(every_x) - 1, min(len(every_x), _MOST_BANDS)).round().astype(int)
    places = every_x[chosen].tolist()
    middles = [(x(a) + x(b)) / 2 for a, b in pairwise(places)]
    edges = [float(LEFT), *middles, float(WIDTH - RIGHT)]
    bands = []
    for place, start, end in zip(places, edges[:-1], edges[1:], strict=True):
        found = [(one, ys[xs == place]) for one, xs, ys in known]
        lines = [f"round {place:,.0f}"]
        lines += [f"{one.label}: {write(float(value[0]))}" for one, value in found if len(value)]
        dots = [
            el("circle", cx=x(place), cy=y(float(value[0])), r=4, class_=f"fill-{one.tone}")
            for one, value in found
            if len(value)
        ]
        area = el("rect", x=start, y=TOP, width=end - start, height=HEIGHT - BOTTOM - TOP)
        rule = el("line", x1=x(place), x2=x(place), y1=TOP, y2=HEIGHT - BOTTOM)
        bands.append(el("g", el("title", "\n".join(lines)), area, rule, dots, class_="band"))
    return html(bands)
