"""Whole numbers shared out in proportion: whole parts first, then the largest remainders."""

import numpy as np
from numpy.typing import NDArray

from fedlabels.federation.ragged import Indices


def largest_remainders(sizes: Indices, total: int) -> Indices:
    """Share a total out by sizes.

    Parameters
    ----------
    sizes : ndarray of int64, shape (K,)
        Sizes >= 0.
    total : int
        What is shared out, >= 0.

    Returns
    -------
    ndarray of int64, shape (K,)
        Parts that sum to ``total``, the first one is the larger on ties; all 0 where all sizes are.

    Examples
    --------
    >>> largest_remainders(np.array([1, 1, 2]), 6).tolist()
    [2, 1, 3]
    """
    parts, rest = np.divmod(sizes * total, max(int(sizes.sum()), 1))
    more = total - int(parts.sum()) if sizes.any() else 0
    parts[np.argsort(-rest, kind="stable")[:more]] += 1
    return parts


def fill_by_weight(weights: NDArray[np.float64], budget: Indices, available: Indices) -> Indices:
    """Share a budget over classes by weight, as far as each class goes.

    Parameters
    ----------
    weights : ndarray of float64, shape (K, C)
        Weight of each class for each client, >= 0. A class of weight 0 gets nothing.
    budget : ndarray of int64, shape (K,)
        Samples to choose for each client.
    available : ndarray of int64, shape (K, C)
        Samples of each class.

    Returns
    -------
    ndarray of int64, shape (K, C)
        Counts <= ``available``; their sums are the budgets where the classes of positive weight
        suffice. Whole parts first, then the largest remainders (ties by class number); what a full
        class leaves is shared out again.

    Examples
    --------
    >>> weights, available = np.array([[3.0, 1.0, 0.0]]), np.array([[2, 9, 9]])
    >>> fill_by_weight(weights, np.array([6]), available).tolist()
    [[2, 4, 0]]
    """
    counts = np.zeros_like(available)
    while True:
        room = np.where(weights > 0, available - counts, 0)
        left = np.minimum(budget - counts.sum(axis=1), room.sum(axis=1))
        if not left.any():
            return counts
        shares = np.where(room > 0, weights, 0.0)
        mass = shares.sum(axis=1, keepdims=True)
        exact = shares / np.where(mass > 0, mass, 1.0) * left[:, None]
        whole = np.floor(exact + 1e-9).astype(np.int64)
        remainder = np.where(room > whole, exact - whole, -1.0)
        place = np.argsort(np.argsort(-remainder, axis=1, kind="stable"), axis=1, kind="stable")
        spare = left - whole.sum(axis=1)
        whole += (place < spare[:, None]) & (room > 0)
        counts += np.minimum(whole, room)
