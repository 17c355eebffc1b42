"""Label skew with given sizes, by default equal ones: every client draws its own class mix.

The rule of Hsu, Qi and Brown (arXiv 1909.06335) with a flat Dirichlet prior, as used by FedOpt and
FedDyn. There each client draws sample by sample, and a class that is used up is left out for those
who come later. Here all draw their class counts at once and wait in line where a class runs out:
the same rule in a few array operations.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedlabels.errors import ConfigError
from fedlabels.federation.cutting import draw_class_order
from fedlabels.federation.partition import PARTITIONS, Partition
from fedlabels.federation.partitions.dealing import log_normal_sizes
from fedlabels.federation.ragged import Indices
from fedlabels.federation.registry import check_count, check_positive, check_range, register
from fedlabels.federation.samples import Samples


@register(PARTITIONS, "client_dirichlet")
@dataclass(frozen=True, kw_only=True)
class ClientDirichlet(Partition):
    """Give each client as many samples as stated, its class mix drawn from Dirichlet(alpha).

    Parameters
    ----------
    alpha : float
        Concentration, > 0: at 0.1 a client holds about two of ten classes, at 100 about all. Where
        a class is used up, the client's other classes take its place.
    sizes : tuple of int or None
        Samples of each client, >= ``min_size``; what is over at the end stays unused. None is equal
        sizes, or those of ``sigma``.
    sigma : float or None
        Sizes are drawn from LogNormal(0, sigma), in [0, 10], and scaled to use all samples.
    """

    alpha: float
    sizes: tuple[int, ...] | None = None
    sigma: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("alpha", self.alpha)
        if self.sigma is not None:
            check_range("sigma", self.sigma, 0.0, 10.0)
        if self.sizes is None:
            return
        if self.sigma is not None:
            raise ConfigError("sizes and sigma both say how many samples a client has; leave one")
        if isinstance(self.sizes, str) or not isinstance(self.sizes, Sequence):
            raise ConfigError(f"sizes must be a list of whole numbers, got {self.sizes!r}")
        for size in self.sizes:
            check_count("each of sizes", size, low=self.min_size)
        object.__setattr__(self, "sizes", tuple(self.sizes))

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
        counts = self._counts(mixes, len(labels), stock, random)
        owners = np.full(len(labels), -1, dtype=np.int64)
        for c, part in enumerate(order):
            dealt = np.repeat(np.arange(clients), counts[:, c])
            owners[part[: len(dealt)]] = dealt
        return owners

    def _counts(
        self,
        mixes: NDArray[np.float64],
        total: int,
        stock: Indices,
        random: np.random.Generator,
    ) -> Indices:
        """Draw samples of each client and class, shape (clients, classes + 1).

        Who comes late gets fewer classes: the place in line must not follow the client's number.
        """
        clients = len(mixes)
        if self.sizes is None and self.sigma is None:
            sizes = total // clients + (np.arange(clients) < total % clients)
            return random.permutation(fill_counts(mixes, sizes, stock, random))
        sizes = self._sizes(clients, total, random)
        line = random.permutation(clients)
        counts = np.empty(mixes.shape, dtype=np.int64)
        counts[line] = fill_counts(mixes, sizes[line], stock, random)
        return counts

    def _sizes(self, clients: int, total: int, random: np.random.Generator) -> Indices:
        if self.sizes is None:
            return log_normal_sizes(total, clients, self.sigma or 0.0, random)
        if len(self.sizes) != clients:
            raise ConfigError(
                f"sizes has {len(self.sizes)} entries for {clients} clients; give one a client"
            )
        if sum(self.sizes) > total:
            raise ConfigError(
                f"sizes sum to {sum(self.sizes)}, but there are {total} samples; lower them, or "
                "set partition.reuse=true and partition.samples_per_client"
            )
        return np.array(self.sizes, dtype=np.int64)


def fill_counts(
    mixes: NDArray[np.float64], sizes: Indices, stock: Indices, random: np.random.Generator
) -> Indices:
    """Draw how many samples of each class every client gets, until all have their size.

    Parameters
    ----------
    mixes : ndarray of float64, shape (K, C)
        Share of each class that a client wants, >= 0.
    sizes : ndarray of int64, shape (K,)
        Samples that each client gets.
    stock : ndarray of int64, shape (C,)
        Samples of each class; their sum is at least that of ``sizes``.
    random : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    ndarray of int64, shape (K, C)
        Counts with row sums ``sizes`` and column sums of at most ``stock``.

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
        granted = random.multinomial(open_slots, shares)
        ahead = np.cumsum(granted, axis=0) - granted
        granted = np.clip(left - ahead, 0, granted)
        counts += granted
        left -= granted.sum(axis=0)
        open_slots -= granted.sum(axis=1)
    return counts
