"""Every client's own model on its own test samples: from the exchange to a run's figures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedlabels.data import ArrayDataset
from fedlabels.federation import Ragged
from fedlabels.federation.ragged import Indices
from fedlabels.rounds import wire
from fedlabels.rounds.job import Arrays, Backend, ClientRow, Job, Task
from fedlabels.run.world import World
from fedlabels.settings.hashing import schedule_of
from fedlabels.worker.evaluation import columns_of

PREFIX = "personal_"
LOST = ("failed", "rejected")  # whoever could not be tested
NO_FIGURE = "its evaluation gave no figure"
_FIRST = ("client_id", "status", "error", "samples", "domain")


def personal_answers(
    config: Mapping[str, Any], world: World, backend: Backend, index: int, arrays: Arrays
) -> list[ClientRow]:
    """Let every client with test samples test the model that it would use on them.

    Parameters
    ----------
    config : mapping
        Resolved settings.
    world : World
        Strategy and federation.
    backend : Backend
        Runs the clients.
    index : int
        The round.
    arrays : Arrays
        The global model after it.

    Returns
    -------
    list of ClientRow
        Their answers to the exchange ``"evaluate"``.
    """
    strategy, shards = world.strategy, world.federation.test
    tested = [k for k in range(config["clients"]) if len(shards[k])]
    tasks = tuple(Task(k, strategy.own("evaluate", index, k)) for k in tested)
    shared = {wire.MODEL: arrays, **strategy.shared("evaluate", index)}
    return backend.run(Job("evaluate", index, schedule_of(config), tasks, shared)).rows


def personal_scores(
    rows: Sequence[ClientRow], test: ArrayDataset, shards: Ragged
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Summarize what the clients reported of their test samples.

    Parameters
    ----------
    rows : sequence of ClientRow
        Answers to the exchange ``"evaluate"`` of the clients with test samples.
    test : ArrayDataset
        The test set.
    shards : Ragged
        Each client's own test samples.

    Returns
    -------
    dict of str to float
        ``personal_<metric>``, the mean over the clients that have it. Of the accuracy also
        ``personal_accuracy_pooled`` (right over all samples), ``_p10`` (10th percentile),
        ``_worst``, and where there are domains ``personal_accuracy_<domain>``, see
        :func:`~fedlabels.worker.evaluation.columns_of`. ``personal_clients`` and
        ``personal_samples`` are how many clients and test samples these are over (the accuracy,
        where there is one), ``personal_failed`` how many clients could not be tested or answered
        without such a figure. Without any client nothing.
    list of dict
        Every client that was tested or could not be: ``client_id``, ``status``, ``error``,
        ``samples`` (its test samples), ``domain`` and its metrics, none where its test failed.
    """
    if not rows:
        return {}, []
    clients = [_client(row, test, shards) for row in rows]
    scored = [client for client in clients if len(client) > len(_FIRST)]
    names = sorted({name for client in scored for name in client}.difference(_FIRST))
    figures = {PREFIX + name: _mean(scored, name) for name in names}
    if "accuracy" in names:
        figures.update(_accuracies(rows, scored, test.domain_names, figures))
        scored = [client for client in scored if "accuracy" in client]
    measured = {client["client_id"] for client in scored}
    for client in clients:
        if client["samples"] and client["client_id"] not in measured:
            client["error"] = client["error"] or NO_FIGURE
    lost = [client for client in clients if client["error"]]
    counts = {
        f"{PREFIX}clients": len(scored),
        f"{PREFIX}samples": sum(client["samples"] for client in scored),
        f"{PREFIX}failed": len(lost),
    }
    shown = [client for client in clients if client["client_id"] in measured or client["error"]]
    return {**figures, **counts}, shown


def _client(row: ClientRow, test: ArrayDataset, shards: Ragged) -> dict[str, Any]:
    own = shards[row.client_id]
    own = own[test.y[own] >= 0]
    used = () if row.status in LOST else row.metrics.items()
    means = {name: s / n for name, (s, n) in used if n and name not in _FIRST}
    first = (row.client_id, row.status, row.error, len(own), _domain(own, test))
    return {**dict(zip(_FIRST, first, strict=True)), **means}


def _domain(own: Indices, test: ArrayDataset) -> str | None:
    """Return the most frequent domain of a client's test samples."""
    if test.domain is None or not len(own):
        return None
    return str(test.domain_names[int(np.bincount(test.domain[own]).argmax())])


def _mean(scored: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(np.mean([client[name] for client in scored if name in client]))


def _accuracies(
    rows: Sequence[ClientRow],
    scored: Sequence[Mapping[str, Any]],
    domains: Sequence[str],
    known: Mapping[str, float],
) -> dict[str, float]:
    name = f"{PREFIX}accuracy"
    values = {client["client_id"]: client["accuracy"] for client in scored if "accuracy" in client}
    sums = [row.metrics["accuracy"] for row in rows if row.client_id in values]
    each = np.array(list(values.values()))
    figures = {
        f"{name}_pooled": sum(s for s, _ in sums) / max(sum(c for _, c in sums), 1),
        f"{name}_p10": float(np.quantile(each, 0.1)),
        f"{name}_worst": float(each.min()),
    }
    for domain, column in columns_of(f"{name}_", domains, {*known, *figures}).items():
        inside = [
            client for client in scored if client["domain"] == domain and "accuracy" in client
        ]
        if inside:
            figures[column] = _mean(inside, "accuracy")
    return figures
