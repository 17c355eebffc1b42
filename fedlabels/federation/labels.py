"""What a label policy is: a rule that says which samples of a client are labeled."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedlabels.effect import ABOVE_0, GIVEN, Only, only
from fedlabels.errors import ConfigError
from fedlabels.federation.ragged import Indices, Ragged, stable_order
from fedlabels.federation.registry import check_choice, check_count, check_range
from fedlabels.federation.samples import Samples

POLICIES: dict[str, "type[LabelPolicy]"] = {}
"""Name -> label policy. Every file in ``fedlabels/federation/policies`` adds to it."""

Mask = NDArray[np.bool_]


class LabelMasks(NamedTuple):
    """What becomes of the entries of the shards.

    Parameters
    ----------
    labeled, unlabeled : ndarray of bool, shape (total,)
        Marks along ``shards.index``. An entry may be in neither, or, only if the policy says so,
        in both.
    server : ndarray of bool, shape (total,)
        Entries that leave their client and lie, labeled, at the server.
    """

    labeled: Mask
    unlabeled: Mask
    server: Mask


class LabelSplit(NamedTuple):
    """Sizes of the two parts of a shard.

    Parameters
    ----------
    num_unlabeled, num_labeled : ndarray of int64
        The first ``num_unlabeled`` positions of the shuffled shard are unlabeled, the next
        ``num_labeled`` are labeled.
    unused : ndarray of int64
        Samples in neither part.
    """

    num_unlabeled: Indices
    num_labeled: Indices
    unused: Indices

    @property
    def labeled_positions(self) -> tuple[Indices, Indices]:
        """First labeled position and one past the last."""
        return self.num_unlabeled, self.num_unlabeled + self.num_labeled


class Shuffled(NamedTuple):
    """Shards whose samples are all of known class, shuffled once.

    Parameters
    ----------
    shards : Ragged
        Samples of every client.
    samples : Samples
        The training set.
    rank : ndarray of int64, shape (total,)
        Position 0..size-1 of each entry in its shuffled shard.
    """

    shards: Ragged
    samples: Samples
    rank: Indices

    @property
    def classes(self) -> Indices:
        """Class of every entry, shape (total,)."""
        return self.samples.labels[self.shards.index]

    def class_counts(self) -> Indices:
        """Count the entries of every client and class, shape (K, C)."""
        clients, classes = len(self.shards), self.samples.num_classes
        cells = np.bincount(self._cells(), minlength=clients * classes)
        return cells.reshape(clients, classes)

    def first_of_class(self, counts: Indices) -> Mask:
        """Mark the first ``counts[k, c]`` entries of class c of client k in shuffled order."""
        cell = self._cells()
        order = np.empty(len(cell), dtype=np.int64)
        order[self.shards.offsets[self.shards.owners] + self.rank] = np.arange(len(cell))
        order = order[stable_order(cell[order], counts.size)]
        sizes = np.bincount(cell, minlength=counts.size)
        place = np.arange(len(cell)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        marks = np.zeros(len(cell), dtype=bool)
        marks[order] = place < np.repeat(counts.ravel(), sizes)
        return marks

    def first_among(self, mask: Mask, counts: Indices) -> Mask:
        """Mark each client's first ``counts[k]`` entries that are in ``mask``."""
        place = self.shards.offsets[self.shards.owners] + self.rank
        marked = np.zeros(len(mask), dtype=np.int64)
        marked[place] = mask
        before = np.concatenate([[0], np.cumsum(marked)])
        start = np.repeat(before[self.shards.offsets[:-1]], self.shards.sizes)
        first: Mask = mask & (before[place] - start < np.repeat(counts, self.shards.sizes))
        return first

    def _cells(self) -> Indices:
        return self.shards.owners * self.samples.num_classes + self.classes


@dataclass(frozen=True, kw_only=True)
class LabelPolicy(ABC):
    """Chooses the labeled samples; what all policies share is here.

    A new policy is one file in ``fedlabels/federation/policies`` with one frozen dataclass that
    gives :meth:`labeled` and is decorated with ``@register(POLICIES, name)``.

    Parameters
    ----------
    unlabeled_fraction : float or None
        Share of a shard in the unlabeled pool, in [0, 1]; None is every sample that is not labeled.
    unlabeled_includes_labeled : bool
        Add the labeled samples to the unlabeled pool, without their labels, as FixMatch does.
    zero_label_share : float
        Share of clients that lose all labels, in [0, 1]; the nearest whole number, halves up. What
        would have been labeled joins their unlabeled pool.
    fully_labeled_share : float
        Share of clients, among the others, whose samples are all labeled, in [0, 1].
    choose : {"random", "largest", "smallest", "all_classes", "given"}
        Which clients: drawn by the seed; or by size (ties by client number), so that the largest
        keep their labels and are fully labeled, and the smallest lose them (``smallest`` is the
        same); or in the same way by the number of classes that they hold (ties by the seed); or
        those in ``clients``.
    clients : list of int or None
        The clients that have labels, all others lose them; in place of a share of clients.

    Notes
    -----
    Shares count samples of known class. Which labels a client has does not depend on the two shares
    of clients unless it is chosen.
    """

    unlabeled_fraction: float | None = None
    unlabeled_includes_labeled: bool = False
    zero_label_share: float = 0.0
    fully_labeled_share: float = 0.0
    choose: Literal["random", "largest", "smallest", "all_classes", "given"] = "random"
    clients: Sequence[int] | None = None

    counts: ClassVar[tuple[Only, ...]] = (
        only(
            "choose",
            share=ABOVE_0,
            zero_label_share=ABOVE_0,
            fully_labeled_share=ABOVE_0,
            clients=GIVEN,
        ),
    )

    def __post_init__(self) -> None:
        if self.unlabeled_fraction is not None:
            check_range("unlabeled_fraction", self.unlabeled_fraction, 0.0, 1.0)
        check_range("zero_label_share", self.zero_label_share, 0.0, 1.0)
        check_range("fully_labeled_share", self.fully_labeled_share, 0.0, 1.0)
        choices = ("random", "largest", "smallest", "all_classes", "given")
        check_choice("choose", self.choose, choices)
        self._check_clients()
        if self.silent_share + self.full_share > 1 + 1e-9:
            raise ConfigError(
                "the shares of clients without labels and of fully labeled ones must sum to at "
                f"most 1, got {self.silent_share} + {self.full_share}"
            )

    def _check_clients(self) -> None:
        if self.clients is None:
            if self.choose == "given":
                raise ConfigError("choose=given needs labels.clients, the clients that have labels")
            return
        if isinstance(self.clients, str) or not isinstance(self.clients, Sequence):
            raise ConfigError(f"clients must be a list of client numbers, got {self.clients!r}")
        for client in self.clients:
            check_count("each of labels.clients", client)
        if not self.clients or len(set(self.clients)) < len(self.clients):
            raise ConfigError(
                f"clients must name one client at least, and each once; got {list(self.clients)}"
            )
        if self.choose not in ("random", "given") or self.silent_share or self.full_share:
            raise ConfigError(
                f"clients={list(self.clients)} says which clients have labels; leave labels.choose "
                "and the shares of clients (share, zero_label_share, fully_labeled_share)"
            )
        object.__setattr__(self, "clients", tuple(self.clients))

    @property
    def silent_share(self) -> float:
        """Share of clients without labels."""
        return self.zero_label_share

    @property
    def full_share(self) -> float:
        """Share of clients whose samples are all labeled."""
        return self.fully_labeled_share

    @abstractmethod
    def labeled(self, shuffled: Shuffled, random: np.random.Generator) -> Mask:
        """Mark the labeled entries.

        Parameters
        ----------
        shuffled : Shuffled
            Samples of known class; those of unknown class are not shown, they are always unlabeled.
        random : numpy.random.Generator
            Source of all draws.

        Returns
        -------
        ndarray of bool, shape (total,)
            Marks along ``shuffled.shards.index``.
        """

    def at_server(self, shuffled: Shuffled, random: np.random.Generator) -> Mask:
        """Mark the entries that lie at the server instead; by default none."""
        return np.zeros(len(shuffled.rank), dtype=bool)

    def masks(self, shards: Ragged, samples: Samples, *, random: np.random.Generator) -> LabelMasks:
        """Mark labeled and unlabeled entries.

        Parameters
        ----------
        shards : Ragged
            Samples of every client whose class is known.
        samples : Samples
            The training set.
        random : numpy.random.Generator
            Source of all draws.

        Returns
        -------
        LabelMasks
            Marks along ``shards.index``.
        """
        shuffled = Shuffled(shards, samples, shuffled_rank(shards, random))
        labeled, *special = self._marks(shuffled, random)
        silent, full = (np.repeat(m, shards.sizes) for m in special)
        server = self.at_server(shuffled, random)
        unlabeled = self._pool(shuffled, labeled) | (labeled & silent)
        labeled = ((labeled & ~silent) | full) & ~server
        unlabeled &= ~(full | server)
        if self.unlabeled_includes_labeled:
            unlabeled |= labeled
        return LabelMasks(labeled, unlabeled, server)

    def _marks(self, shuffled: Shuffled, random: np.random.Generator) -> tuple[Mask, Mask, Mask]:
        """Return labeled entries, clients without labels and fully labeled ones."""
        labeled = self.labeled(shuffled, random)
        return labeled, *self._special(shuffled, random)

    def _pool(self, shuffled: Shuffled, labeled: Mask) -> Mask:
        if self.unlabeled_fraction is None:
            return ~labeled
        counts = np.floor(self.unlabeled_fraction * shuffled.shards.sizes).astype(np.int64)
        return shuffled.first_among(~labeled, counts)

    def _special(self, shuffled: Shuffled, random: np.random.Generator) -> tuple[Mask, Mask]:
        """Choose the clients without labels and the fully labeled ones."""
        sizes = shuffled.shards.sizes
        silent, full = np.zeros(len(sizes), dtype=bool), np.zeros(len(sizes), dtype=bool)
        if self.clients is not None:
            return self._of_given(np.isin(np.arange(len(sizes)), self._known(len(sizes))))
        if not self.silent_share and not self.full_share:
            return silent, full
        if self.choose in ("smallest", "largest"):
            order = np.argsort(sizes, kind="stable")
        else:
            order = random.permutation(len(sizes))
        if self.choose == "all_classes":
            classes = (shuffled.class_counts() > 0).sum(axis=1)
            order = order[np.argsort(classes[order], kind="stable")]
        count = int(self.silent_share * len(sizes) + 0.5)
        silent[order[:count]] = True
        full[order[::-1][: min(int(self.full_share * len(sizes) + 0.5), len(sizes) - count)]] = True
        return silent, full

    def _of_given(self, chosen: Mask) -> tuple[Mask, Mask]:
        """Return clients without labels and fully labeled ones where some are given."""
        return ~chosen, np.zeros_like(chosen)

    def _known(self, clients: int) -> Sequence[int]:
        """Return the clients that are given, if there are such."""
        assert self.clients is not None  # whoever asks knows
        if max(self.clients) >= clients:
            raise ConfigError(
                f"labels.clients names client {max(self.clients)}, but there are {clients}, 0 to "
                f"{clients - 1}"
            )
        return self.clients


def label_split(n: int | Indices, label_fraction: float, unlabeled_fraction: float) -> LabelSplit:
    """Cut shards of given sizes into an unlabeled and a labeled part.

    Parameters
    ----------
    n : int or ndarray of int64
        Shard sizes, >= 0.
    label_fraction, unlabeled_fraction : float
        Shares in [0, 1] that sum to at most 1.

    Returns
    -------
    LabelSplit
        Sizes of the shape of ``n``.

    Notes
    -----
    ``int(share * n)`` of each, the rule of the published FedLabel data script: it truncates, so a
    shard can lose a sample, and a small one has no label at all.

    Examples
    --------
    >>> split = label_split(7, 0.2, 0.8)
    >>> int(split.num_unlabeled), int(split.num_labeled), int(split.unused)
    (5, 1, 1)
    """
    size = np.asarray(n, dtype=np.int64)
    num_unlabeled = np.asarray(np.floor(unlabeled_fraction * size), dtype=np.int64)
    truncated = np.asarray(np.floor(label_fraction * size), dtype=np.int64)
    num_labeled = np.minimum(truncated, size - num_unlabeled)
    return LabelSplit(num_unlabeled, num_labeled, size - num_unlabeled - num_labeled)


def shuffled_rank(shards: Ragged, random: np.random.Generator) -> Indices:
    """Shuffle every shard and say where each entry went.

    Parameters
    ----------
    shards : Ragged
        Samples of every client.
    random : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    ndarray of int64, shape (total,)
        Position 0..size-1 of each entry in its shuffled shard.
    """
    shuffled = random.permutation(len(shards.index))
    order = shuffled[stable_order(shards.owners[shuffled], len(shards))]
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(shards.offsets[:-1], shards.sizes)
    return rank
