"""The metric at the end of the runs: by two settings at once, by each of them, and in ranks."""

import numpy as np

from fedlabels.report.blocks import Cards, Figure
from fedlabels.report.charts import Axis, Bars, Chart, Choice, Heatmap, Line, Lines
from fedlabels.report.comparison.cells import Levels, number, show
from fedlabels.report.comparison.view import ANY, View, choice, readable
from fedlabels.report.numbers import plural

_ACROSS = "labels.fraction"  # stands on the x axis where it differs


def overview(view: View) -> Cards:
    """Show the metric at the last evaluated round: heat maps, differences, lines, ranks."""
    yield from _maps(view)
    yield from _by_key(view)
    if not view.keys:
        yield _alone(view)
    yield from _ranks(view)


def overview_lead(view: View) -> str:
    """Say what is shown, and which values are good."""
    question = view.comparison.question
    better = "lower" if question.lower_is_better else "higher"
    return f"{view.metric_title}, {question.when} of every run; {better} is better."


def _maps(view: View) -> Cards:
    """Make heat maps of the metric and of the differences, where two numeric settings differ."""
    numeric = [
        key
        for index, key in enumerate(view.keys)
        if all(number(level) is not None for level in view.comparison.levels(index))
    ]
    if len(numeric) < 2:
        return
    across = _ACROSS if _ACROSS in numeric else numeric[1]
    down = next(key for key in numeric if key != across)
    places = view.keys.index(across), view.keys.index(down)
    axes = f"{view.short(down)} (rows) and {view.short(across)} (columns)"
    yield from _metric_maps(view, places, axes)
    yield from _difference_maps(view, places, axes)


def _metric_maps(view: View, places: tuple[int, int], axes: str) -> Cards:
    axis, factor = view.metric
    scale = view.comparison.question.scale
    results = {place: view.comparison.last(cell) for place, cell in view.cells.items()}
    means = [factor * mean for mean, _ in results.values()]
    value = Axis(axis.name, axis.unit, low=min(means), high=max(means))
    texts = {place: scale.mean(*pair) for place, pair in results.items()}
    spread = "mean ± sample standard deviation over the seeds" if view.repeated else "single runs"
    for index, name in enumerate(view.contenders, start=1):
        own = {row: factor * pair[0] for (row, who), pair in results.items() if who == name}
        written = {row: text for (row, who), text in texts.items() if who == name}
        chart = _grids(view, places, own, written, value)
        yield Figure(
            f"map-{index}",
            show(name),
            f"{view.metric_title} by {axes}, {spread}; all these maps have the same colors.",
            chart,
            method=show(name),
        )


def _difference_maps(view: View, places: tuple[int, int], axes: str) -> Cards:
    axis, factor = view.metric
    scale, base = view.comparison.question.scale, show(view.comparison.baseline)
    known = [
        one for one in view.comparison.differences if one.row is not None and one.result.pairs > 0
    ]
    most = factor * max((abs(one.result.mean) for one in known), default=0.0)
    unit = "points" if axis.unit == "percent" else axis.unit
    value = Axis(f"difference from {base}", unit, low=-most, high=most)
    for index, name in enumerate(view.contenders, start=1):
        own = {one.row: one.result.mean for one in known if one.row and one.contender == name}
        if not own:
            continue
        texts = {row: scale.difference(mean, mean) for row, mean in own.items()}
        values = {row: factor * mean for row, mean in own.items()}
        chart = _grids(view, places, values, texts, value, diverging=True)
        yield Figure(
            f"difference-{index}",
            f"{show(name)} against {base}",
            f"Mean of {show(name)} minus {base} in {scale.points}, over pairs with the same seed,"
            f" by {axes}; the colors part at zero and are the same in all these maps.",
            chart,
            method=show(name),
        )


def _grids(
    view: View,
    places: tuple[int, int],
    values: dict[Levels, float],
    texts: dict[Levels, str],
    value: Axis,
    *,
    diverging: bool = False,
) -> Chart | Choice:
    """Make a heat map for every combination of the settings that are on neither axis."""
    across, down = (view.comparison.levels(place) for place in places)
    charts: dict[Levels, Chart | None] = {}
    for others in dict.fromkeys(_starred(row, *places) for row in values):
        grid = np.full((len(down), len(across)), np.nan)
        written = [["" for _ in across] for _ in down]
        for i, j in np.ndindex(grid.shape):
            row = _placed(others, {places[0]: across[j], places[1]: down[i]})
            if row in values:
                grid[i, j], written[i][j] = values[row], texts[row]
        x, y = (view.level_axis(place) for place in places)
        charts[others] = Heatmap(x, y, grid, _apart(value), written, diverging)
    chart = choice(charts)
    assert chart is not None
    return chart


def _by_key(view: View) -> Cards:
    """Make lines over the levels of each setting."""
    several = len(view.keys) > 1
    for index, key in enumerate(view.keys):
        others = dict.fromkeys(_starred(row, index) for row in view.rows)
        chart = choice({levels: _over(view, index, levels) for levels in others})
        assert chart is not None
        at = " at the other settings chosen above" if several else ""
        yield Figure(
            f"over-{index + 1}",
            f"{view.metric_title} over {view.short(key)}",
            f"Against {key}{at}, levels in order but not to scale. {view.mean('the band')}",
            chart,
        )


def _over(view: View, index: int, others: Levels) -> Lines:
    levels = view.comparison.levels(index)
    lines: list[Line] = []
    for name in view.contenders:
        pairs = [view.last(_placed(others, {index: level}), name) for level in levels]
        means, spreads = (np.array(column) for column in zip(*pairs, strict=True))
        if np.isfinite(means).any():
            places = np.arange(len(levels), dtype=np.float64)
            lines.append(view.line(name, places, means, spreads))
    return Lines(view.level_axis(index), view.metric[0], lines)


def _alone(view: View) -> Figure:
    values = {}
    for name in view.contenders:
        mean, spread = view.last((), name)
        values[name] = np.array([mean]), np.array([spread])
    axis = view.metric[0]
    chart = view.bars(Axis(view.noun, names=["end of the run"]), axis, values)
    assert isinstance(chart, Bars)  # every run has a finite last value
    return Figure(
        "last-round",
        f"{view.metric_title} by {readable(view.noun)}",
        f"{view.comparison.question.when.capitalize()} of every run. {view.mean('the error bar')}",
        chart,
    )


def _ranks(view: View) -> Cards:
    ranking = view.comparison.ranking
    if len(view.rows) < 2 or len(view.contenders) < 2 or not ranking.mean:
        return
    where = f"{len(ranking.rows):,} of {plural(len(view.rows), 'setting')}"
    chart = view.bars(
        Axis(view.noun, names=[where]),
        Axis("mean rank", low=0.0),
        {name: (np.array([ranking.mean[name]]), None) for name in view.contenders},
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


def _placed(others: Levels, levels: dict[int, str]) -> Levels:
    return tuple(levels.get(index, level) for index, level in enumerate(others))


def _apart(value: Axis) -> Axis:
    """Return an axis whose ends differ: colors between equal ends would be undefined."""
    if value.low is None or value.high is None or value.low < value.high:
        return value
    return Axis(value.name, value.unit, low=value.low - 1.0, high=value.high + 1.0)
