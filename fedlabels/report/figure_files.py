"""Charts as files for papers: PNG, SVG with its text kept, PDF with its fonts embedded."""

import io
import math
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedlabels.errors import ConfigError, DataError, writing
from fedlabels.machine.files import write_atomic
from fedlabels.report.blocks import Figure, named_charts
from fedlabels.report.charts import (
    SOFT,
    Axis,
    Bars,
    Boxes,
    Chart,
    Column,
    Heatmap,
    Lines,
    Squares,
    axis_title,
    describe,
)
from fedlabels.report.numbers import count, size_unit
from fedlabels.report.thinning import thin

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis as Side
    from matplotlib.figure import Figure as Sheet

FORMATS = ("png", "svg", "pdf")

_WIDTH, _WIDE = 6.4, 12.0  # inches: a text column, and a chart that does not fit into one
_PLOT = 3.0  # inches from the lowest to the highest value
_DPI = 200
_MANY = 14  # columns of cells up to which a text column is wide enough
_FEW_POINTS = 25  # up to here every point gets a mark
_LONGEST = 32  # letters of a name at an axis
_TILT = 35  # degrees, of names that do not fit beside each other
_SMALL, _TEXT, _LARGE = 8.0, 9.0, 11.0  # points
_GAP = 0.1  # inches between names
_SIDE = 0.94  # of a cell, that a full square takes

_INK, _QUIET, _RULE, _FAINT = "#17202b", "#56616e", "#b9b5ac", "#e9e6df"
_TONES = (
    "#b9d3e8", "#0a5fa0", "#c2500f", "#08836a", "#84519f", "#a8780a", "#b0306a", "#3f7f93",
    "#5d5f63",
)  # fmt: skip
_DASHES: tuple[Any, ...] = (
    "-", "-", (0, (6, 2)), (0, (2, 1.5)), (0, (7, 2, 1.5, 2)), (0, (4, 1)), (0, (1, 1)),
    (0, (9, 3)), (0, (4, 1.5, 1, 1.5, 1, 1.5)),
)  # fmt: skip
_MARKERS = ("o", "o", "s", "^", "D", "v", "P", "X", "p")
_RISING = ("#f4f8fc", "#b9d3e8", "#4b8fc4", "#0a5fa0", "#062f52")
_PARTING = ("#8a3406", "#d9804c", "#f5f4f1", "#4b8fc4", "#0a4a7e")
_SECONDS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": _TEXT,
    "text.color": _INK, "axes.labelcolor": _QUIET, "axes.edgecolor": _RULE,
    "xtick.color": _RULE, "ytick.color": _RULE, "xtick.labelcolor": _QUIET,
    "ytick.labelcolor": _QUIET, "xtick.labelsize": _SMALL, "ytick.labelsize": _SMALL,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "axes.formatter.useoffset": False, "axes.formatter.limits": (-4, 7),
    "grid.color": _FAINT, "grid.linewidth": 0.8, "hatch.color": _RULE, "hatch.linewidth": 0.6,
    "legend.frameon": False, "lines.linewidth": 1.6,
    # names out of a run folder are no formulas, whatever dollars they have
    "text.parse_math": False,
    "figure.constrained_layout.h_pad": 0.07, "figure.constrained_layout.w_pad": 0.07,
    "svg.fonttype": "none", "svg.hashsalt": "fedlabels", "pdf.fonttype": 42,
}  # fmt: skip

Legend = list[tuple["Artist", str]]


def write_figures(figures: Iterable[Figure], folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write charts into files, the same bytes for the same figures.

    Parameters
    ----------
    figures : iterable of Figure
        Those with a table instead of a chart are left out.
    folder : Path
        Made when it does not exist.
    formats : sequence of str
        Some of `FORMATS`.

    Returns
    -------
    list of Path
        ``<anchor>.<format>``, or ``<anchor>-<levels>.<format>`` for each setting that can be
        chosen; a name that is taken already, also but for upper and lower case, gets a number.

    Raises
    ------
    ConfigError
        If a format is unknown or matplotlib is missing; nothing is written then.
    DataError
        If `folder` is a file.
    """
    unknown = [one for one in formats if one not in FORMATS]
    if unknown:
        allowed = ", ".join(FORMATS)
        raise ConfigError(f"figures cannot be written as {', '.join(unknown)}: choose of {allowed}")
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file: give a folder for the figures")
    written = []
    with _styled():
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        for stem, figure, chart in named_charts(figures):
            for kind in dict.fromkeys(formats):
                path = folder / f"{stem}.{kind}"
                written.append(write_atomic(path, _render(figure, chart, kind)))
    return written


def draw_figure(figure: Figure, chart: Chart, kind: str) -> bytes:
    """Draw one chart of a figure, as the content of a file in one of `FORMATS`.

    Raises
    ------
    ConfigError
        If matplotlib is missing.
    """
    with _styled():
        return _render(figure, chart, kind)


@contextmanager
def _styled() -> Iterator[None]:
    """Have matplotlib draw in our style inside the block, and in the caller's after it."""
    try:
        import matplotlib
        import matplotlib.style
    except ImportError as error:
        raise ConfigError(
            f"figures are drawn with matplotlib ({error}): pip install 'fedlabels[report]'"
        ) from error
    with matplotlib.rc_context(), warnings.catch_warnings():
        # what a name's letter is drawn as when the font lacks it is no one's fault
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        matplotlib.style.use("default")
        matplotlib.rcParams.update(_STYLE)
        yield


def _render(figure: Figure, chart: Chart, kind: str) -> bytes:
    # every file is drawn anew: what a format does to a drawing must not show in the next one
    buffer = io.BytesIO()
    summary = "Subject" if kind == "pdf" else "Description"
    undated = {"png": "Software", "svg": "Date", "pdf": "CreationDate"}[kind]
    facts = {"Title": _clean(figure.title), summary: _clean(describe(chart)), undated: None}
    sheet = _draw(chart, figure.title, wide=figure.wide)
    sheet.savefig(buffer, format=kind, dpi=_DPI, metadata=facts)
    return buffer.getvalue()


def _draw(chart: Chart, title: str, *, wide: bool = False) -> "Sheet":
    """Draw a chart on a sheet of its own that is as high as the chart needs."""
    from matplotlib.figure import Figure as Sheet

    names = chart.x.names if isinstance(chart, Heatmap) else ()
    names = chart.clients if isinstance(chart, Squares) else names
    width = _WIDE if wide and len(names) > _MANY else _WIDTH
    sheet = Sheet(figsize=(width, _PLOT), layout="constrained", facecolor="white")
    axes = sheet.add_subplot()
    draws: dict[type, Any] = {
        Lines: _draw_lines, Bars: _draw_bars, Heatmap: _draw_heatmap, Boxes: _draw_boxes,
        Squares: _draw_squares,
    }  # fmt: skip
    height, legend = draws[type(chart)](chart, axes)
    letters = int(width * 72 / (0.72 * _LARGE))
    text = textwrap.fill(_clean(title), letters)
    sheet.suptitle(text, x=0.012, ha="left", fontsize=_LARGE, fontweight="bold")
    height += 0.45 + 0.2 * text.count("\n")
    if len(legend) > 1:
        labels = [_clean(label) for _, label in legend]
        columns = max(1, int((width - 0.2) / (1.15 * _inches(labels) + 0.6)))
        rows = -(-len(labels) // columns)
        # below, where it covers neither data nor title
        sheet.legend(
            [artist for artist, _ in legend], labels, ncols=-(-len(labels) // rows),
            loc="outside lower left", fontsize=_TEXT, handlelength=2.6, columnspacing=1.6,
        )  # fmt: skip
        height += 0.15 + 0.19 * rows
    sheet.set_size_inches(width, height)
    return sheet


def _draw_lines(chart: Lines, axes: "Axes") -> tuple[float, Legend]:
    x_axis, across = _in_unit(chart.x, [line.x for line in chart.lines])
    y_axis, up = _in_unit(chart.y, [v for line in chart.lines for v in (line.y, line.high)])
    legend: Legend = []
    places: set[float] = set()
    for index, line in enumerate(chart.lines):
        color = _TONES[line.tone]
        known = np.isfinite(line.x) & np.isfinite(line.y)
        x, y = thin(line.x[known], line.y[known])
        places.update(x.tolist())
        if line.low is not None and line.high is not None:
            known = np.isfinite(line.x) & np.isfinite(line.low) & np.isfinite(line.high)
            axes.fill_between(
                line.x[known] / across, line.low[known] / up, line.high[known] / up,
                color=color, alpha=0.16, linewidth=0, gid=f"band-{index}",
            )  # fmt: skip
        (drawn,) = axes.plot(
            x / across, y / up, color=color, linestyle=_DASHES[line.tone],
            marker=_MARKERS[line.tone] if len(x) <= _FEW_POINTS else None, markersize=4.5,
            markeredgecolor="white", markeredgewidth=0.6, gid=f"line-{index}", zorder=3,
        )  # fmt: skip
        legend.append((drawn, line.label))
    _quantity(axes.yaxis, y_axis)
    _quantity(axes.xaxis, x_axis)
    extra = 0.0
    if x_axis.names:
        axes.set_xlim(-0.5, len(x_axis.names) - 0.5)
        extra = _names_below(axes, x_axis.names, _room(axes))
    elif len(places) == 1:
        middle = places.pop() / across
        axes.set_xlim(middle - 1, middle + 1)
    shown = axes.viewLim.padded(1e-9)
    for drawn in axes.lines:
        # a mark on the edge stays whole
        points = np.asarray(drawn.get_xydata())
        drawn.set_clip_on(shown.count_contains(points) < len(points))
    _ground(axes)
    return _PLOT + 0.6 + extra, legend


def _draw_bars(chart: Bars, axes: "Axes") -> tuple[float, Legend]:
    from matplotlib.patches import Patch

    tops: list[Column | None] = [chart.total, *(bar.high for bar in chart.bars)]
    tops += [bar.values for bar in chart.bars]
    if chart.stacked:
        tops.append(np.atleast_1d(sum(np.abs(np.nan_to_num(bar.values)) for bar in chart.bars)))
    axis, up = _in_unit(chart.y, tops)
    places = np.arange(len(chart.x.names), dtype=np.float64)
    share = 0.8 if chart.stacked else 0.8 / max(1, len(chart.bars))
    edge = 0.5 if len(places) * (1 if chart.stacked else len(chart.bars)) <= 60 else 0.0
    above, below = np.zeros(len(places)), np.zeros(len(places))
    legend: Legend = []
    for index, bar in enumerate(chart.bars):
        color, known = _TONES[bar.tone], np.isfinite(bar.values)
        values = np.where(known, bar.values, 0.0) / up
        middle = places if chart.stacked else places - 0.4 + (index + 0.5) * share
        ground = np.where(values >= 0, above, below) if chart.stacked else np.zeros(len(places))
        drawn = axes.bar(
            middle[known], values[known], share, ground[known], color=color,
            edgecolor="white", linewidth=edge, zorder=2,
        )  # fmt: skip
        for place, patch in zip(np.flatnonzero(known).tolist(), drawn, strict=True):
            patch.set_gid(f"bar-{index}-{place}")
        above, below = above + np.maximum(values, 0), below + np.minimum(values, 0)
        # an error bar inside a stack would be read as one of the whole stack
        alone = not chart.stacked or len(chart.bars) == 1
        if bar.low is not None and bar.high is not None and alone:
            known = np.isfinite(bar.low) & np.isfinite(bar.high)
            low, high = bar.low[known] / up, bar.high[known] / up
            axes.errorbar(
                middle[known], (low + high) / 2, (high - low) / 2, fmt="none", ecolor=_INK,
                elinewidth=1, capsize=min(3.0, 120 * share / max(1, len(places))), zorder=3,
            )  # fmt: skip
        legend.append((Patch(facecolor=color), bar.label))
    if chart.total is not None:
        known = np.isfinite(chart.total)
        marks = axes.hlines(
            chart.total[known] / up, places[known] - 0.45, places[known] + 0.45, color=_INK,
            linewidth=1.8, gid="total", zorder=4,
        )  # fmt: skip
        legend.append((marks, chart.total_label))
    _quantity(axes.yaxis, axis)
    axes.set_xlabel(_clean(axis_title(chart.x)))
    axes.set_xlim(-0.6, max(1, len(places)) - 0.4)
    if axes.get_ylim()[0] < 0:
        axes.axhline(0, color=_QUIET, linewidth=0.8, zorder=2.5)
    _ground(axes)
    return _PLOT + 0.6 + _names_below(axes, chart.x.names, _room(axes)), legend


def _draw_heatmap(chart: Heatmap, axes: "Axes") -> tuple[float, Legend]:
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    rows, columns = len(chart.y.names), len(chart.x.names)
    value, per = _in_unit(chart.value, [chart.values.ravel()])
    values = chart.values.reshape(rows, columns) / per
    known = values[np.isfinite(values)]
    ends = known if len(known) else np.array([0.0, 1.0])
    low = float(ends.min()) if value.low is None else value.low
    high = float(ends.max()) if value.high is None else value.high
    if chart.diverging:
        low, high = -max(abs(low), abs(high)), max(abs(low), abs(high))
    if not low < high:
        low, high = low - 0.5, high + 0.5
    colors = LinearSegmentedColormap.from_list("", _PARTING if chart.diverging else _RISING)
    norm = Normalize(low, high, clip=True)
    mesh = axes.pcolormesh(
        np.arange(columns + 1), np.arange(rows + 1), np.ma.masked_invalid(values), cmap=colors,
        norm=norm, edgecolors="white", linewidth=0.8 if max(rows, columns) <= 40 else 0,
    )  # fmt: skip
    # the ground shows where there is no cell
    axes.patch.set(facecolor="#fafaf8", hatch="////", edgecolor=_RULE, linewidth=0, gid="empty")
    height = float(np.clip(9.0 / max(1, rows), 0.09, 0.34))
    room = _room(axes) - 0.9 - _inches(map(_short, chart.y.names))
    cell = max(0.02, room / max(1, columns))
    fitting = _fitting([text for line in chart.texts for text in line], cell, height)
    for row, line in enumerate(chart.texts if fitting else ()):
        for column, text in enumerate(line):
            back = colors(float(norm(values[row, column]))) if text else (1.0, 1.0, 1.0)
            empty = not np.isfinite(values[row, column])
            axes.text(
                column + 0.5, row + 0.5, _clean(text), ha="center", va="center", fontsize=fitting,
                color=_INK if empty or _is_light(back) else "white",
            )  # fmt: skip
    axes.set(xlim=(0, max(1, columns)), ylim=(max(1, rows), 0))
    axes.spines[:].set_visible(False)
    bar = axes.figure.colorbar(mesh, ax=axes, fraction=0.05, pad=0.02, aspect=26)
    bar.outline.set_visible(False)
    _quantity(bar.ax.yaxis, replace(value, low=None, high=None))
    extra = _names_below(axes, chart.x.names, room, at=0.5)
    _names_beside(axes, chart.y.names, height, at=0.5)
    axes.set(xlabel=_clean(axis_title(chart.x)), ylabel=_clean(axis_title(chart.y)))
    plot = max(1.5, rows * height, 1.2 * _inches([axis_title(value)]))
    return plot + 0.6 + extra, []


def _draw_boxes(chart: Boxes, axes: "Axes") -> tuple[float, Legend]:
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    ends = np.array([box.ends for box in chart.boxes], dtype=np.float64).reshape(-1, 5)
    axis, up = _in_unit(chart.y, [ends.ravel()])
    for place in np.flatnonzero(np.isfinite(ends).all(axis=1)).tolist():
        color = _TONES[chart.boxes[place].tone]
        pale = 1 - 0.45 * (1 - np.array(to_rgb(color)))
        low, first, median, third, high = (ends[place] / up).tolist()
        # Axes.bxp would look up every setting, also the backend's, and start pyplot by that
        axes.vlines([place, place], [low, third], [first, high], color=color, linewidth=1.2)
        axes.hlines([low, high], place - 0.11, place + 0.11, color=color, linewidth=1.2)
        box = Rectangle((place - 0.25, first), 0.5, third - first, gid=f"box-{place}")
        axes.add_patch(box).set(facecolor=pale, edgecolor=color)
        axes.hlines(median, place - 0.25, place + 0.25, color=_INK, linewidth=1.8)
    _quantity(axes.yaxis, axis)
    axes.set_xlim(-0.6, max(1, len(ends)) - 0.4)
    _ground(axes)
    return _PLOT + 0.3 + _names_below(axes, [box.label for box in chart.boxes], _room(axes)), []


def _draw_squares(chart: Squares, axes: "Axes") -> tuple[float, Legend]:
    from matplotlib.collections import PolyCollection

    clients, classes = len(chart.clients), len(chart.classes)
    room = _room(axes) - _inches(map(_short, chart.classes))
    across = min(1.0, room / max(1, clients))
    down = float(np.clip(8.0 / max(1, classes), 0.09, min(0.5, 1.6 * across)))
    legend: Legend = []
    soft = f"samples (a full cell: {count(chart.full)})"
    corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    for counts, tone, name in ((chart.total, SOFT, soft), (chart.labeled, 1, "labeled samples")):
        held = np.argwhere(counts > 0)
        share = np.minimum(counts[counts > 0] / chart.full, 1.0)
        # what is there must be seen, be it one sample
        sides = np.maximum(_SIDE * min(across, down) * np.sqrt(share), 0.015)
        shapes = held[:, None, :] + corners * sides[:, None, None] / np.array([across, down])
        drawn = PolyCollection(list(shapes), facecolor=_TONES[tone], gid=f"squares-{tone}")
        legend.append((axes.add_collection(drawn), name))
    axes.hlines(np.arange(classes + 1) - 0.5, -0.5, clients - 0.5, color=_FAINT, linewidth=0.6)
    axes.set(xlim=(-0.5, max(1, clients) - 0.5), ylim=(max(1, classes) - 0.5, -0.5))
    axes.set(xlabel="client", ylabel="class")
    axes.set_aspect(down / across, anchor="W")
    axes.spines[:].set_visible(False)
    extra = _names_below(axes, chart.clients, across * clients)
    _names_beside(axes, chart.classes, down)
    return classes * down + 0.7 + extra, legend


def _in_unit(axis: Axis, columns: Sequence[Column | None]) -> tuple[Axis, float]:
    """Choose one unit for all bytes or seconds of an axis, and what to divide them by."""
    ends = [end for end in (axis.low, axis.high) if end is not None]
    held = np.abs(np.concatenate([ends, *(one for one in columns if one is not None)]))
    greatest = float(held[np.isfinite(held)].max(initial=0.0))
    if axis.unit == "bytes":
        per, name = size_unit(greatest)
    elif axis.unit == "seconds":
        # two of a unit: an axis up to 90 s is read more easily than one up to 1.5 min
        units = ((per, name) for per, name in _SECONDS if greatest >= 2 * per)
        per, name = next(units, (1.0, "s") if greatest >= 0.5 or not greatest else (1e-3, "ms"))
    else:
        return axis, 1.0
    low, high = (None if end is None else end / per for end in (axis.low, axis.high))
    return replace(axis, name=f"{axis.name} ({name})", unit="number", low=low, high=high), per


def _quantity(side: "Side", axis: Axis) -> None:
    """Give a side of the chart its title, ends and readable numbers."""
    from matplotlib.ticker import MaxNLocator

    side.set_label_text(textwrap.fill(_clean(axis_title(axis)), 48))
    fit = side.axes.set_xlim if side is side.axes.xaxis else side.axes.set_ylim
    fit(axis.low, axis.high)
    if axis.unit == "count":
        side.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
        side.set_major_formatter("{x:,.0f}")
    elif axis.unit == "points":
        side.set_major_formatter(lambda x, _: f"{x:+.6g}".replace("-", "−") if x else "0")


def _ground(axes: "Axes") -> None:
    axes.grid(axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _names_below(axes: "Axes", names: Sequence[str], room: float, at: float = 0.0) -> float:
    """Write names under their places, as many as fit, and return the inches that they take."""
    texts = [_short(name) for name in names]
    cell = room / max(1, len(texts))
    widest = _inches(texts)
    # numbers may be left out, as on any axis; what has a name of its own rather leans
    lean = widest + _GAP > cell and widest > 0.6
    pitch = 0.12 / math.sin(math.radians(_TILT)) if lean else widest + _GAP
    step = max(1, math.ceil(pitch / cell)) if texts else 1
    places = range(0, len(texts), step)
    axes.set_xticks([place + at for place in places], [texts[place] for place in places])
    axes.tick_params(axis="x", length=0)
    if lean:
        for label in axes.get_xticklabels():
            label.set(rotation=_TILT, ha="right", rotation_mode="anchor")
    return math.sin(math.radians(_TILT)) * widest if lean else 0.0


def _names_beside(axes: "Axes", names: Sequence[str], height: float, at: float = 0.0) -> None:
    places = range(0, len(names), max(1, math.ceil(0.15 / height)))
    axes.set_yticks([place + at for place in places], [_short(names[place]) for place in places])
    axes.tick_params(axis="y", length=0)


def _fitting(texts: Sequence[str], width: float, height: float) -> float:
    """Return the greatest letters in points, for texts in all cells; 0 where none can be read."""
    widest = _inches(map(_clean, texts))
    largest = min(_SMALL, _SMALL * 0.88 * width / widest) if widest else 0.0
    largest = min(largest, 72 * 0.8 * height)
    return largest if largest >= 4 else 0.0


def _is_light(color: tuple[float, ...]) -> bool:
    """Say whether dark letters stand out more than white ones, by the contrast of WCAG."""
    return float(np.dot((0.2126, 0.7152, 0.0722), np.power(color[:3], 2.2))) > 0.19


def _room(axes: "Axes") -> float:
    """Return about how many inches the places of a chart have, beside its numbers and title."""
    return float(axes.figure.get_figwidth()) - 0.8  # type: ignore[union-attr]


def _inches(texts: Iterable[str]) -> float:
    """Return how wide the widest of some texts in small letters is."""
    from matplotlib.textpath import TextPath

    drawn = (TextPath((0, 0), text, size=_SMALL) for text in texts if text.strip())
    return max((float(path.get_extents().width) / 72 for path in drawn), default=0.0)


def _short(name: str) -> str:
    """Shorten a name in its middle: names of settings often differ at their end."""
    text, half = _clean(name), _LONGEST // 2
    return text if len(text) <= _LONGEST else f"{text[:half]}…{text[-half + 1 :]}"


def _clean(text: str) -> str:
    """Keep what every format can hold: XML has no place for control characters."""
    return "".join(one if one.isprintable() or one == "\xa0" else " " for one in text)
