"""What is odd about a federation, said before anybody runs it for hours."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fedlabels.federation.federation import Federation
from fedlabels.federation.ragged import Indices
from fedlabels.federation.summary import class_counts

TINY = 10  # samples; fewer make batches and statistics of little meaning
BIASED = -0.5  # correlation of a class's turn and the number of its holders


def suspicions(federation: Federation) -> list[str]:
    """Say what may spoil or explain a result.

    Parameters
    ----------
    federation : Federation
        Who holds what.

    Returns
    -------
    list of str
        One sentence each; empty when nothing was found.
    """
    held = _held(federation)
    return [
        *_sizes(federation),
        *_lost(federation),
        *_labels(federation),
        *_classes(held),
        *_bias(federation, held),
    ]


def _held(federation: Federation) -> Indices:
    """Count what every client holds of every class, shape (K, C)."""
    clients, classes = len(federation), federation.num_classes
    total = np.zeros((clients, classes), dtype=np.int64)
    for part in (federation.labeled, federation.unlabeled):
        total += class_counts(part.owners, federation.labels[part.index], clients, classes)
    return total


def _sizes(federation: Federation) -> Iterator[str]:
    sizes = federation.labeled.sizes + federation.unlabeled.sizes
    empty, tiny = int((sizes == 0).sum()), int(((sizes > 0) & (sizes < TINY)).sum())
    if empty:
        yield f"Clients without any sample, which never contribute: {empty}."
    if tiny:
        yield (
            f"Clients with fewer than {TINY} samples: {tiny}; partition.min_size={TINY} moves some "
            "to them."
        )
    top = np.sort(sizes)[::-1][: max(len(sizes) // 10, 1)].sum()
    if len(sizes) >= 20 and top > 0.5 * sizes.sum():
        yield f"A tenth of the clients holds {100 * top / sizes.sum():.0f} % of all samples."


def _lost(federation: Federation) -> Iterator[str]:
    partition = federation.settings.get("partition", {})
    if partition.get("name") != "flower":
        return  # ours deal every sample, or are told to leave some out
    parts = federation.labeled.index, federation.unlabeled.index, federation.server
    nobody = np.ones(len(federation.labels), dtype=bool)
    nobody[np.concatenate(parts)] = False
    if nobody.any():
        unknown = int((federation.labels[nobody] < 0).sum())
        yield (
            f"{partition.get('target')} and what lies over it leave {int(nobody.sum()):,} of "
            f"{len(nobody):,} samples to nobody, {unknown:,} of them of unknown class."
        )


def _labels(federation: Federation) -> Iterator[str]:
    labels = federation.labeled.sizes
    per_class = np.bincount(
        federation.labels[federation.labeled.index], minlength=federation.num_classes
    )
    if len(federation.server):
        yield f"{len(federation.server)} labeled samples lie at the server, with no client."
    if not labels.any():
        yield "No client has a label: methods that need labels at the clients cannot run."
        return
    without = np.flatnonzero(per_class == 0)
    if len(without):
        listed = ", ".join(map(str, without[:10])) + (" ..." if len(without) > 10 else "")
        yield f"No client has a label of class {listed}: nobody can learn it from labels."
    silent = int((labels == 0).sum())
    if silent:
        yield f"Clients without a label: {silent} of {len(labels)}."
    wrong = int((federation.given != federation.labels[federation.labeled.index]).sum())
    if wrong:
        yield (
            f"{wrong} of {len(federation.given)} labels are wrong "
            f"({100 * wrong / len(federation.given):.1f} %)."
        )


def _classes(held: Indices) -> Iterator[str]:
    holders = (held > 0).sum(axis=0)
    if len(held) > 1:
        single = int((holders == 1).sum())
        if single:
            yield f"Classes that only one client holds: {single}; sampling rarely reaches it."
    missing = int((holders == 0).sum())
    if missing:
        yield f"Classes that no client holds: {missing}."


def _bias(federation: Federation, held: Indices) -> Iterator[str]:
    partition = federation.settings.get("partition", {})
    if not partition.get("balance") or partition.get("class_order") != "natural":
        return
    trend = late_class_trend(held)
    if trend < BIASED:
        holders = (held > 0).sum(axis=0)
        yield (
            "Balanced Dirichlet in natural class order gathers late classes on few clients: class "
            f"0 lies with {holders[0]} clients, class {len(holders) - 1} with {holders[-1]} "
            f"(correlation {trend:.2f}). Results per class are confounded with the class number; "
            "partition.class_order=permuted avoids that."
        )


def late_class_trend(held: Indices) -> float:
    """Correlate the number of a class with the number of clients that hold it.

    Parameters
    ----------
    held : ndarray of int64, shape (K, C)
        Samples by client and class.

    Returns
    -------
    float
        In [-1, 1]; 0 where all classes have the same number of holders.
    """
    holders: NDArray[np.float64] = (held > 0).sum(axis=0).astype(np.float64)
    if holders.std() == 0:
        return 0.0
    return float(np.corrcoef(np.arange(len(holders)), holders)[0, 1])
