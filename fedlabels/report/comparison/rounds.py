"""What happens over the rounds of compared runs: curves, pseudo-labels, the terms of the loss."""

from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np

from fedlabels.report.blocks import Cards
from fedlabels.report.charts import Axis, Bar, Bars, Line, Lines
from fedlabels.report.comparison.cells import Levels, show
from fedlabels.report.comparison.folders import PSEUDO, Record
from fedlabels.report.comparison.runs import Values
from fedlabels.report.comparison.view import View, column_axis, known_mean, summarized
from fedlabels.report.single.decomposition import TERMS, TOTAL, TWO_TERMS

Series = tuple[Values, Values]
_ROUND = Axis("round", "count")
_MODELS = (("local", PSEUDO[1], 1), ("global", PSEUDO[2], 2), ("selected", PSEUDO[0], 3))
_GAP = TWO_TERMS[1][0]


def curves(view: View) -> Cards:
    """Show the metric over rounds and over bytes, and the test loss."""
    axis, factor = view.metric
    question = view.comparison.question
    better = "Lower" if question.lower_is_better else "Higher"
    band = (
        f"{view.mean('the band')} Shown are the rounds in which all runs of a line were evaluated."
    )

    def measured(record: Record) -> Series:
        return record.run.rounds, factor * record.run.metric

    def loss(record: Record) -> Series | None:
        columns = record.rounds
        return (columns["round"], columns["test_loss"]) if "test_loss" in columns else None

    yield view.figure(
        "metric-by-round",
        f"{view.metric_title} over the rounds",
        f"{better} is better. {band}",
        lambda row: _lines(view, row, axis, measured),
    )
    yield view.figure(
        "metric-by-bytes",
        f"{view.metric_title} over communication",
        "Against the bytes moved so far, up and down of all clients: further left at the same"
        f" height is cheaper. {band}",
        lambda row: _lines(view, row, axis, measured, moved=True),
    )
    if question.metric != "test_loss":
        missing = view.without(lambda record: "test_loss" in record.rounds)
        yield view.figure(
            "loss-by-round",
            "Test loss over the rounds",
            "On the global test set; a loss that rises while the accuracy does, too, means"
            f" predictions that are too sure of themselves. {band}{missing}",
            lambda row: _lines(view, row, column_axis("test_loss"), loss),
        )


def pseudo_labels(view: View) -> Cards:
    """Show how good the pseudo-labels were."""
    share, passed = Axis("pseudo-label accuracy", "percent"), Axis("pass rate", "percent")
    longest = max((len(r.rounds.get("round", ())) for r in view.records.values()), default=0)
    averages = " Each point is the mean of neighboring rounds." if longest > view.points else ""
    yield view.figure(
        "pseudo-accuracy",
        "Accuracy of the pseudo-labels",
        "Share of the pseudo-labels used for training that are right, mean over the seeds; the"
        f" hidden truth is known in simulation only.{averages}",
        lambda row: _means(view, row, share, PSEUDO[0]),
    )
    for index, name in enumerate(view.contenders, start=1):
        yield view.figure(
            f"pseudo-models-{index}",
            f"Pseudo-labels of {show(name)} by model",
            "Share of right labels among those used for training (selected), and what the"
            " client's own model and the global model alone would have said; mean over the"
            f" seeds.{averages}",
            _by_model(view, name, share),
            method=show(name),
        )
    yield view.figure(
        "pass-rate",
        "Pass rate",
        "Share of the unlabeled samples that pass the threshold, mean over the seeds; a high one"
        f" with a low accuracy means a threshold that is too low.{averages}",
        lambda row: _means(view, row, passed, "pass_rate"),
    )


def decomposition(view: View) -> Cards:
    """Show what the loss of the global models is made of at the end."""
    caption = (
        "At the last reported round, mean over the seeds. Local: what every client's own model"
        " still loses on its own samples; distribution shift: what it loses more on everyone's;"
        " aggregation: what the new global model loses more (or, below zero, less); where a run"
        " did not tell the last two apart they are one bar. The mark is the global model."
    )
    key = "callbacks.decomposition.variant"
    variants = {run.settings.get(key) for run in view.comparison.runs}
    if "server" in variants:
        caption += (
            " Some were measured on a part of the TEST set: do not choose settings by this figure."
        )
    if len(variants - {None}) > 1:
        caption += " The runs did not measure on the same kind of samples."
    caption += view.without(lambda record: TOTAL in record.rounds)
    yield view.figure(
        "terms", "Terms of the loss", caption, lambda row: _terms(view, row), wide=True
    )


def shared(series: Sequence[Series]) -> tuple[Values, Values, list[Values]]:
    """Take several runs' series to the rounds that all of them have.

    Parameters
    ----------
    series : sequence of (ndarray, ndarray)
        Rounds, ascending, and values of each run; at least one.

    Returns
    -------
    tuple of ndarray, ndarray and list of ndarray
        The common rounds with finite values; values of shape (runs, rounds); and the places of
        those rounds in every run's series.
    """
    known = [rounds[np.isfinite(values)] for rounds, values in series]
    common = np.asarray(reduce(np.intersect1d, known), dtype=np.float64)
    places = [np.searchsorted(rounds, common) for rounds, _ in series]
    values = np.stack([values[i] for (_, values), i in zip(series, places, strict=True)])
    return common, values, [np.asarray(place) for place in places]


def averaged(x: Values, y: Values, most: int) -> Series:
    """Put neighbors together until at most so many points are left.

    Parameters
    ----------
    x, y : ndarray, shape (n,)
        Points; NaN in `y` counts as none.
    most : int
        How many may stay, >= 1.

    Returns
    -------
    tuple of ndarray
        Means of x and of the finite y.
    """
    width = -(-len(x) // most)
    if width <= 1:
        return x, y
    filled = np.full((2, width * -(-len(x) // width)), np.nan)
    filled[:, : len(x)] = x, y
    folded = known_mean(filled.reshape(2, -1, width), axis=2)
    return folded[0], folded[1]


def _lines(
    view: View,
    row: Levels,
    y: Axis,
    read: Callable[[Record], Series | None],
    *,
    moved: bool = False,
) -> Lines | None:
    lines: list[Line] = []

    def moving(record: Record) -> tuple[Series, Values] | None:
        series = read(record)
        return series and (series, record.run.bytes_moved)

    for name, pairs in view.readings(row, moving).items():
        x, values, places = shared([series for series, _ in pairs])
        if moved:
            spent = [moved_bytes[i] for (_, moved_bytes), i in zip(pairs, places, strict=True)]
            x = np.asarray(np.mean(spent, axis=0))
        known = np.flatnonzero(np.isfinite(x))
        if len(known):
            spaced = known[_spaced(len(known), view.points)]
            lines.append(view.line(name, x[spaced], *summarized(values[:, spaced])))
    over = Axis("bytes moved", "bytes", low=0.0) if moved else _ROUND
    return Lines(over, y, lines) if lines else None


def _spaced(number: int, most: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Choose evenly spaced places, the first and the last among them."""
    places = np.linspace(0, number - 1, min(number, most)).round()
    return np.asarray(places, dtype=np.int64)


def _means(view: View, row: Levels, y: Axis, column: str) -> Lines | None:
    means = {name: _mean_share(view, r, column) for name, r in view.records_at(row).items()}
    lines = [view.line(name, *pair) for name, pair in means.items() if pair is not None]
    return Lines(_ROUND, y, lines) if lines else None


def _mean_share(view: View, records: Sequence[Record], column: str) -> Series | None:
    """Return a column's mean over runs in percent, in the rounds that all of them did."""
    known = [record.rounds for record in records if column in record.rounds]
    if not known:
        return None
    done = min(len(table["round"]) for table in known)
    means = known_mean(np.stack([table[column][:done] for table in known]), axis=0)
    return averaged(known[0]["round"][:done], 100.0 * means, view.points)


def _by_model(view: View, name: str, y: Axis) -> Callable[[Levels], Lines | None]:
    """Draw a contender that knows the local from the global model's labels."""

    def draw(row: Levels) -> Lines | None:
        records = view.records_at(row).get(name, [])
        means = {label: _mean_share(view, records, column) for label, column, _ in _MODELS}
        if means["local"] is None and means["global"] is None:
            return None
        lines = [Line(label, tone, *pair) for label, _, tone in _MODELS if (pair := means[label])]
        return Lines(_ROUND, y, lines)

    return draw


def _terms(view: View, row: Levels) -> Bars | None:
    ends = {name: _last_terms(records) for name, records in view.records_at(row).items()}
    known = {name: terms for name, terms in ends.items() if terms}
    if not known:
        return None
    bars = [
        Bar(label, tone, np.array([terms.get(column, np.nan) for terms in known.values()]))
        for column, label, tone in (*TERMS, TWO_TERMS[1])
        if any(column in terms for terms in known.values())
    ]
    return Bars(
        Axis(view.noun, names=[show(name) for name in known]),
        Axis("cross-entropy", "nats"),
        bars,
        total=np.array([terms[TOTAL] for terms in known.values()]),
        total_label="global model",
    )


def _last_terms(records: Sequence[Record]) -> dict[str, float]:
    """Return the means over runs of the terms in each one's last reported round."""
    tables = [record.rounds for record in records]
    split = all(name in table for table in tables if TOTAL in table for name, _, _ in TERMS[1:])
    names = [TOTAL, *(name for name, _, _ in (TERMS if split else TERMS[:1]))]
    ends = []
    for table in tables:
        if any(name not in table for name in names):
            continue
        known = np.flatnonzero(np.all([np.isfinite(table[name]) for name in names], axis=0))
        if len(known):
            ends.append([table[name][known[-1]] for name in names])
    if not ends:
        return {}
    means = dict(zip(names, np.mean(ends, axis=0).tolist(), strict=True))
    return means if split else means | {_GAP: means[TOTAL] - means[TERMS[0][0]]}
