"""Every client's own model on its own test samples: from the clients' scores to a run's figures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedlabels.data import ArrayDataset
from fedlabels.federation import Ragged
from fedlabels.simulation.job import ClientRow

PREFIX = "personal_"


def personal(
    rows: Sequence[ClientRow], test: ArrayDataset, shards: Ragged
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Summarize what the clients reported of their test samples.

    Parameters
    ----------
    rows : sequence of ClientRow
        Answers to the exchange ``"evaluate"``; clients without scores are left out.
    test : ArrayDataset
        The test set.
    shards : Ragged
        Each client's own test samples.

    Returns
    -------
    dict of str to float
        ``personal_<metric>``, the mean over clients. Of the accuracy also
        ``personal_accuracy_pooled`` (right over all samples), ``_p10`` (10th percentile),
        ``_worst``, and where there are domains ``personal_accuracy_<domain>``.
    list of dict
        ``client_id``, ``domain`` and the metrics of every client.
    """
    made = [_client(row, test, shards) for row in rows]
    scored = [one for one in made if len(one) > 2]
    if not scored:
        return {}, []
    names = sorted({name for one in scored for name in one} - {"client_id", "domain"})
    figures = {PREFIX + name: _mean(scored, name) for name in names}
    if "accuracy" in names:
        figures.update(_accuracies(rows, scored))
    return figures, scored


def _client(row: ClientRow, test: ArrayDataset, shards: Ragged) -> dict[str, Any]:
    means = {name: total / count for name, (total, count) in row.metrics.items() if count}
    return {"client_id": row.client_id, "domain": _domain(row.client_id, test, shards), **means}


def _domain(client_id: int, test: ArrayDataset, shards: Ragged) -> str | None:
    """Return the most frequent domain of a client's test samples."""
    held = shards[client_id]
    if test.domain is None or not len(held):
        return None
    return str(test.domain_names[int(np.bincount(test.domain[held]).argmax())])


def _mean(scored: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(np.mean([one[name] for one in scored if name in one]))


def _accuracies(rows: Sequence[ClientRow], scored: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    values = np.array([one["accuracy"] for one in scored if "accuracy" in one])
    sums = [row.metrics["accuracy"] for row in rows if "accuracy" in row.metrics]
    name = f"{PREFIX}accuracy"
    figures = {
        f"{name}_pooled": sum(s for s, _ in sums) / max(sum(c for _, c in sums), 1),
        f"{name}_p10": float(np.quantile(values, 0.1)),
        f"{name}_worst": float(values.min()),
    }
    domains = sorted({str(one["domain"]) for one in scored if one["domain"] is not None})
    for domain in domains:
        inside = [one for one in scored if one["domain"] == domain and "accuracy" in one]
        figures[f"{name}_{domain}"] = _mean(inside, "accuracy")
    return figures
