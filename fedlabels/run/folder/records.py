"""The row that ``rounds.csv`` has of a round: made from what its clients did, and read back."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fedlabels.rounds.job import ClientRow

_TESTED = "device_accuracy"


def made_record(
    index: int, rows: Sequence[ClientRow], weight: float, metrics: Mapping[str, float]
) -> dict[str, Any]:
    """Make a round's record.

    Parameters
    ----------
    index : int
        The round.
    rows : sequence of ClientRow
        What its clients did.
    weight : float
        Of the updates that count.
    metrics : mapping of str to float
        Of the strategy; those that are not finite are left out.
    """
    counts = dict.fromkeys(("ok", "empty", "failed", "rejected"), 0)
    for row in rows:
        counts[row.status] += 1
    finite = {k: v for k, v in metrics.items() if np.isfinite(v)}
    return {
        **finite,
        **tested_by(rows),
        "round": index,
        "sampled": len(rows),
        **counts,
        "weight": weight,
        "bytes_down": sum(row.bytes_down for row in rows),
        "bytes_up": sum(row.bytes_up for row in rows),
    }


def tested_by(rows: Iterable[ClientRow]) -> dict[str, int]:
    """Return over how many devices and test samples ``device_accuracy`` is; nothing without it."""
    counts = [count for row in rows if (count := row.metrics.get(_TESTED, (0.0, 0.0))[1])]
    return {"device_clients": len(counts), "device_samples": int(sum(counts))} if counts else {}


def record_of(row: Mapping[str, str]) -> dict[str, int | float | str]:
    """Return a row of ``rounds.csv`` as the record that it was written from, without blanks."""
    return {name: _value(text) for name, text in row.items() if text}


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
