"""A few classes on every client, each class in Dirichlet parts: ExDir(C, alpha).

The "extended Dirichlet" of Li and Lyu (NeurIPS 2023): first each client gets its classes, then
each class is shared out among those who have it. Here the first step is that of
``classes_per_client``.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedlabels.federation.partition import PARTITIONS
from fedlabels.federation.partitions.classes_per_client import ClassesPerClient
from fedlabels.federation.ragged import Indices
from fedlabels.federation.registry import check_positive, register


@register(PARTITIONS, "extended_dirichlet")
@dataclass(frozen=True, kw_only=True)
class ExtendedDirichlet(ClassesPerClient):
    """Give each client ``number`` classes, and of each a Dirichlet share.

    Parameters
    ----------
    number : int or list of lists of int
        Classes of each client, from 1 to the number of classes that have samples; or the classes
        themselves, a list a client.
    alpha : float
        Concentration, > 0: at 0.1 one or two holders of a class have nearly all of it, at 100 all
        have the same.
    """

    alpha: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("alpha", self.alpha)

    def pieces(self, stock: Indices, holders: Indices, random: np.random.Generator) -> Indices:
        """Cut every class by Dirichlet shares; see :class:`ClassesPerClient`."""
        shares = dirichlet_groups(self.alpha, holders, random)
        before = np.concatenate([[0.0], np.cumsum(shares)])
        first, last = np.cumsum(holders) - holders, np.cumsum(holders) - 1
        total = np.repeat(stock, holders)
        cuts = (before[1:] - np.repeat(before[first], holders)) * total
        # exp and log differ by an ulp from CPU to CPU: a cut that is a whole number stays one
        ends = np.floor(cuts + 1e-9).astype(np.int64)
        ends = np.minimum(ends, total)
        ends[last] = stock  # the sum of rounded shares may be off 1 by some ulp
        starts = np.concatenate([[0], ends[:-1]])
        starts[first] = 0
        sizes: Indices = ends - starts
        return sizes


def dirichlet_groups(
    alpha: float, sizes: Indices, random: np.random.Generator
) -> NDArray[np.float64]:
    """Draw Dirichlet shares of groups of different sizes at once.

    Parameters
    ----------
    alpha : float
        Concentration, > 0.
    sizes : ndarray of int64, shape (G,)
        Members of each group, >= 1.
    random : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    ndarray of float64, shape (sizes.sum(),)
        Shares, group after group; each group sums to 1.

    Notes
    -----
    Shares are Gamma(alpha) draws over their sum, and a Gamma(alpha) draw is one of Gamma(alpha + 1)
    times U^(1/alpha): in logarithms, which do not underflow however small alpha is.
    """
    count, first = int(sizes.sum()), np.cumsum(sizes) - sizes
    logs = np.log(random.standard_gamma(alpha + 1.0, size=count))
    logs -= random.standard_exponential(count) / max(alpha, 1e-300)
    weights = np.exp(logs - np.repeat(np.maximum.reduceat(logs, first), sizes))
    shares: NDArray[np.float64] = weights / np.repeat(np.add.reduceat(weights, first), sizes)
    return shares
