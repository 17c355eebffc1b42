"""Weighted means over clients, in float64.

McMahan et al.: "Communication-Efficient Learning of Deep Networks from Decentralized Data",
AISTATS 2017, arXiv 1602.05629 (FedAvg).
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def client_weights(weights: ArrayLike) -> NDArray[np.float64]:
    """Validate one weight per client.

    Parameters
    ----------
    weights : array_like, shape (clients,)
        Finite numbers >= 0; any unit, only their proportions count.

    Returns
    -------
    ndarray, shape (clients,)
        float64.

    Raises
    ------
    ValueError
        If the weights are not one-dimensional, negative or not finite.
    """
    checked = np.asarray(weights, dtype=np.float64)
    if checked.ndim != 1:
        raise ValueError(f"weights must have shape (clients,), got {checked.shape}")
    if not np.isfinite(checked).all() or (checked < 0).any():
        raise ValueError(f"weights must be finite and >= 0, got {checked.tolist()}")
    return checked


def shares(weights: ArrayLike) -> NDArray[np.float64]:
    """Divide weights by their sum.

    Parameters
    ----------
    weights : array_like, shape (clients,)
        Finite numbers >= 0.

    Returns
    -------
    ndarray, shape (clients,)
        float64, with sum 1; all 0 when every weight is 0.

    Raises
    ------
    ValueError
        If a weight is negative or not finite.

    Examples
    --------
    >>> shares([1, 3]).tolist()
    [0.25, 0.75]
    """
    checked = client_weights(weights)
    total = checked.sum()
    return checked / total if total > 0 else np.zeros_like(checked)


def weighted_mean(values: NDArray[Any], weights: ArrayLike) -> NDArray[np.float64]:
    """Average one tensor over clients (A1): ``sum_k n_k v_k / sum_k n_k``.

    Parameters
    ----------
    values : ndarray, shape (clients, ...)
        One tensor per client, any real dtype.
    weights : array_like, shape (clients,)
        Finite numbers >= 0, for FedAvg the samples used. A client with weight 0 is left out,
        whatever its values are.

    Returns
    -------
    ndarray, shape (...)
        float64; clients are added in the given order. One client gives its own values exactly.

    Raises
    ------
    ValueError
        If the lengths differ, a weight is negative or not finite, or all weights are 0: a mean of
        nobody is not defined, and the caller keeps what it has.

    Examples
    --------
    >>> weighted_mean(np.array([[0.0, 2.0], [4.0, 6.0]]), [1, 3]).tolist()
    [3.0, 5.0]
    """
    parts = shares(weights)
    if len(values) != len(parts):
        raise ValueError(f"{len(values)} values but {len(parts)} weights")
    if not parts.any():
        raise ValueError("all weights are 0: there is no client to average; keep the old value")
    mean: NDArray[np.float64] = np.zeros(values.shape[1:], dtype=np.float64)
    for value, part in zip(values, parts, strict=True):
        if part > 0:
            mean = mean + part * value.astype(np.float64)
    return mean
