"""What a label policy is: a rule that says which samples of a client are labeled."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedlabels.federation.ragged import Indices, Ragged, stable_order

POLICIES: dict[str, "type[LabelPolicy]"] = {}
"""Name -> label policy. Every file in ``fedlabels/federation/policies`` adds to it."""


class LabelMasks(NamedTuple):
    """Which entries of the shards are labeled, and which are in the unlabeled pool.

    Parameters
    ----------
    labeled, unlabeled : ndarray of bool, shape (total,)
        Marks along ``shards.index``. An entry may be in neither, or, only if the policy says so,
        in both.
    """

    labeled: NDArray[np.bool_]
    unlabeled: NDArray[np.bool_]


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


@dataclass(frozen=True, kw_only=True)
class LabelPolicy(ABC):
    """Chooses the labeled samples.

    A new policy is one file in ``fedlabels/federation/policies`` with one frozen dataclass that
    gives :meth:`masks` and is decorated with ``@register(POLICIES, name)``.
    """

    @abstractmethod
    def masks(
        self,
        shards: Ragged,
        labels: Indices,
        *,
        num_classes: int,
        random: np.random.Generator,
    ) -> LabelMasks:
        """Mark labeled and unlabeled entries.

        Parameters
        ----------
        shards : Ragged
            Samples of every client whose class is known; samples of unknown class are not shown,
            they are always unlabeled.
        labels : ndarray of int64, shape (N,)
            Classes of the training set.
        num_classes : int
            Number of classes.
        random : numpy.random.Generator
            Source of all draws.

        Returns
        -------
        LabelMasks
            Marks along ``shards.index``.
        """


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
    wanted = np.asarray(np.floor(label_fraction * size), dtype=np.int64)
    num_labeled = np.minimum(wanted, size - num_unlabeled)
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
