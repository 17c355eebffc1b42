"""What a partitioner is: a rule that gives every training sample an owner."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedlabels.effect import Only, only
from fedlabels.errors import ConfigError
from fedlabels.federation.ragged import Indices, Ragged, narrow, stable_order
from fedlabels.federation.registry import check_count
from fedlabels.federation.samples import Samples
from fedlabels.seeds import generator

PARTITIONS: dict[str, "type[Partition]"] = {}
"""Name -> partitioner. Every file in ``fedlabels/federation/partitions`` adds to it."""


@dataclass(frozen=True, kw_only=True)
class Partition(ABC):
    """Deals the training set to clients.

    A new partitioner is one file in ``fedlabels/federation/partitions`` with one frozen dataclass
    that gives :meth:`owners` and is decorated with ``@register(PARTITIONS, name)``.

    Parameters
    ----------
    min_size : int
        Every client gets at least that many samples, >= 0. Where the rule gives fewer, random
        samples of the largest clients are moved: retries would never end for small alpha.
    """

    min_size: int = 1

    counts: ClassVar[tuple[Only, ...]] = (only("samples_per_client", reuse=True),)

    def __post_init__(self) -> None:
        check_count("min_size", self.min_size)

    @abstractmethod
    def owners(self, samples: Samples, *, clients: int, random: np.random.Generator) -> Indices:
        """Name the owner of every sample.

        Parameters
        ----------
        samples : Samples
            N samples.
        clients : int
            Number of clients, >= 1.
        random : numpy.random.Generator
            Source of all draws.

        Returns
        -------
        ndarray of int64, shape (N,)
            Client 0..clients-1, or -1 for a sample that nobody gets.
        """

    def deal(self, samples: Samples, *, clients: int, seed: int) -> Ragged:
        """Deal the samples and meet ``min_size``.

        Parameters
        ----------
        samples : Samples
            N samples.
        clients : int
            Number of clients, >= 1.
        seed : int
            The run's seed.

        Returns
        -------
        Ragged
            Sample indices of every client, ascending; no sample twice.

        Raises
        ------
        ConfigError
            If there are not enough samples.
        """
        random = generator(seed, "partition")
        owners = self.owners(samples, clients=clients, random=random)
        owners = self.repair(owners, samples, clients=clients, random=random)
        return Ragged.from_owners(owners, clients)

    def repair(
        self, owners: Indices, samples: Samples, *, clients: int, random: np.random.Generator
    ) -> Indices:
        """Meet ``min_size`` by moving samples; a rule that must not mix origins replaces this."""
        return even_out(owners, clients=clients, min_size=self.min_size, random=random)


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
        Sizes that sum to ``total``.
    """
    mass = shares.sum()
    shares = shares / mass if mass > 0 else np.full(len(shares), 1 / len(shares))
    cuts = np.floor(np.cumsum(shares)[:-1] * total).astype(np.int64)
    # The sum of rounded shares may exceed 1 by an ulp before the last client.
    return np.diff(np.concatenate([[0], np.minimum(cuts, total), [total]]))


def even_out(
    owners: Indices, *, clients: int, min_size: int, random: np.random.Generator
) -> Indices:
    """Move samples from the largest clients to those below a minimum.

    Parameters
    ----------
    owners : ndarray of int64, shape (N,)
        Client of every sample, or -1.
    clients : int
        Number of clients K.
    min_size : int
        Smallest size allowed.
    random : numpy.random.Generator
        Chooses which samples move.

    Returns
    -------
    ndarray of int64, shape (N,)
        New owners; no client falls below the minimum, and no donor below the level to which the
        largest ones are cut.

    Raises
    ------
    ConfigError
        If the dealt samples do not suffice.
    """
    sizes = np.bincount(owners[owners >= 0], minlength=clients)
    lacking = np.maximum(min_size - sizes, 0)
    need = int(lacking.sum())
    if not need:
        return owners
    if sizes.sum() < clients * min_size:
        raise ConfigError(
            f"min_size={min_size} for {clients} clients takes {clients * min_size} samples, got "
            f"{sizes.sum()}; lower min_size or clients, or set partition.reuse=true"
        )
    taken = _surplus(sizes, need)
    shuffled = random.permutation(len(owners))
    gives = np.append(taken > 0, False)  # the last entry is nobody's, -1
    shuffled = shuffled[gives[owners][shuffled]]
    order = shuffled[stable_order(owners[shuffled], clients)]  # by donor, shuffled within
    held = np.where(taken > 0, sizes, 0)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(held) - held, held)
    moved = order[rank < np.repeat(taken, held)]
    result = owners.copy()
    result[random.permutation(moved)] = np.repeat(np.arange(clients), lacking)
    return result


def _surplus(sizes: Indices, need: int) -> Indices:
    """Take ``need`` samples by lowering the highest clients to a common level."""
    low, high = 0, int(sizes.max())
    while low < high:  # the highest level that frees enough
        level = (low + high + 1) // 2
        if np.maximum(sizes - level, 0).sum() >= need:
            low = level
        else:
            high = level - 1
    taken = np.maximum(sizes - low, 0)
    spare = int(taken.sum()) - need
    # Fewer are spare than clients stand above the level, else the next level would have done.
    taken[np.flatnonzero(taken)[:spare]] -= 1
    return taken


def _check_cut(
    labels: Indices, proportions: NDArray[np.float64], class_order: Sequence[Indices]
) -> None:
    if proportions.ndim != 2 or proportions.shape[1] != len(class_order) or not len(proportions):
        raise ConfigError(
            f"proportions must have shape (clients, {len(class_order)}), got {proportions.shape}"
        )
    for c, order in enumerate(class_order):
        found = labels[order]
        if len(order) and not ((found == c) | (found < 0)).all():
            raise ConfigError(f"class_order[{c}] holds samples of another class")
