"""What happens over the rounds of compared runs: curves, pseudo-labels, the terms of the loss."""

from collections.abc import Callable, Iterator, Sequence
from functools import reduce

import numpy as np

from fedlabels.report.blocks import Figure, Section
from fedlabels.report.charts import Axis, Bar, Bars, Chart, Choice, Line, Lines
from fedlabels.report.comparison.cells import Levels, show
from fedlabels.report.comparison.folders import PSEUDO
from fedlabels.report.comparison.runs import Run, Values
from fedlabels.report.comparison.view import View, column_axis, head, known_mean, summarized
from fedlabels.report.single.decomposition import TERMS, TOTAL, TWO_TERMS

Series = tuple[Values, Values]
_ROUND = Axis("round", "count")
_MODELS = (("local", PSEUDO[1], 1), ("global", PSEUDO[2], 2), ("selected", PSEUDO[0], 3))
_GAP = TWO_TERMS[1][0]


def curves(shown: View) -> Section | None:
    """Show the metric over rounds and over bytes, and the test loss.

    Parameters
    ----------
    shown : View
        The comparison.

    Returns
    -------
    Section or None
        None where no two runs of a cell were evaluated in the same round.
    """
    axis, factor = shown.metric
    metric = head(shown.found)
    better = "Lower" if shown.found.question.lower_is_better else "Higher"
    band = (
        f"{shown.mean('the band')} Shown are the rounds in which all runs of a line were evaluated."
    )

    def measured(run: Run) -> Series:
        return run.rounds, factor * run.metric

    def loss(run: Run) -> Series | None:
        columns = shown.records[run.label].rounds
        return (columns["round"], columns["test_loss"]) if "test_loss" in columns else None

    figures = _figures(
        ("metric-by-round", f"{metric} over the rounds", f"{better} is better. {band}",
         shown.by_setting(lambda row: _lines(shown, row, axis, measured))),
        ("metric-by-bytes", f"{metric} over communication",
         "Against the bytes moved so far, up and down of all clients: further left at the same"
         f" height is cheaper. {band}",
         shown.by_setting(lambda row: _lines(shown, row, axis, measured, moved=True))),
    )  # fmt: skip
    if shown.found.question.metric != "test_loss":
        caption = "On the global test set; a loss that rises while the accuracy does, too, means"
        caption += " predictions that are too sure of themselves."
        missing = shown.without(lambda record: "test_loss" in record.rounds)
        made = shown.by_setting(lambda row: _lines(shown, row, column_axis("test_loss"), loss))
        figures += _figures(
            ("loss-by-round", "Test loss over the rounds", f"{caption} {band}{missing}", made)
        )
    if not figures:
        return None
    lead = "How the models got better, round by round and byte by byte."
    return Section("curves", "Learning curves", lead, None, figures)


def pseudo_labels(shown: View) -> Section | None:
    """Show how good the pseudo-labels were.

    Parameters
    ----------
    shown : View
        The comparison.

    Returns
    -------
    Section or None
        None where no method writes any.
    """
    share = Axis("pseudo-label accuracy", "percent")
    figures = _figures(
        ("pseudo-accuracy", "Accuracy of the pseudo-labels",
         "Share of the pseudo-labels used for training that are right, mean over the seeds; the"
         f" hidden truth is known in simulation only.{_averaged(shown)}",
         shown.by_setting(lambda row: _means(shown, row, share, PSEUDO[0]))),
        ("pass-rate", "Pass rate",
         "Share of the unlabeled samples that pass the threshold, mean over the seeds; a high one"
         f" with a low accuracy means a threshold that is too low.{_averaged(shown)}",
         shown.by_setting(lambda row: _means(shown, row, Axis("pass rate", "percent"),
                                             "pass_rate"))),
    )  # fmt: skip
    figures[1:1] = _by_model(shown, share)
    if not figures:
        return None
    lead = "Labels that the models wrote themselves, scored against the truth."
    return Section("pseudo-labels", "Pseudo-labels", lead, None, figures)


def decomposition(shown: View) -> Section | None:
    """Show what the loss of the global models is made of at the end.

    Parameters
    ----------
    shown : View
        The comparison.

    Returns
    -------
    Section or None
        None where no loss was decomposed.
    """
    made = shown.by_setting(lambda row: _terms(shown, row))
    if made is None:
        return None
    caption = (
        "At the last reported round, mean over the seeds. Local: what every client's own model"
        " still loses on its own samples; distribution shift: what it loses more on everyone's;"
        " aggregation: what the new global model loses more (or, below zero, less); where a run"
        " did not tell the last two apart they are one bar. The mark is the global model."
    )
    key = "callbacks.decomposition.variant"
    variants = {run.settings.get(key) for run in shown.found.runs}
    if "server" in variants:
        caption += (
            " Some were measured on a part of the TEST set: do not choose settings by this figure."
        )
    if len(variants - {None}) > 1:
        caption += " The runs did not measure on the same kind of samples."
    caption += shown.without(lambda record: TOTAL in record.rounds)
    lead = "Where the loss of the global models comes from."
    figure = Figure("terms", "Terms of the loss", caption, made, wide=True)
    return Section("decomposition", "Loss decomposition", lead, None, [figure])


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
    shown: View,
    row: Levels,
    y: Axis,
    read: Callable[[Run], Series | None],
    *,
    moved: bool = False,
) -> Lines | None:
    lines: list[Line] = []
    for name, runs in shown.there(row):
        pairs = [(run, one) for run in runs if (one := read(run)) is not None]
        if not pairs:
            continue
        x, values, places = shared([one for _, one in pairs])
        if moved:
            spent = [run.bytes_moved[i] for (run, _), i in zip(pairs, places, strict=True)]
            x = np.asarray(np.mean(spent, axis=0))
        known = np.flatnonzero(np.isfinite(x))
        if len(known):
            kept = known[_spaced(len(known), shown.points)]
            lines.append(shown.line(name, x[kept], *summarized(values[:, kept])))
    over = Axis("bytes moved", "bytes", low=0.0) if moved else _ROUND
    return Lines(over, y, lines) if lines else None


def _spaced(number: int, most: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Choose evenly spaced places, the first and the last among them."""
    places = np.linspace(0, number - 1, min(number, most)).round()
    return np.asarray(places, dtype=np.int64)


def _means(shown: View, row: Levels, y: Axis, column: str) -> Lines | None:
    found = [(name, _mean_share(shown, runs, column)) for name, runs in shown.there(row)]
    lines = [shown.line(name, *pair) for name, pair in found if pair is not None]
    return Lines(_ROUND, y, lines) if lines else None


def _mean_share(shown: View, runs: Sequence[Run], column: str) -> Series | None:
    """Return a column's mean over runs in percent, in the rounds that all of them did."""
    tables = [shown.records[run.label].rounds for run in runs]
    known = [table for table in tables if column in table]
    if not known:
        return None
    done = min(len(table["round"]) for table in known)
    means = known_mean(np.stack([table[column][:done] for table in known]), axis=0)
    return averaged(known[0]["round"][:done], 100.0 * means, shown.points)


def _averaged(shown: View) -> str:
    longest = max((len(r.rounds.get("round", ())) for r in shown.records.values()), default=0)
    return " Each point is the mean of neighboring rounds." if longest > shown.points else ""


def _by_model(shown: View, y: Axis) -> Iterator[Figure]:
    """Make a figure for every contender that knows the local from the global model's labels."""
    for index, name in enumerate(shown.contenders, start=1):
        made = shown.by_setting(_model_lines(shown, name, y))
        if made is not None:
            yield Figure(
                f"pseudo-models-{index}",
                f"Pseudo-labels of {show(name)} by model",
                "Share of right labels among those used for training (selected), and what the"
                " client's own model and the global model alone would have said; mean over the"
                " seeds."
                f"{_averaged(shown)}",
                made,
                method=show(name),
            )


def _model_lines(shown: View, name: str, y: Axis) -> Callable[[Levels], Lines | None]:
    def make(row: Levels) -> Lines | None:
        cell = shown.cells.get((row, name))
        runs = list(cell.runs.values()) if cell else []
        found = {label: _mean_share(shown, runs, column) for label, column, _ in _MODELS}
        if found["local"] is None and found["global"] is None:
            return None
        lines = [Line(label, tone, *pair) for label, _, tone in _MODELS if (pair := found[label])]
        return Lines(_ROUND, y, lines)

    return make


def _terms(shown: View, row: Levels) -> Bars | None:
    found = [(name, _last_terms(shown, runs)) for name, runs in shown.there(row)]
    known = [(name, terms) for name, terms in found if terms]
    if not known:
        return None
    bars = [
        Bar(label, tone, np.array([terms.get(column, np.nan) for _, terms in known]))
        for column, label, tone in (*TERMS, TWO_TERMS[1])
        if any(column in terms for _, terms in known)
    ]
    return Bars(
        Axis(shown.noun, names=[show(name) for name, _ in known]),
        Axis("cross-entropy", "nats"),
        bars,
        total=np.array([terms[TOTAL] for _, terms in known]),
        total_label="global model",
    )


def _last_terms(shown: View, runs: Sequence[Run]) -> dict[str, float]:
    """Return the means over runs of the terms in each one's last reported round."""
    tables = [shown.records[run.label].rounds for run in runs]
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


def _figures(*parts: tuple[str, str, str, Chart | Choice | None]) -> list[Figure]:
    return [
        Figure(anchor, title, caption, chart)
        for anchor, title, caption, chart in parts
        if chart is not None
    ]
