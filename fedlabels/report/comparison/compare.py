"""Compare runs, from their folders alone: cells, paired differences, ranks, the way to a target."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedlabels.errors import ConfigError, DataError
from fedlabels.report.comparison.cells import (
    Cell,
    Design,
    Levels,
    choose_design,
    group_runs,
    order,
    show,
)
from fedlabels.report.comparison.format import Scale
from fedlabels.report.comparison.runs import LeftOut, Run, find_runs, read_runs
from fedlabels.report.comparison.statistics import Paired, paired, ranks, summarize

DEFAULT_METRIC = "test_accuracy"
_LOWER = ("loss", "error", "seconds", "bytes", "gap", "drift", "failed", "rejected", "_ece")
_TOLD = 5  # reasons in an error
_SHARES = ("accuracy", "precision_", "_f1", "_auc")  # metrics in [0, 1] that are shown in percent

Pairs = list[tuple[Run, Run]]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of the runs.

    Parameters
    ----------
    metric : str
        A column of ``rounds.csv``.
    target : float or None
        Value of the metric, in its own unit (an accuracy is in [0, 1]), of which the costs are
        wanted.
    by : tuple of str or None
        Settings that make the cells; None takes the method and all others that differ.
    baseline : str or None
        What the others are compared with, as it is printed; None takes the first.
    last : int
        Evaluations at the end of a run whose mean is its result, >= 1; all where it has fewer.

    Raises
    ------
    ConfigError
        If the target is not finite, or no share of one with an accuracy, or ``last`` is below 1.
    """

    metric: str = DEFAULT_METRIC
    target: float | None = None
    by: tuple[str, ...] | None = None
    baseline: str | None = None
    last: int = 1

    def __post_init__(self) -> None:
        if self.last < 1:
            raise ConfigError(f"last must be >= 1, the number of evaluations, got {self.last}")
        if self.target is None:
            return
        if not math.isfinite(self.target):
            raise ConfigError(f"the target must be a finite number, got {self.target}")
        if self.is_share and not 0 < self.target <= 1:
            raise ConfigError(
                f"the target of {self.metric} must be in (0, 1], got {self.target:g}: 80 % is 0.8"
            )

    @property
    def when(self) -> str:
        """Say when the metric is taken."""
        if self.last == 1:
            return "at the last evaluated round"
        return f"mean of the last {self.last} evaluated rounds"

    @property
    def lower_is_better(self) -> bool:
        """Whether small values of the metric are good: known by words in its name."""
        return any(word in self.metric for word in _LOWER)

    @property
    def is_share(self) -> bool:
        """Whether the metric is a share of one that is shown in percent."""
        return any(word in self.metric for word in _SHARES) and not self.lower_is_better

    @property
    def scale(self) -> Scale:
        """How the metric is written."""
        return Scale(self.metric, self.is_share)


@dataclass(frozen=True, slots=True)
class Reach:
    """What it took until a cell's runs reached the target.

    Parameters
    ----------
    reached : int
        Runs that did.
    rounds, bytes_moved, seconds : float
        Medians over those; NaN when none did, or some round does not say it.
    """

    reached: int
    rounds: float
    bytes_moved: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Difference:
    """One contender against the baseline.

    Parameters
    ----------
    row : tuple of str or None
        The setting; None stands for all settings together.
    contender : str
        Level of the first key.
    pairs : list of tuple of Run
        (contender, baseline) with the same seed and setting; may be empty.
    result : Paired
        Contender minus baseline, at the end of the runs.
    doubt : str
        Why some pair is not the same task for both; empty when every one is.
    """

    row: Levels | None
    contender: str
    pairs: Pairs
    result: Paired
    doubt: str


@dataclass(frozen=True, slots=True)
class Ranking:
    """Average ranks over the settings in which every contender has a common seed.

    Parameters
    ----------
    rows : list of tuple of str
        Those settings.
    mean : mapping of str to float
        Contender -> its mean rank, 1 is best; empty without such a setting.
    """

    rows: list[Levels]
    mean: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that a comparison found.

    Parameters
    ----------
    question : Question
        What was asked.
    design : Design
        Which settings make the cells.
    cells : list of Cell
        Sorted by their levels.
    baseline : str
        The contender that the others are compared with.
    differences : list of Difference
        For every setting and other contender, then over all settings where there are several.
    ranking : Ranking
        Average ranks.
    left_out : list of LeftOut
        Runs that are not compared.
    """

    question: Question
    design: Design
    cells: list[Cell]
    baseline: str
    differences: list[Difference]
    ranking: Ranking
    left_out: list[LeftOut]

    @property
    def rows(self) -> list[Levels]:
        """The settings, sorted."""
        return list(dict.fromkeys(cell.row for cell in self.cells))

    @property
    def contenders(self) -> list[str]:
        """What is compared, sorted."""
        return contenders(self.cells)

    @property
    def runs(self) -> list[Run]:
        """The compared runs, sorted by label."""
        every = [run for cell in self.cells for run in cell.runs.values()]
        return sorted(every, key=lambda run: run.label)

    def levels(self, index: int) -> list[str]:
        """Return the levels of a setting, in order.

        Parameters
        ----------
        index : int
            Its place among the design's settings.
        """
        return sorted({row[index] for row in self.rows}, key=order)

    def row_text(self, row: Levels) -> str:
        """Write a setting, as in alpha=0.3, fraction=0.01.

        Parameters
        ----------
        row : tuple of str
            One of the settings.
        """
        pairs = zip(self.design.settings, row, strict=True)
        return ", ".join(f"{self.design.names[key]}={show(text)}" for key, text in pairs)

    def cell(self, row: Levels, contender: str) -> Cell | None:
        """Return a cell; None when no run is in it.

        Parameters
        ----------
        row : tuple of str
            A setting.
        contender : str
            Level of the first key.
        """
        return next((c for c in self.cells if (c.row, c.contender) == (row, contender)), None)

    def last(self, cell: Cell) -> tuple[float, float]:
        """Return mean and deviation of the metric at the end of the runs.

        Parameters
        ----------
        cell : Cell
            One of the cells.
        """
        return summarize([run.last for run in cell.runs.values()])

    def best(self, cell: Cell) -> tuple[float, float]:
        """Return mean and deviation of the metric at every run's best round.

        Parameters
        ----------
        cell : Cell
            One of the cells.
        """
        lower = self.question.lower_is_better
        return summarize([run.best(lower_is_better=lower) for run in cell.runs.values()])

    def reach(self, cell: Cell) -> Reach:
        """Return what the target took.

        Parameters
        ----------
        cell : Cell
            One of the cells; the question must have a target.
        """
        target, lower = self.question.target, self.question.lower_is_better
        assert target is not None
        tried = [run.reached(target, lower_is_better=lower) for run in cell.runs.values()]
        done = [one for one in tried if one is not None]
        medians = [float(np.median(column)) for column in zip(*done, strict=True)]
        return Reach(len(done), *(medians or [math.nan] * 3))


def compare(folders: Sequence[Path], question: Question) -> Comparison:
    """Compare the runs in and below some folders.

    Parameters
    ----------
    folders : sequence of Path
        Run folders, and folders with runs anywhere below them; their order does not matter.
    question : Question
        What is asked.

    Returns
    -------
    Comparison
        The same for the same runs.

    Raises
    ------
    DataError
        If no run can be compared.
    ConfigError
        If a key or the baseline is none of these runs'.
    """
    runs, left = read_runs(find_runs(folders), question.metric, question.last)
    if not runs:
        reasons = "; ".join(f"{one.label}: {one.reason}" for one in left[:_TOLD])
        reasons += f"; and {len(left) - _TOLD} more" if len(left) > _TOLD else ""
        raise DataError(f"no run can be compared ({reasons})")
    design = choose_design(runs, question.by)
    cells, repeated = group_runs(runs, design)
    baseline = _baseline(contenders(cells), question.baseline)
    return Comparison(
        question=question,
        design=design,
        cells=cells,
        baseline=baseline,
        differences=list(_differences(cells, baseline)),
        ranking=_ranking(cells, lower_is_better=question.lower_is_better),
        left_out=sorted([*left, *repeated], key=lambda one: one.label),
    )


def contenders(cells: Sequence[Cell]) -> list[str]:
    """List what is compared.

    Parameters
    ----------
    cells : sequence of Cell
        Cells of a comparison.

    Returns
    -------
    list of str
        Levels of the first key, sorted.
    """
    return sorted({cell.contender for cell in cells}, key=order)


def doubt(runs: Sequence[Run]) -> str:
    """Say why runs are not of the same task.

    Parameters
    ----------
    runs : sequence of Run
        Runs with the same seed at the same setting.

    Returns
    -------
    str
        Empty when data set and federation are known to be the same.
    """
    if len({run.manifest.get("dataset") for run in runs}) > 1:
        return "not the same data set"
    hashes = {run.manifest.get("federation_hash") for run in runs}
    if len(hashes - {None}) > 1:
        return "not the same federation"
    return "federation not known" if None in hashes else ""


def _baseline(known: Sequence[str], name: str | None) -> str:
    if name is None:
        return known[0]
    for text in known:
        if show(text) == name:
            return text
    names = ", ".join(show(text) for text in known)
    raise ConfigError(f"--baseline {name} is not among what is compared: give one of {names}")


def _differences(cells: Sequence[Cell], baseline: str) -> Iterator[Difference]:
    by_place = {(cell.row, cell.contender): cell for cell in cells}
    rows = list(dict.fromkeys(cell.row for cell in cells))
    others = [name for name in contenders(cells) if name != baseline]
    pooled: dict[str, Pairs] = {name: [] for name in others}
    for row in rows:
        for name in others:
            cell, base = by_place.get((row, name)), by_place.get((row, baseline))
            if cell is None:
                continue
            pairs = _pairs(cell, base) if base else []
            pooled[name] += pairs
            yield _difference(row, name, pairs)
    if len(rows) > 1:
        for name in others:
            yield _difference(None, name, pooled[name])


def _pairs(cell: Cell, base: Cell) -> Pairs:
    return [(run, base.runs[key]) for key, run in cell.runs.items() if key in base.runs]


def _difference(row: Levels | None, contender: str, pairs: Pairs) -> Difference:
    doubts = sorted({doubt(pair) for pair in pairs} - {""})
    result = paired([run.last - other.last for run, other in pairs])
    return Difference(row, contender, pairs, result, ", ".join(doubts))


def _ranking(cells: Sequence[Cell], *, lower_is_better: bool) -> Ranking:
    names = contenders(cells)
    rows: list[Levels] = []
    places: list[list[float]] = []
    for row in dict.fromkeys(cell.row for cell in cells):
        runs = {cell.contender: cell.runs for cell in cells if cell.row == row}
        if len(runs) < len(names):
            continue
        common = set.intersection(*map(set, runs.values()))
        if common:
            # fsum: the order of a set must not decide whether two means tie
            means = [
                math.fsum(runs[name][key].last for key in common) / len(common) for name in names
            ]
            rows.append(row)
            places.append(ranks(means, lower_is_better=lower_is_better))
    mean = [float(value) for value in np.mean(places, axis=0)] if places else []
    return Ranking(rows, dict(zip(names, mean, strict=False)))
