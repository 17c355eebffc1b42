"""Axes of the SVG charts of the benchmarks: scales, and ticks with round numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

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


def nice_step(rough: float) -> float:
    """Round a distance up to 1, 2, 2.5 or 5 times a power of ten.

    Parameters
    ----------
    rough : float
        > 0.
    """
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in _STEPS if step * power >= rough * (1 - 1e-9))
