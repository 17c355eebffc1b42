"""The rows that a round leaves in the tables: made from what its clients did, and read back."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fedlabels.rounds.job import ClientRow
from fedlabels.run.folder.folder import RunFolder
from fedlabels.worker.evaluation import Evaluation

_TESTED = "device_accuracy"


def round_record(
    index: int, clients: Sequence[ClientRow], weight: float, metrics: Mapping[str, float]
) -> dict[str, Any]:
    """Make the row of ``rounds.csv`` of a round.

    Parameters
    ----------
    index : int
        The round.
    clients : sequence of ClientRow
        What its clients did.
    weight : float
        Of the updates that count.
    metrics : mapping of str to float
        Of the strategy; those that are not finite are left out.
    """
    counts = dict.fromkeys(("ok", "empty", "failed", "rejected"), 0)
    for client in clients:
        counts[client.status] += 1
    finite = {k: v for k, v in metrics.items() if np.isfinite(v)}
    return {
        **finite,
        **tested_by(clients),
        "round": index,
        "sampled": len(clients),
        **counts,
        "weight": weight,
        "bytes_down": sum(client.bytes_down for client in clients),
        "bytes_up": sum(client.bytes_up for client in clients),
    }


def client_records(
    index: int,
    clients: Iterable[ClientRow],
    held: Callable[[int], tuple[int, int]],
    names: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Make the rows of ``clients.csv`` of a round.

    Parameters
    ----------
    index : int
        The round.
    clients : iterable of ClientRow
        What its clients did.
    held : callable
        client_id -> how many labeled and unlabeled samples that client has.
    names : sequence of str
        Names of the clients, where they have some.
    """
    records = []
    for client in clients:
        labeled, unlabeled = held(client.client_id)
        records.append({
            **{name: total / count for name, (total, count) in client.metrics.items() if count},
            **({"name": names[client.client_id]} if names else {}),
            "round": index,
            "client_id": client.client_id,
            "status": client.status,
            "error": client.error,
            "labeled": labeled,
            "unlabeled": unlabeled,
            "weight": client.weight,
            "bytes_down": client.bytes_down,
            "bytes_up": client.bytes_up,
        })  # fmt: skip
    return records


def write_round(
    folder: RunFolder,
    record: Mapping[str, Any],
    clients: Sequence[Mapping[str, Any]],
    evaluation: Evaluation | None,
    personal: Sequence[Mapping[str, Any]],
) -> None:
    """Write a round into the tables.

    Parameters
    ----------
    folder : RunFolder
        Whose tables.
    record : mapping
        From `round_record`, with what was measured beside it.
    clients : sequence of mapping
        From `client_records`.
    evaluation : Evaluation or None
        Of the global model on the test set; None where it was not tested in this round.
    personal : sequence of mapping
        The clients that tested models of their own in this round.
    """
    folder.clients.append(clients)
    number = {"round": record["round"]}
    if evaluation is not None:
        each = evaluation.classes._asdict().items()
        classes = {f"{name}_{c}": float(x) for name, values in each for c, x in enumerate(values)}
        folder.test_class.append([{**number, **classes}])
        folder.test_domain.append([{**number, **row} for row in evaluation.domains])
    if personal:
        folder.personal.append([{**number, **row} for row in personal])
    # last, because a round is finished when its row is there
    folder.rounds.append([record])


def tested_by(clients: Iterable[ClientRow]) -> dict[str, int]:
    """Return over how many devices and test samples ``device_accuracy`` is; nothing without it."""
    counts = [count for client in clients if (count := client.metrics.get(_TESTED, (0.0, 0.0))[1])]
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
