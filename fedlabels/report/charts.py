"""Charts as data: what is drawn, not how. The page draws them with a script, files with matplotlib.

Values are in the unit of their axis: percent of 0 to 100, bytes, seconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedlabels.report.numbers import count, decimal, duration, plural, size
from fedlabels.report.thinning import thin

Column = NDArray[np.float64]
Counts = NDArray[np.int64]
Unit = Literal["percent", "points", "nats", "count", "number", "bytes", "seconds"]

SOFT = 0  # the tone of what stays in the background
TONES = 8


@dataclass(frozen=True)
class Axis:
    """An axis.

    Parameters
    ----------
    name : str
        What it shows; the unit is added to it.
    unit : str
        How its numbers are written.
    names : sequence of str
        What stands at its places, in order; empty for a line of numbers.
    low, high : float or None
        Where it ends; None fits the values.
    """

    name: str
    unit: Unit = "number"
    names: Sequence[str] = ()
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Line:
    """A line through points, with a band around it where one is known.

    Parameters
    ----------
    label : str
        What the legend says.
    tone : int
        Its color, 1 to 8.
    x, y : ndarray, shape (points,)
        Points with x ascending, indices of the axis where that has names; NaN for none.
    low, high : ndarray, shape (points,), or None
        Edges of the band.
    method : str
        The method that it belongs to, for filters; empty for none.
    """

    label: str
    tone: int
    x: Column
    y: Column
    low: Column | None = None
    high: Column | None = None
    method: str = ""


@dataclass(frozen=True)
class Lines:
    """Lines over a common axis."""

    x: Axis
    y: Axis
    lines: Sequence[Line]


@dataclass(frozen=True)
class Bar:
    """One layer of a stack, or one of the bars beside each other.

    Parameters
    ----------
    label : str
        What the legend says.
    tone : int
        Its color, 1 to 8, or 0 for the soft one.
    values : ndarray, shape (places,)
        Heights of any sign; NaN for none.
    low, high : ndarray, shape (places,), or None
        Ends of the error bars.
    method : str
        The method that it belongs to, for filters; empty for none.
    """

    label: str
    tone: int
    values: Column
    low: Column | None = None
    high: Column | None = None
    method: str = ""


@dataclass(frozen=True)
class Bars:
    """Bars at named places.

    Parameters
    ----------
    x, y : Axis
        The first one has names.
    bars : sequence of Bar
        From the ground up where they are stacked: positive ones upwards from zero, negative ones
        downwards.
    stacked : bool
        Whether they stand on each other rather than beside each other.
    total : ndarray, shape (places,), or None
        Marks across the stacks.
    total_label : str
        What the marks are.
    """

    x: Axis
    y: Axis
    bars: Sequence[Bar]
    stacked: bool = True
    total: Column | None = None
    total_label: str = ""


@dataclass(frozen=True)
class Heatmap:
    """Colored cells with their values.

    Parameters
    ----------
    x, y : Axis
        Both have names; the first of y is at the top.
    values : ndarray, shape (y places, x places)
        NaN for an empty cell.
    value : Axis
        What the values are; low and high are the ends of the colors.
    texts : sequence of sequence of str
        What is written into the cells, by row; empty writes nothing.
    diverging : bool
        Whether the colors part at zero.
    """

    x: Axis
    y: Axis
    values: Column
    value: Axis
    texts: Sequence[Sequence[str]] = ()
    diverging: bool = False


@dataclass(frozen=True)
class Box:
    """How values are spread.

    Parameters
    ----------
    label : str
        Whose values.
    tone : int
        Its color, 1 to 8.
    ends : tuple of 5 floats
        Minimum, lower quartile, median, upper quartile, maximum.
    method : str
        The method that it belongs to, for filters; empty for none.
    """

    label: str
    tone: int
    ends: tuple[float, float, float, float, float]
    method: str = ""


@dataclass(frozen=True)
class Boxes:
    """Spreads beside each other."""

    y: Axis
    boxes: Sequence[Box]


@dataclass(frozen=True)
class Squares:
    """Clients x classes: areas are numbers of samples, the strong core is the labeled part.

    Parameters
    ----------
    labeled, total : ndarray, shape (clients, classes)
        Samples.
    clients, classes : sequence of str
        What the columns and rows of squares are called.
    full : float
        Number of samples that fills a cell.
    """

    labeled: Counts
    total: Counts
    clients: Sequence[str]
    classes: Sequence[str]
    full: float


Chart = Lines | Bars | Heatmap | Boxes | Squares


@dataclass(frozen=True)
class Choice:
    """One chart for every setting that a reader can choose.

    Parameters
    ----------
    charts : mapping of tuple of str to Chart
        By the levels of the settings; ``"*"`` stands for a setting that the chart itself shows.
    """

    charts: Mapping[tuple[str, ...], Chart]


def write(value: float, unit: Unit) -> str:
    """Write a number with its unit, as in 71.3 %, +1.20, 2.5 MB.

    Parameters
    ----------
    value : float
        NaN gives a dash.
    unit : str
        Its unit.
    """
    if unit == "percent":
        return f"{value:.1f}\N{NO-BREAK SPACE}%" if np.isfinite(value) else decimal(value)
    if unit == "points":
        return f"{value:+.2f}".replace("-", "−") if np.isfinite(value) else decimal(value)
    return {"count": count, "bytes": size, "seconds": duration}.get(unit, decimal)(value)


def axis_title(axis: Axis) -> str:
    """Write an axis's name with its unit.

    Parameters
    ----------
    axis : Axis
        Any axis.
    """
    units = {"percent": "%", "points": "percentage points", "nats": "nats"}
    unit = units.get(axis.unit)
    return f"{axis.name} ({unit})" if unit else axis.name


def describe(chart: Chart) -> str:
    """Say in a sentence what is drawn, for those who cannot see it.

    Parameters
    ----------
    chart : Chart
        Any chart.
    """
    if isinstance(chart, Lines):
        ends = [_ends(line, chart.y.unit) for line in chart.lines]
        return f"{axis_title(chart.y)} over {chart.x.name}: {'; '.join(ends)}."
    if isinstance(chart, Bars):
        labels = ", ".join(bar.label for bar in chart.bars)
        return f"{axis_title(chart.y)} by {chart.x.name}, bars for {labels}."
    if isinstance(chart, Heatmap):
        low, high = (write(f(chart.values), chart.value.unit) for f in (_least, _greatest))
        value = axis_title(chart.value)
        return f"{value} by {chart.y.name} and {chart.x.name}: from {low} to {high}."
    if isinstance(chart, Boxes):
        medians = [f"{box.label} {write(box.ends[2], chart.y.unit)}" for box in chart.boxes]
        return f"Spread of {axis_title(chart.y)}; medians: {'; '.join(medians)}."
    clients = plural(len(chart.clients), "client")
    return f"Samples of {clients} by class, the labeled part in the middle."


def encode(chart: Chart | Choice) -> dict[str, Any]:
    """Return a chart as plain values for JSON, rounded to what can be seen.

    Parameters
    ----------
    chart : Chart or Choice
        Any chart.
    """
    if isinstance(chart, Choice):
        charts = {"\n".join(levels): encode(one) for levels, one in chart.charts.items()}
        return {"kind": "choice", "charts": charts}
    encoded: dict[str, Any] = {"kind": type(chart).__name__.lower(), "says": describe(chart)}
    if isinstance(chart, Squares):
        return encoded | {
            "labeled": chart.labeled.tolist(), "total": chart.total.tolist(),
            "clients": list(chart.clients), "classes": list(chart.classes), "full": chart.full,
        }  # fmt: skip
    encoded["y"] = _axis(chart.y)
    if isinstance(chart, Boxes):
        boxes = [_plain(box) | {"ends": plain(np.array(box.ends))} for box in chart.boxes]
        return encoded | {"boxes": boxes}
    encoded["x"] = _axis(chart.x)
    if isinstance(chart, Lines):
        return encoded | {"lines": [_encode_line(line) for line in chart.lines]}
    if isinstance(chart, Bars):
        bars = [_plain(bar) | {"values": plain(bar.values)} | _edges(bar) for bar in chart.bars]
        encoded |= {"bars": bars, "stacked": chart.stacked}
        if chart.total is not None:
            encoded |= {"total": plain(chart.total), "total_label": chart.total_label}
        return encoded
    return encoded | {
        "values": [plain(row) for row in chart.values], "value": _axis(chart.value),
        "texts": [list(row) for row in chart.texts], "diverging": chart.diverging,
    }  # fmt: skip


def plain(values: Column) -> list[float | None]:
    """Return numbers for JSON with five significant digits; None where there is none.

    Parameters
    ----------
    values : ndarray, shape (n,)
        Any numbers.
    """
    return [_short(value) if np.isfinite(value) else None for value in values.tolist()]


def _axis(axis: Axis) -> dict[str, Any]:
    encoded: dict[str, Any] = {"name": axis.name, "title": axis_title(axis), "unit": axis.unit}
    if axis.names:
        encoded["names"] = list(axis.names)
    return encoded | {k: v for k in ("low", "high") if (v := getattr(axis, k)) is not None}


def _plain(one: Line | Bar | Box) -> dict[str, Any]:
    encoded: dict[str, Any] = {"label": one.label, "tone": one.tone}
    return encoded | ({"method": one.method} if one.method else {})


def _edges(one: Line | Bar) -> dict[str, Any]:
    if one.low is None or one.high is None:
        return {}
    return {"low": plain(one.low), "high": plain(one.high)}


def _encode_line(line: Line) -> dict[str, Any]:
    x, y = line.x, line.y
    if line.low is None and line.high is None:
        known = np.isfinite(x) & np.isfinite(y)
        x, y = thin(x[known], y[known])
    return _plain(line) | {"x": plain(x), "y": plain(y)} | _edges(line)


def _ends(line: Line, unit: Unit) -> str:
    known = line.y[np.isfinite(line.x) & np.isfinite(line.y)]
    if not len(known):
        return f"{line.label} none"
    first, last = (write(float(value), unit) for value in (known[0], known[-1]))
    return f"{line.label} from {first} to {last}"


def _least(values: Column) -> float:
    return float(np.nanmin(values)) if np.isfinite(values).any() else float("nan")


def _greatest(values: Column) -> float:
    return float(np.nanmax(values)) if np.isfinite(values).any() else float("nan")


def _short(value: float) -> float:
    short = float(f"{value:.5g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short
