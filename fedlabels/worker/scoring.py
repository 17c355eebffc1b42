"""Pseudo-labels against the hidden truth: done where the simulation is, never in a client."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlabels.cohort.types import PseudoLabels

Score = dict[str, tuple[float, float]]

SCORE = "pseudo_accuracy"
"""What the names of all such figures start with: a client has none of its own."""


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
            entry = totals.setdefault(f"{SCORE}{name}", [0.0, 0.0])
            entry[0] += hits
            entry[1] += float(known.sum())
    return {name: (hits, count) for name, (hits, count) in totals.items()}


def on_host(records: Sequence[PseudoLabels]) -> list[PseudoLabels]:
    """Bring records to the CPU: from another device joined into one, in one transfer."""
    if not records or records[0].sample.device.type == "cpu":
        return list(records)
    return joined(records)


def joined(records: Sequence[PseudoLabels]) -> list[PseudoLabels]:
    """Join the records of a client or a stack into one on the CPU."""
    columns = [_columns(record) for record in records]
    names = list(columns[0])
    whole = torch.stack([torch.cat([c[name] for c in columns], dim=-1) for name in names]).cpu()
    sample, label, keep, expert, *others = whole.unbind()
    candidates = {name[1:]: value for name, value in zip(names[4:], others, strict=True)}
    return [PseudoLabels(sample, label, keep, expert, candidates)]


def _columns(record: PseudoLabels) -> dict[str, Tensor]:
    given = {"sample": record.sample, "label": record.label, "keep": record.keep}
    # a candidate's name has a sign before it, so that it can be called anything
    named = {f"_{name}": value for name, value in record.candidates.items()}
    return {k: v.long() for k, v in {**given, "expert": record.expert, **named}.items()}


def _row(value: Tensor, client: int | None) -> NDArray[np.int64]:
    array: NDArray[np.int64] = (value if client is None else value[client]).numpy()
    return array
