"""Label skew with equal sizes: every client draws its own class mix.

The rule of Hsu, Qi and Brown (arXiv 1909.06335) with a flat Dirichlet prior, as used by FedOpt and
FedDyn. There each client draws sample by sample, and a class that is used up is left out for those
who come later. Here all draw their class counts at once and wait in line where a class runs out:
the same rule in a few array operations.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedlabels.federation.partition import PARTITIONS, Partition, draw_class_order
from fedlabels.federation.ragged import Indices
from fedlabels.federation.registry import check_positive, register
from fedlabels.federation.samples import Samples


@register(PARTITIONS, "client_dirichlet")
@dataclass(frozen=True, kw_only=True)
class ClientDirichlet(Partition):
    """Give each client the same number of samples, its class mix drawn from Dirichlet(alpha).

    Parameters
    ----------
    alpha : float
        Concentration, > 0: at 0.1 a client holds about two of ten classes, at 100 about all. Where
        a class is used up, the client's other classes take its place.
    """

    alpha: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("alpha", self.alpha)

    def owners(self, samples: Samples, *, clients: int, random: np.random.Generator) -> Indices:
        """Name the owner of every sample; see :class:`Partition`.

        Samples of unknown class are one more class of which every client wants the same share.
        """
        labels, num_classes = samples.labels, samples.num_classes
        order = draw_class_order(labels, num_classes, random)
        stock = np.array([len(part) for part in order])
        unknown = stock[-1] / max(len(labels), 1)
        mixes = np.empty((clients, num_classes + 1))
        mixes[:, :-1] = random.dirichlet(np.full(num_classes, self.alpha), size=clients)
        mixes[:, :-1] *= 1 - unknown
        mixes[:, -1] = unknown
        sizes = len(labels) // clients + (np.arange(clients) < len(labels) % clients)
        counts = fill_counts(mixes, sizes, stock, random)
        # Who comes late gets fewer classes: the place in line must not follow the client's number.
        counts = random.permutation(counts)
        owners = np.empty(len(labels), dtype=np.int64)
        for c, part in enumerate(order):
            owners[part] = np.repeat(np.arange(clients), counts[:, c])
        return owners


def fill_counts(
    mixes: NDArray[np.float64], sizes: Indices, stock: Indices, random: np.random.Generator
) -> Indices:
    """Draw how many samples of each class every client gets, until all are dealt.

    Parameters
    ----------
    mixes : ndarray of float64, shape (K, C)
        Share of each class that a client wants, >= 0.
    sizes : ndarray of int64, shape (K,)
        Samples that each client gets.
    stock : ndarray of int64, shape (C,)
        Samples of each class; the same sum as ``sizes``.
    random : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    ndarray of int64, shape (K, C)
        Counts with row sums ``sizes`` and column sums ``stock``.

    Notes
    -----
    All clients name what they want as a multinomial draw. A class wanted more often than it is in
    stock is served row by row until it is out; who got less draws again from what is left. Every
    turn but the last empties a class, so there are C turns at most.
    """
    counts = np.zeros(mixes.shape, dtype=np.int64)
    left, open_slots = stock.copy(), sizes.copy()
    while open_slots.any():
        shares = mixes * (left > 0)
        mass = shares.sum(axis=1, keepdims=True)
        even = np.broadcast_to(left / left.sum(), shares.shape)  # for who wants only what is out
        shares = np.where(mass > 0, shares / np.where(mass > 0, mass, 1.0), even)
        given = random.multinomial(open_slots, shares)
        ahead = np.cumsum(given, axis=0) - given
        given = np.clip(left - ahead, 0, given)
        counts += given
        left -= given.sum(axis=0)
        open_slots -= given.sum(axis=1)
    return counts
