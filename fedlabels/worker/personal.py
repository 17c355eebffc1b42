"""Every client's own model on its own test samples: from the clients' scores to a run's figures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedlabels.data import ArrayDataset
from fedlabels.federation import Ragged
from fedlabels.federation.ragged import Indices
from fedlabels.rounds.job import ClientRow
from fedlabels.worker.evaluation import columns_of

PREFIX = "personal_"
LOST = ("failed", "rejected")  # whoever could not be tested
NO_FIGURE = "its evaluation gave no figure"
_FIRST = ("client_id", "status", "error", "samples", "domain")


def personal(
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
    made = [_client(row, test, shards) for row in rows]
    scored = [one for one in made if len(one) > len(_FIRST)]
    names = sorted({name for one in scored for name in one}.difference(_FIRST))
    figures = {PREFIX + name: _mean(scored, name) for name in names}
    if "accuracy" in names:
        figures.update(_accuracies(rows, scored, test.domain_names, figures))
        scored = [one for one in scored if "accuracy" in one]
    measured = {one["client_id"] for one in scored}
    for one in made:
        if one["samples"] and one["client_id"] not in measured:
            one["error"] = one["error"] or NO_FIGURE
    lost = [one for one in made if one["error"]]
    counts = {
        f"{PREFIX}clients": len(scored),
        f"{PREFIX}samples": sum(one["samples"] for one in scored),
        f"{PREFIX}failed": len(lost),
    }
    shown = [one for one in made if one["client_id"] in measured or one["error"]]
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
    return float(np.mean([one[name] for one in scored if name in one]))


def _accuracies(
    rows: Sequence[ClientRow],
    scored: Sequence[Mapping[str, Any]],
    domains: Sequence[str],
    known: Mapping[str, float],
) -> dict[str, float]:
    name = f"{PREFIX}accuracy"
    values = {one["client_id"]: one["accuracy"] for one in scored if "accuracy" in one}
    sums = [row.metrics["accuracy"] for row in rows if row.client_id in values]
    each = np.array(list(values.values()))
    figures = {
        f"{name}_pooled": sum(s for s, _ in sums) / max(sum(c for _, c in sums), 1),
        f"{name}_p10": float(np.quantile(each, 0.1)),
        f"{name}_worst": float(each.min()),
    }
    for domain, column in columns_of(f"{name}_", domains, {*known, *figures}).items():
        inside = [one for one in scored if one["domain"] == domain and "accuracy" in one]
        if inside:
            figures[column] = _mean(inside, "accuracy")
    return figures
