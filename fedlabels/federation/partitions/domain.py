"""Clients differ in where their samples come from: style, hospital, sensor.

One or several clients for each domain. Label skew on top of it: ``within="dirichlet"`` among the
clients of a domain, ``within="lds"`` between the domains, the Office-Home-LDS rule of GGEUR (Ma et
al., CVPR 2025, arXiv 2503.06457). ``equal_sizes`` is that of FedBN (Li et al., ICLR 2021, arXiv
2102.07623).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedlabels.errors import ConfigError
from fedlabels.federation.cutting import draw_class_order, piece_owners
from fedlabels.federation.evening import even_out
from fedlabels.federation.partition import PARTITIONS, Partition
from fedlabels.federation.partitions.dealing import like_cards
from fedlabels.federation.ragged import Indices, stable_order
from fedlabels.federation.registry import check_choice, check_positive, register
from fedlabels.federation.samples import Samples
from fedlabels.federation.summary import class_counts


@register(PARTITIONS, "domain")
@dataclass(frozen=True, kw_only=True)
class Domain(Partition):
    """Give each client samples of one domain.

    Client k of K belongs to domain ``k * D // K`` of the D domains that take part, in their order.

    Parameters
    ----------
    within : {"iid", "dirichlet", "lds"}
        How a domain is dealt to its clients: alike; class-wise by Dirichlet(alpha); or alike, but
        of class c the domain deals only a share p_c, drawn for all domains from Dirichlet(alpha),
        and the rest is unused. About one D-th of the samples is then used in all, and at a small
        alpha many domains lack many classes.
    alpha : float or None
        Concentration, > 0, for ``"dirichlet"`` and ``"lds"``; no effect with ``"iid"``.
    equal_sizes : bool
        Cut all clients down, at random, to the size of the smallest.
    holdout : tuple of str
        Names of domains that nobody gets, for tests on domains never seen.
    min_size : int
        Every client gets at least that many samples, >= 0, if need be from others of its domain.
    """

    within: Literal["iid", "dirichlet", "lds"] = "iid"
    alpha: float | None = None
    equal_sizes: bool = False
    holdout: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("within", self.within, ("iid", "dirichlet", "lds"))
        if not isinstance(self.holdout, list | tuple):
            raise ConfigError(f"holdout must be a list of names, got {self.holdout!r}")
        object.__setattr__(self, "holdout", tuple(self.holdout))
        if self.alpha is not None:
            check_positive("alpha", self.alpha)
            if self.within == "iid":
                raise ConfigError(
                    f"partition.alpha={self.alpha} has no effect with partition.within=iid; choose "
                    "dirichlet or lds"
                )
        elif self.within != "iid":
            raise ConfigError(f"within={self.within} needs alpha, a number > 0")

    def domains(self, samples: Samples, clients: int) -> Indices:
        """Return the domain of every client, shape (clients,).

        Raises
        ------
        ConfigError
            If the data set has no domains, a name of ``holdout`` is unknown, or there are fewer
            clients than domains.
        """
        if samples.domain is None:
            raise ConfigError(
                "this data set has no domains; use another partition, or a data set with domains"
            )
        names = samples.domain_names
        unknown = [name for name in self.holdout if name not in names]
        if unknown:
            raise ConfigError(
                f"holdout names {', '.join(map(repr, unknown))}; the domains are {', '.join(names)}"
            )
        part = np.array([d for d, name in enumerate(names) if name not in self.holdout])
        if not len(part):
            raise ConfigError(f"holdout names all {len(names)} domains; leave one to train on")
        if clients < len(part):
            raise ConfigError(
                f"{clients} clients for {len(part)} domains; have at least one client a domain, or "
                "put domains into holdout"
            )
        return part[np.arange(clients) * len(part) // clients]

    def owners(self, samples: Samples, *, clients: int, random: np.random.Generator) -> Indices:
        """Name the owner of every sample; see :class:`Partition`."""
        domains = self.domains(samples, clients)
        dealt = self._dealt(samples, domains, random)
        owners = np.full(len(samples), -1, dtype=np.int64)
        for domain, first, count in _groups(domains):
            own = np.flatnonzero(dealt & (samples.domain == domain))
            owners[own] = first + self._deal(samples.take(own), count, random)
        return owners

    def repair(
        self, owners: Indices, samples: Samples, *, clients: int, random: np.random.Generator
    ) -> Indices:
        """Meet ``min_size`` within each domain, then cut to equal sizes if asked for."""
        owners = owners.copy()
        for domain, first, count in _groups(self.domains(samples, clients)):
            own = np.flatnonzero((samples.domain == domain) & (owners >= 0))
            try:
                owners[own] = first + even_out(
                    owners[own] - first, clients=count, min_size=self.min_size, random=random
                )
            except ConfigError as error:
                raise ConfigError(f"domain {samples.domain_names[domain]!r}: {error}") from error
        return _truncate(owners, clients, random) if self.equal_sizes else owners

    def _dealt(
        self, samples: Samples, domains: Indices, random: np.random.Generator
    ) -> NDArray[np.bool_]:
        """Mark the samples that are dealt, of all domains; those of unknown class always are."""
        dealt = np.ones(len(samples), dtype=bool)
        if self.within != "lds":
            return dealt
        assert samples.domain is not None
        part = np.unique(domains)
        place = np.searchsorted(part, samples.domain) % len(part)
        skewed = np.flatnonzero((part[place] == samples.domain) & (samples.labels >= 0))
        rows, classes = place[skewed], samples.labels[skewed]
        counts = class_counts(rows, classes, len(part), samples.num_classes)
        shares = random.dirichlet(np.full(len(part), self.alpha), size=samples.num_classes).T
        shuffled = random.permutation(len(skewed))
        cell = rows * samples.num_classes + classes
        order = shuffled[stable_order(cell[shuffled], counts.size)]
        sizes = counts.ravel()
        rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        dealt[skewed[order]] = rank < np.repeat(lds_counts(shares, counts).ravel(), sizes)
        return dealt

    def _deal(self, samples: Samples, clients: int, random: np.random.Generator) -> Indices:
        """Deal the samples of one domain."""
        if self.within != "dirichlet":
            return like_cards(len(samples), clients, random)
        order = draw_class_order(samples.labels, samples.num_classes, random)
        shares = np.ones((clients, len(order)))
        drawn = random.dirichlet(np.full(clients, self.alpha), size=samples.num_classes)
        shares[:, :-1] = drawn.T
        owners = np.empty(len(samples), dtype=np.int64)
        owners[np.concatenate(order)] = piece_owners(shares, [len(part) for part in order])
        return owners


def lds_counts(proportions: NDArray[np.float64], train_counts: Indices) -> Indices:
    """Return how many samples of each class every domain deals.

    Parameters
    ----------
    proportions : ndarray of float64, shape (D, C)
        Share of class c that domain d deals, in [0, 1]; columns sum to 1.
    train_counts : ndarray of int64, shape (D, C)
        Samples that it has.

    Returns
    -------
    ndarray of int64, shape (D, C)
        ``floor(p_dc * n_dc)``, the rule of Office-Home-LDS.
    """
    counts: Indices = np.floor(proportions * train_counts).astype(np.int64)
    return counts


def _groups(domains: Indices) -> Iterator[tuple[int, int, int]]:
    """Yield each domain with its first client and its number of clients."""
    for parts in zip(*np.unique(domains, return_index=True, return_counts=True), strict=True):
        yield int(parts[0]), int(parts[1]), int(parts[2])


def _truncate(owners: Indices, clients: int, random: np.random.Generator) -> Indices:
    """Take samples away at random until all clients have as many as the smallest."""
    shuffled = random.permutation(np.flatnonzero(owners >= 0))
    order = shuffled[stable_order(owners[shuffled], clients)]
    sizes = np.bincount(owners[order], minlength=clients)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    result = np.full_like(owners, -1)
    remaining = order[rank < sizes.min()]
    result[remaining] = owners[remaining]
    return result
