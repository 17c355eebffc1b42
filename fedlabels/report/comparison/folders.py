"""What a comparison's page shows of runs beside their metric, as far as their folders have it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedlabels.errors import DataError
from fedlabels.report.client_spread import client_accuracy
from fedlabels.report.comparison.runs import ROUNDS, Run, Values, read_column, read_table
from fedlabels.report.holdings import Holdings, read_holdings

PSEUDO = ("pseudo_accuracy", "pseudo_accuracy_local", "pseudo_accuracy_global")
TOTAL, LOCAL, SHIFT, AGGREGATION = "loss_global", "loss_local", "loss_shift", "loss_aggregation"
_WANTED = (
    "round", "test_loss", *PSEUDO, "pass_rate", TOTAL, LOCAL, SHIFT, AGGREGATION, "loss_gap",
    "bytes_up", "bytes_down", "sampled", "ok", "empty", "rejected",
    "seconds_total",
)  # fmt: skip
_RECALL = "recall_"


@dataclass(frozen=True, slots=True)
class Record:
    """What a run's folder says beside its metric.

    Parameters
    ----------
    run : Run
        The run.
    rounds : mapping of str to ndarray, shape (rounds,)
        Columns of ``rounds.csv`` that have a number; NaN where it is blank.
    recall : ndarray, shape (classes,), or None
        By class, at the last evaluation; None when it was not measured or is damaged.
    held : Holdings or None
        Who holds what; None when the folder does not say it.
    own : ndarray, shape (clients,), or None
        Each client's accuracy on its own test samples, in the last round that measured it.
    """

    run: Run
    rounds: Mapping[str, Values]
    recall: Values | None
    held: Holdings | None
    own: Values | None

    def expected(self) -> Values | None:
        """Return each client's accuracy to expect from its class mix; None when not known."""
        held, recall = self.held, self.recall
        if held is None or recall is None or held.num_classes != len(recall):
            return None
        return client_accuracy(held.total, recall)


def read_records(runs: Iterable[Run]) -> dict[str, Record]:
    """Read what else the folders say; what is missing or damaged is left out.

    Parameters
    ----------
    runs : iterable of Run
        Compared runs.

    Returns
    -------
    dict of str to Record
        By label of the run.
    """
    # Methods share their federations, which take longer to read than all the rest.
    seen: dict[str, Holdings] = {}
    return {
        run.label: Record(
            run=run,
            rounds=_columns(run.path / ROUNDS, _WANTED),
            recall=_recall(run.path / "test_class.csv"),
            held=_held(run, seen),
            own=_own(run.path / "personal.csv"),
        )
        for run in runs
    }


def _columns(path: Path, only: Iterable[str] | None = None) -> dict[str, Values]:
    """Read the columns that have a number; none of a table that is missing or damaged."""
    try:
        table = read_table(path)
        names = [name for name in only or table if name in table]
        columns = {name: read_column(table, name) for name in names if "round" in table}
    except (DataError, OSError):
        return {}
    return {name: values for name, values in columns.items() if np.isfinite(values).any()}


def _recall(path: Path) -> Values | None:
    columns = _columns(path)
    names = sorted((n for n in columns if n.startswith(_RECALL)), key=lambda n: (len(n), n))
    numbers = [name.removeprefix(_RECALL) for name in names]
    if not names or not all(number.isdecimal() for number in numbers):
        return None
    recall = np.full((len(columns[names[0]]), int(numbers[-1]) + 1), np.nan)
    for name, number in zip(names, numbers, strict=True):
        recall[:, int(number)] = columns[name]
    measured = np.flatnonzero(np.isfinite(recall).any(axis=1))
    last = recall[measured[-1]]
    return np.asarray(last)


def _held(run: Run, seen: dict[str, Holdings]) -> Holdings | None:
    known = run.manifest.get("federation_hash")
    if isinstance(known, str) and known in seen:
        return seen[known]
    try:
        held = read_holdings(run.path / "federation.npz")
    except DataError:
        return None
    if held is not None and isinstance(known, str):
        seen[known] = held
    return held


def _own(path: Path) -> Values | None:
    columns = _columns(path, ("round", "accuracy"))
    if len(columns) < 2:
        return None
    measured = np.isfinite(columns["accuracy"])
    last = columns["round"] == columns["round"][measured].max()
    return np.asarray(columns["accuracy"][measured & last])
