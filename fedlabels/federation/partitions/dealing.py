"""Ways of dealing that several partitioners share."""

import numpy as np

from fedlabels.federation.cutting import piece_sizes
from fedlabels.federation.ragged import Indices


def like_cards(count: int, clients: int, random: np.random.Generator) -> Indices:
    """Deal shuffled samples one by one.

    Parameters
    ----------
    count : int
        Number of samples.
    clients : int
        Number of clients, >= 1.
    random : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    ndarray of int64, shape (count,)
        Owners; sizes differ by one at most.
    """
    return random.permutation(count) % clients


def by_sizes(sizes: Indices, count: int, random: np.random.Generator) -> Indices:
    """Deal shuffled samples to clients of given sizes.

    Parameters
    ----------
    sizes : ndarray of int64, shape (K,)
        Samples of each client; their sum is at most ``count``.
    count : int
        Number of samples.
    random : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    ndarray of int64, shape (count,)
        Owners; -1 for samples that are left over.
    """
    owners = np.full(count, -1, dtype=np.int64)
    owners[: int(sizes.sum())] = np.repeat(np.arange(len(sizes)), sizes)
    return random.permutation(owners)


def log_normal_sizes(
    total: int, clients: int, sigma: float, random: np.random.Generator
) -> Indices:
    """Draw sizes whose logarithms are normal.

    Parameters
    ----------
    total : int
        Sum of the sizes.
    clients : int
        Number of clients K.
    sigma : float
        Standard deviation of the logarithm, >= 0.
    random : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    ndarray of int64, shape (K,)
        Sizes.
    """
    return piece_sizes(random.lognormal(0.0, sigma, size=clients), total)
