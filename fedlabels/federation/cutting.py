"""How samples are cut into pieces by shares: class by class, at rounded cumulated shares."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedlabels.errors import ConfigError
from fedlabels.federation.ragged import Indices, Ragged, narrow, stable_order


def draw_class_order(
    labels: Indices, num_classes: int, random: np.random.Generator
) -> list[Indices]:
    """Shuffle the samples of every class.

    Parameters
    ----------
    labels : ndarray of int64, shape (N,)
        Classes, -1 where not known.
    num_classes : int
        Number of classes C.
    random : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    list of ndarray of int64
        C + 1 arrays of sample indices; the last holds those of unknown class.

    Examples
    --------
    >>> order = draw_class_order(np.array([1, 0, -1, 1]), 2, np.random.default_rng(0))
    >>> [sorted(indices.tolist()) for indices in order]
    [[1], [0, 3], [2]]
    """
    shuffled = random.permutation(len(labels))
    keys = np.where(labels < 0, num_classes, labels)
    keys = narrow(keys, num_classes + 1)[shuffled]
    ordered = shuffled[stable_order(keys, num_classes + 1)]
    ends = np.cumsum(np.bincount(keys, minlength=num_classes + 1))
    return np.split(ordered, ends[:-1])


def cut_by_proportions(
    labels: Indices,
    proportions: NDArray[np.float64],
    class_order: Sequence[Indices],
) -> Ragged:
    """Cut every class into one piece a client.

    Parameters
    ----------
    labels : ndarray of int64, shape (N,)
        Class of every sample, -1 where not known.
    proportions : ndarray of float64, shape (K, C)
        Share that client k gets of class c, >= 0. Columns are scaled to sum 1; a column of zeros
        counts as equal shares.
    class_order : sequence of C ndarray of int64
        Sample indices of every class in the order in which they are handed out.

    Returns
    -------
    Ragged
        Shard of every client, class after class.

    Raises
    ------
    ConfigError
        If shapes differ, a share is negative or not finite, or an index is of another class.

    Notes
    -----
    Class c is cut at ``floor(cumsum_k(p[k, c] / sum_j p[j, c]) * n_c)``, the rule of the published
    FedLabel data script; the last client gets the rest.

    Examples
    --------
    >>> shares = np.array([[0.5, 0.0], [0.5, 1.0]])
    >>> shards = cut_by_proportions(np.array([0, 1, 0]), shares, [np.array([2, 0]), np.array([1])])
    >>> [s.tolist() for s in shards]
    [[2], [0, 1]]
    """
    _check_cut(labels, proportions, class_order)
    joined = np.concatenate([np.zeros(0, dtype=np.int64), *class_order])
    owners = piece_owners(proportions, [len(order) for order in class_order])
    grouped = Ragged.from_owners(owners, len(proportions))
    return Ragged(joined[grouped.index], grouped.offsets)


def piece_owners(proportions: NDArray[np.float64], totals: Sequence[int]) -> Indices:
    """Say who gets each sample, in the order in which they are handed out, class after class.

    Parameters
    ----------
    proportions : ndarray of float64, shape (K, C)
        Share that client k gets of class c; see :func:`cut_by_proportions`.
    totals : sequence of C int
        Samples of every class.

    Returns
    -------
    ndarray of int64, shape (sum(totals),)
        Owners.

    Raises
    ------
    ConfigError
        If a share is negative or not finite.

    Examples
    --------
    >>> piece_owners(np.array([[0.5, 0.0], [0.5, 1.0]]), [2, 1]).tolist()
    [0, 1, 1]
    """
    if not np.isfinite(proportions).all() or (proportions < 0).any():
        raise ConfigError("proportions must be finite and >= 0; check alpha")
    clients = np.arange(len(proportions))
    pieces = [
        np.repeat(clients, piece_sizes(proportions[:, c], total)) for c, total in enumerate(totals)
    ]
    return np.concatenate([clients[:0], *pieces])


def piece_sizes(shares: NDArray[np.float64], total: int) -> Indices:
    """Cut ``total`` samples by shares.

    Parameters
    ----------
    shares : ndarray of float64, shape (K,)
        Shares >= 0, of any sum; all zero counts as equal.
    total : int
        Number of samples.

    Returns
    -------
    ndarray of int64, shape (K,)
        Sizes that sum to ``total``: cumulated shares are rounded down, the last one gets the rest.

    Examples
    --------
    >>> piece_sizes(np.array([1.0, 1.0, 1.0]), 10).tolist()
    [3, 3, 4]
    """
    mass = shares.sum()
    shares = shares / mass if mass > 0 else np.full(len(shares), 1 / len(shares))
    cuts = np.floor(np.cumsum(shares)[:-1] * total).astype(np.int64)
    # The sum of rounded shares may exceed 1 by an ulp before the last client.
    return np.diff(np.concatenate([[0], np.minimum(cuts, total), [total]]))


def _check_cut(
    labels: Indices, proportions: NDArray[np.float64], class_order: Sequence[Indices]
) -> None:
    if proportions.ndim != 2 or proportions.shape[1] != len(class_order) or not len(proportions):
        raise ConfigError(
            f"proportions must have shape (clients, {len(class_order)}), got {proportions.shape}"
        )
    for c, order in enumerate(class_order):
        classes = labels[order]
        if len(order) and not ((classes == c) | (classes < 0)).all():
            raise ConfigError(f"class_order[{c}] holds samples of another class")
