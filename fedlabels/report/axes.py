"""Frames of charts: scales, ticks with round numbers, grid and labels, as SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedlabels.report.markup import Content, Markup, el

WIDTH, HEIGHT = 520, 300
LEFT, RIGHT, TOP, BOTTOM = 60, 16, 40, 46
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Scale:
    """A straight line from values to pixels.

    Parameters
    ----------
    low, high : float
        Values at the ends, ``low < high``.
    start, end : float
        Their pixels.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def ticks(low: float, high: float, *, most: int = 5, whole: bool = False) -> list[float]:
    """Choose round numbers inside a range.

    Parameters
    ----------
    low, high : float
        The range, ``low < high``.
    most : int
        About how many numbers, >= 2.
    whole : bool
        Whether only whole numbers will do.

    Returns
    -------
    list of float
        Ascending, evenly spaced.

    Examples
    --------
    >>> ticks(0, 100)
    [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
    """
    step = nice_step((high - low) / most)
    step = max(1.0, math.ceil(step)) if whole else step
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def nice_step(rough: float) -> float:
    """Round a distance up to 1, 2, 2.5 or 5 times a power of ten.

    Parameters
    ----------
    rough : float
        > 0.
    """
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in _STEPS if step * power >= rough * (1 - 1e-9))


def nice_range(values: Sequence[float], *, zero: bool = False) -> tuple[float, float]:
    """Choose a vertical range that ends at ticks.

    Parameters
    ----------
    values : sequence of float
        Finite numbers; none gives (0, 1).
    zero : bool
        Whether the range must start at 0; it does anyway when the values come near.

    Returns
    -------
    tuple of float
        Low and high, ``low < high``.
    """
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    if low >= 0 and (zero or low < 0.4 * high):
        low = 0.0
    if high - low < 1e-9 * max(1.0, abs(high)):
        pad = abs(high) / 10 or 1.0
        low, high = (0.0 if low == 0 else low - pad), high + pad
    step = nice_step((high - low) / 5)
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step


def frame(
    body: Content,
    *,
    x_ticks: Markup,
    y: Scale,
    x_label: str,
    y_label: str,
    describe: str,
    whole: bool = False,
) -> Markup:
    """Put a chart's body into its frame.

    Parameters
    ----------
    body : Content
        SVG elements in the chart's coordinates.
    x_ticks : Markup
        Labels under the horizontal axis.
    y : Scale
        Vertical scale.
    x_label, y_label : str
        Names of the axes with their units.
    describe : str
        One sentence for those who cannot see the chart.
    whole : bool
        Whether only whole numbers stand at the vertical axis.

    Returns
    -------
    Markup
        An ``svg`` element.
    """
    names = [
        el("text", y_label, x=0, y=14, class_="axis-name"),
        el("text", x_label, x=WIDTH - RIGHT, y=HEIGHT - 6, class_="axis-name end"),
    ]
    return el(
        "svg",
        [_grid(y, whole), x_ticks, names, body],
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        class_="chart",
        role="img",
        aria_label=describe,
    )


def tick_label(text: str, x: float) -> Markup:
    """Make one label under the horizontal axis.

    Parameters
    ----------
    text : str
        What it says.
    x : float
        Pixel of its middle.
    """
    return el("text", text, x=x, y=float(HEIGHT - BOTTOM + 20), class_="tick middle")


def tick_text(value: float) -> str:
    """Write a tick's number.

    Parameters
    ----------
    value : float
        A round number.
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def _grid(y: Scale, whole: bool) -> Markup:
    lines: list[Markup] = []
    for value in ticks(y.low, y.high, whole=whole):
        at = y(value)
        kind = "base" if value == y.low else "rule"
        lines.append(el("line", x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at, class_=kind))
        lines.append(el("text", tick_text(value), x=LEFT - 8, y=at + 4.5, class_="tick end"))
    return el("g", lines)
