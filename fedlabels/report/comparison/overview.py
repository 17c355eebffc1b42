"""The metric at the end of the runs: by two settings at once, by each of them, and in ranks."""

from collections.abc import Iterator

import numpy as np

from fedlabels.report.blocks import Figure, Section
from fedlabels.report.charts import Axis, Bars, Chart, Choice, Heatmap, Line, Lines
from fedlabels.report.comparison.cells import Levels, number, show
from fedlabels.report.comparison.tables import scale_of
from fedlabels.report.comparison.view import ANY, View, choice, head, readable
from fedlabels.report.numbers import plural

_ACROSS = "labels.fraction"  # stands on the x axis where it differs


def overview(shown: View) -> Section:
    """Show the metric at the last evaluated round.

    Parameters
    ----------
    shown : View
        The comparison.

    Returns
    -------
    Section
        Heat maps, differences, lines over each setting, ranks.
    """
    figures = [*_maps(shown), *_by_key(shown)]
    if not shown.keys:
        figures.append(_alone(shown))
    figures += _ranks(shown)
    better = "lower" if shown.found.question.lower_is_better else "higher"
    lead = f"{head(shown.found)}, {shown.found.question.when} of every run; {better} is better."
    return Section("overview", "Overview", lead, None, figures)


def _maps(shown: View) -> Iterator[Figure]:
    """Make heat maps of the metric and of the differences, where two numeric settings differ."""
    numeric = [
        key
        for index, key in enumerate(shown.keys)
        if all(number(level) is not None for level in shown.levels(index))
    ]
    if len(numeric) < 2:
        return
    across = _ACROSS if _ACROSS in numeric else numeric[1]
    down = next(key for key in numeric if key != across)
    places = shown.keys.index(across), shown.keys.index(down)
    axes = f"{shown.short(down)} (rows) and {shown.short(across)} (columns)"
    yield from _metric_maps(shown, places, axes)
    yield from _difference_maps(shown, places, axes)


def _metric_maps(shown: View, places: tuple[int, int], axes: str) -> Iterator[Figure]:
    axis, factor = shown.metric
    scale = scale_of(shown.found)
    found = {place: shown.found.last(cell) for place, cell in shown.cells.items()}
    means = [factor * mean for mean, _ in found.values()]
    value = Axis(axis.name, axis.unit, low=min(means), high=max(means))
    texts = {place: scale.mean(*pair) for place, pair in found.items()}
    spread = "mean ± sample standard deviation over the seeds" if shown.repeated else "single runs"
    for index, name in enumerate(shown.contenders, start=1):
        own = {row: factor * pair[0] for (row, who), pair in found.items() if who == name}
        written = {row: text for (row, who), text in texts.items() if who == name}
        chart = _grids(shown, places, own, written, value)
        yield Figure(
            f"map-{index}",
            show(name),
            f"{head(shown.found)} by {axes}, {spread}; all these maps have the same colors.",
            chart,
            method=show(name),
        )


def _difference_maps(shown: View, places: tuple[int, int], axes: str) -> Iterator[Figure]:
    axis, factor = shown.metric
    scale, base = scale_of(shown.found), show(shown.found.baseline)
    known = [one for one in shown.found.differences if one.row is not None and one.result.pairs > 0]
    most = factor * max((abs(one.result.mean) for one in known), default=0.0)
    unit = "points" if axis.unit == "percent" else axis.unit
    value = Axis(f"difference from {base}", unit, low=-most, high=most)
    for index, name in enumerate(shown.contenders, start=1):
        own = {one.row: one.result.mean for one in known if one.row and one.contender == name}
        if not own:
            continue
        texts = {row: scale.difference(mean, mean) for row, mean in own.items()}
        values = {row: factor * mean for row, mean in own.items()}
        chart = _grids(shown, places, values, texts, value, diverging=True)
        yield Figure(
            f"difference-{index}",
            f"{show(name)} against {base}",
            f"Mean of {show(name)} minus {base} in {scale.points}, over pairs with the same seed,"
            f" by {axes}; the colors part at zero and are the same in all these maps.",
            chart,
            method=show(name),
        )


def _grids(
    shown: View,
    places: tuple[int, int],
    values: dict[Levels, float],
    texts: dict[Levels, str],
    value: Axis,
    *,
    diverging: bool = False,
) -> Chart | Choice:
    """Make a heat map for every combination of the settings that are on neither axis."""
    across, down = (shown.levels(place) for place in places)
    charts: dict[Levels, Chart | None] = {}
    for kept in dict.fromkeys(_starred(row, *places) for row in values):
        grid = np.full((len(down), len(across)), np.nan)
        written = [["" for _ in across] for _ in down]
        for i, j in np.ndindex(grid.shape):
            row = _placed(kept, {places[0]: across[j], places[1]: down[i]})
            if row in values:
                grid[i, j], written[i][j] = values[row], texts[row]
        x, y = (shown.level_axis(place) for place in places)
        charts[kept] = Heatmap(x, y, grid, _apart(value), written, diverging)
    made = choice(charts)
    assert made is not None
    return made


def _by_key(shown: View) -> Iterator[Figure]:
    """Make lines over the levels of each setting."""
    several = len(shown.keys) > 1
    for index, key in enumerate(shown.keys):
        others = dict.fromkeys(_starred(row, index) for row in shown.rows)
        charts: dict[Levels, Chart | None] = {kept: _over(shown, index, kept) for kept in others}
        made = choice(charts)
        assert made is not None
        at = " at the other settings chosen above" if several else ""
        yield Figure(
            f"over-{index + 1}",
            f"{head(shown.found)} over {shown.short(key)}",
            f"Against {key}{at}, levels in order but not to scale. {shown.mean('the band')}",
            made,
        )


def _over(shown: View, index: int, kept: Levels) -> Lines:
    levels = shown.levels(index)
    lines: list[Line] = []
    for name in shown.contenders:
        pairs = [shown.last(_placed(kept, {index: level}), name) for level in levels]
        means, spreads = (np.array(column) for column in zip(*pairs, strict=True))
        if np.isfinite(means).any():
            places = np.arange(len(levels), dtype=np.float64)
            lines.append(shown.line(name, places, means, spreads))
    return Lines(shown.level_axis(index), shown.metric[0], lines)


def _alone(shown: View) -> Figure:
    values = {}
    for name in shown.contenders:
        mean, spread = shown.last((), name)
        values[name] = np.array([mean]), np.array([spread])
    axis = shown.metric[0]
    chart = shown.bars(Axis(shown.noun, names=["end of the run"]), axis, values)
    assert isinstance(chart, Bars)  # every run has a finite last value
    return Figure(
        "last-round",
        f"{head(shown.found)} by {readable(shown.noun)}",
        f"{shown.found.question.when.capitalize()} of every run. {shown.mean('the error bar')}",
        chart,
    )


def _ranks(shown: View) -> Iterator[Figure]:
    ranking = shown.found.ranking
    if len(shown.rows) < 2 or len(shown.contenders) < 2 or not ranking.mean:
        return
    where = f"{len(ranking.rows):,} of {plural(len(shown.rows), 'setting')}"
    chart = shown.bars(
        Axis(shown.noun, names=[where]),
        Axis("mean rank", low=0.0),
        {name: (np.array([ranking.mean[name]]), None) for name in shown.contenders},
    )
    assert isinstance(chart, Bars)
    yield Figure(
        "mean-ranks",
        "Mean rank",
        f"1 is best and ties share a rank; over {where}, those where every one has a common seed.",
        chart,
    )


def _starred(row: Levels, *places: int) -> Levels:
    return tuple(ANY if index in places else level for index, level in enumerate(row))


def _placed(kept: Levels, levels: dict[int, str]) -> Levels:
    return tuple(levels.get(index, level) for index, level in enumerate(kept))


def _apart(value: Axis) -> Axis:
    """Return an axis whose ends differ: colors between equal ends would be undefined."""
    if value.low is None or value.high is None or value.low < value.high:
        return value
    return Axis(value.name, value.unit, low=value.low - 1.0, high=value.high + 1.0)
