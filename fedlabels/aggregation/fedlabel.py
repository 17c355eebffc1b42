"""FedLabel's server rules, one tensor at a time.

Cho, Joshi, Dimitriadis, ICCV 2023, arXiv 2307.08809. Equations as in docs/methods/fedlabel.md:
F11a the rule of the paper, F11b that of the official code (variant ``flute``).
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedlabels.aggregation.mean import client_weights, weighted_mean


def client_weights_paper(n_labeled: ArrayLike, n_pass: ArrayLike) -> NDArray[np.float64]:
    """Weight r_k of every client in variant ``paper``: labels plus passing samples.

    Parameters
    ----------
    n_labeled : array_like, shape (clients,)
        Labeled samples.
    n_pass : array_like, shape (clients,)
        Samples that passed the threshold, summed over the unlabeled steps.

    Returns
    -------
    ndarray, shape (clients,)
        float64. A client with weight 0 is left out of the merge.

    Raises
    ------
    ValueError
        If a count is negative or not finite.
    """
    return client_weights(n_labeled) + client_weights(n_pass)


def flute_weights(n_pass: ArrayLike) -> NDArray[np.float64]:
    """Weight v_k of every student in variant ``flute``: passing samples, 0 counts as 1.

    Parameters
    ----------
    n_pass : array_like, shape (clients,)
        Samples that passed the threshold, summed over the unlabeled steps.

    Returns
    -------
    ndarray, shape (clients,)
        float64.

    Raises
    ------
    ValueError
        If a count is negative or not finite.
    """
    counts = client_weights(n_pass)
    return np.where(counts == 0, 1.0, counts)


def merge_paper(
    server: NDArray[Any], models: NDArray[Any], weights: ArrayLike
) -> NDArray[np.float64]:
    """Merge the client models of variant ``paper`` (F11a).

    Parameters
    ----------
    server : ndarray, shape (...)
        Tensor w that was sent.
    models : ndarray, shape (clients, ...)
        The clients' merged tensors ``w + Delta_k``.
    weights : array_like, shape (clients,)
        r_k, see `client_weights_paper`.

    Returns
    -------
    ndarray, shape (...)
        float64; ``server`` when all weights are 0 or nobody answered.

    Raises
    ------
    ValueError
        If a weight is negative or not finite.

    Notes
    -----
    ``w + sum_k (r_k / sum_j r_j) Delta_k``, which is the weighted mean of the models.
    """
    checked = client_weights(weights)
    if checked.sum() <= 0:
        return np.array(server, dtype=np.float64)
    return weighted_mean(models, checked)


def merge_flute(
    server: NDArray[Any],
    local_mean: NDArray[Any] | None,
    student_mean: NDArray[Any] | None,
) -> NDArray[np.float64]:
    """Merge both means of variant ``flute`` (F11b): half of each.

    Parameters
    ----------
    server : ndarray, shape (...)
        Tensor w that was sent.
    local_mean : ndarray or None, shape (...)
        Plain mean of the locally trained tensors; None when nobody sent one.
    student_mean : ndarray or None, shape (...)
        Mean of the tensors after the unlabeled phase, weighted by `flute_weights`; None when
        nobody sent one, as during burn-in.

    Returns
    -------
    ndarray, shape (...)
        float64. A missing mean counts as ``server``: burn-in moves only half way to the local
        mean, and without any answer the server's tensor stays.
    """
    halves = [server if mean is None else mean for mean in (local_mean, student_mean)]
    return 0.5 * halves[0].astype(np.float64) + 0.5 * halves[1].astype(np.float64)
