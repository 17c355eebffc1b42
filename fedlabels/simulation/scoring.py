"""Pseudo-labels against the hidden truth: done where the simulation is, never in a client."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedlabels.cohort.types import PseudoLabels

Score = dict[str, tuple[float, float]]


def score(records: Sequence[PseudoLabels], truth: NDArray[np.int64], client: int | None) -> Score:
    """Score what one client wrote in a round.

    Parameters
    ----------
    records : sequence of PseudoLabels
        From the cohort, in order.
    truth : ndarray of int64, shape (samples,)
        Hidden labels, -1 where nobody knows.
    client : int or None
        Position of the client in a stack; None for a looped cohort.

    Returns
    -------
    dict of str to (float, float)
        ``pseudo_accuracy`` of the selected labels among the kept samples, and
        ``pseudo_accuracy_<expert>`` of what each expert would have written for the same samples,
        as sums and counts. Empty without records.
    """
    totals: dict[str, list[float]] = {}
    for record in records:
        sample, keep = _row(record.sample, client), _row(record.keep, client).astype(bool)
        known = keep & (sample >= 0)
        known &= truth[np.where(known, sample, 0)] >= 0
        right = truth[sample[known]]
        labels = {"": record.label, **{f"_{k}": v for k, v in record.candidates.items()}}
        for name, label in labels.items():
            hits = float((_row(label, client)[known] == right).sum())
            entry = totals.setdefault(f"pseudo_accuracy{name}", [0.0, 0.0])
            entry[0] += hits
            entry[1] += float(known.sum())
    return {name: (hits, count) for name, (hits, count) in totals.items()}


def _row(value: Tensor, client: int | None) -> NDArray[np.int64]:
    array: NDArray[np.int64] = (value if client is None else value[client]).numpy()
    return array
