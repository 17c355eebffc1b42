"""What a federation looks like in a few numbers."""

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from fedlabels.federation.ragged import Indices, Ragged


class Summary(TypedDict):
    """Numbers of a federation.

    Sizes count the distinct samples that a client holds, labeled or unlabeled. Effective classes
    are exp(entropy in nats) of a client's class mix, averaged over the clients. Total variation is
    the mean over all pairs of clients, from 0 (same mix) to 1 (no class in common). Both are of the
    hidden truth and leave out clients without a sample of known class.
    """

    clients: int
    samples: int
    size_min: int
    size_median: float
    size_max: int
    size_cv: float
    effective_classes: float
    total_variation: float
    labeled: int
    unlabeled: int
    labeled_min: int
    labeled_median: float
    labeled_max: int
    labeled_per_class: list[int]
    clients_without_labels: int
    clients_without_unlabeled: int
    clients_without_samples: int


def summarize(labeled: Ragged, unlabeled: Ragged, labels: Indices, num_classes: int) -> Summary:
    """Describe a federation.

    Parameters
    ----------
    labeled, unlabeled : Ragged
        Shards of every client.
    labels : ndarray of int64, shape (N,)
        Classes, -1 where not known.
    num_classes : int
        Number of classes C.

    Returns
    -------
    Summary
        The numbers.
    """
    owners, index = _held(labeled, unlabeled, len(labels))
    clients = len(labeled)
    sizes = np.bincount(owners, minlength=clients)
    counts = class_counts(owners, labels[index], clients, num_classes)
    counts = counts[counts.sum(axis=1) > 0]
    mixes = counts / counts.sum(axis=1, keepdims=True)
    return Summary(
        clients=clients,
        samples=len(index),
        size_min=int(sizes.min()),
        size_median=float(np.median(sizes)),
        size_max=int(sizes.max()),
        size_cv=float(sizes.std() / sizes.mean()) if sizes.any() else 0.0,
        effective_classes=effective_classes(mixes),
        total_variation=mean_total_variation(mixes),
        labeled=len(labeled.index),
        unlabeled=len(unlabeled.index),
        labeled_min=int(labeled.sizes.min()),
        labeled_median=float(np.median(labeled.sizes)),
        labeled_max=int(labeled.sizes.max()),
        labeled_per_class=np.bincount(labels[labeled.index], minlength=num_classes).tolist(),
        clients_without_labels=int((labeled.sizes == 0).sum()),
        clients_without_unlabeled=int((unlabeled.sizes == 0).sum()),
        clients_without_samples=int((sizes == 0).sum()),
    )


def class_counts(owners: Indices, classes: Indices, clients: int, num_classes: int) -> Indices:
    """Count the samples of every client and class.

    Parameters
    ----------
    owners : ndarray of int64, shape (n,)
        Client of every sample.
    classes : ndarray of int64, shape (n,)
        Class of every sample; -1 is not counted.
    clients, num_classes : int
        Shape of the result.

    Returns
    -------
    ndarray of int64, shape (clients, num_classes)
        Counts.
    """
    known = classes >= 0
    cell = owners[known] * num_classes + classes[known]
    return np.bincount(cell, minlength=clients * num_classes).reshape(clients, num_classes)


def effective_classes(mixes: NDArray[np.float64]) -> float:
    """Return the mean of exp(entropy) over class mixes of shape (K, C); 0 without clients."""
    if not len(mixes):
        return 0.0
    logs = np.log(np.where(mixes > 0, mixes, 1.0))
    return float(np.exp(-(mixes * logs).sum(axis=1)).mean())


def mean_total_variation(mixes: NDArray[np.float64]) -> float:
    """Return the mean total variation over all pairs of class mixes of shape (K, C).

    Notes
    -----
    The sum of ``|a_i - a_j|`` over pairs is ``sum_i (2 i - K + 1) a_(i)`` over sorted values, so
    all pairs cost one sort per class.
    """
    clients = len(mixes)
    if clients < 2:
        return 0.0
    weights = 2 * np.arange(clients) - clients + 1
    distance = (weights[:, None] * np.sort(mixes, axis=0)).sum()
    return float(max(distance, 0.0) / (clients * (clients - 1)))


def _held(labeled: Ragged, unlabeled: Ragged, samples: int) -> tuple[Indices, Indices]:
    """Return owner and index of the distinct samples that clients hold."""
    keys = [part.owners * samples + part.index for part in (labeled, unlabeled)]
    owners, index = np.divmod(np.unique(np.concatenate(keys)), max(samples, 1))
    return owners, index
