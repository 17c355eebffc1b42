"""Lists of different lengths in two arrays: the samples of every client."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlabels.errors import DataError

Indices = NDArray[np.int64]

_SMALL = 1 << 16
_BITS = 63


@dataclass(frozen=True, eq=False)
class Ragged:
    """K lists of sample indices.

    Parameters
    ----------
    index : ndarray of int64, shape (total,)
        All lists, one after the other; entries >= 0.
    offsets : ndarray of int64, shape (K + 1,)
        List k is ``index[offsets[k]:offsets[k + 1]]``.

    Raises
    ------
    DataError
        If the arrays do not describe lists.

    Examples
    --------
    >>> shards = Ragged.from_lists([[3, 1], [], [2]])
    >>> len(shards), shards[0].tolist(), shards.sizes.tolist()
    (3, [3, 1], [2, 0, 1])
    """

    index: Indices
    offsets: Indices

    def __post_init__(self) -> None:
        index, offsets = self.index, self.offsets
        if index.dtype != np.int64 or offsets.dtype != np.int64:
            raise DataError(f"ragged lists are int64, got {index.dtype} and {offsets.dtype}")
        if index.ndim != 1 or offsets.ndim != 1 or not len(offsets):
            raise DataError(f"ragged lists are flat, got {index.shape} and {offsets.shape}")
        if offsets[0] != 0 or offsets[-1] != len(index) or (np.diff(offsets) < 0).any():
            raise DataError(f"offsets must rise from 0 to {len(index)}, the number of entries")
        if len(index) and index.min() < 0:
            raise DataError(f"indices must be >= 0, got {index.min()}")

    @classmethod
    def from_lists(cls, lists: Sequence[Sequence[int] | Indices]) -> "Ragged":
        """Join lists.

        Parameters
        ----------
        lists : sequence of sequence of int
            One list a client, some may be empty.

        Returns
        -------
        Ragged
            The lists in the given order.
        """
        parts = [np.asarray(part, dtype=np.int64) for part in lists]
        sizes = np.array([len(part) for part in parts], dtype=np.int64)
        empty = np.zeros(0, dtype=np.int64)
        return cls(np.concatenate([empty, *parts]), _offsets(sizes))

    @classmethod
    def from_owners(cls, owners: Indices, clients: int) -> "Ragged":
        """Group positions by owner.

        Parameters
        ----------
        owners : ndarray of int64, shape (N,)
            Client 0..clients-1 that owns position i, or -1 for nobody.
        clients : int
            Number of lists.

        Returns
        -------
        Ragged
            Positions of every client, ascending.
        """
        first = int(np.count_nonzero(owners < 0))
        order = stable_order(owners + 1, clients + 1)[first:]
        sizes = np.bincount(owners + 1, minlength=clients + 1)[1:]
        return cls(order, _offsets(sizes))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, client_id: int) -> Indices:
        if not 0 <= client_id < len(self):
            raise IndexError(f"client_id must be in 0..{len(self) - 1}, got {client_id}")
        return self.index[self.offsets[client_id] : self.offsets[client_id + 1]]

    def __iter__(self) -> Iterator[Indices]:
        return (self[client_id] for client_id in range(len(self)))

    @cached_property
    def sizes(self) -> Indices:
        """Lengths of the lists, shape (K,)."""
        return np.diff(self.offsets)

    @property
    def owners(self) -> Indices:
        """Client that each entry of ``index`` belongs to, shape (total,)."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.sizes)

    def keep(self, mask: NDArray[np.bool_]) -> "Ragged":
        """Drop entries.

        Parameters
        ----------
        mask : ndarray of bool, shape (total,)
            Which entries of ``index`` stay.

        Returns
        -------
        Ragged
            K lists, in the same order.
        """
        ends, filled = np.cumsum(mask), self.offsets > 0
        offsets = np.zeros_like(self.offsets)
        offsets[filled] = ends[self.offsets[filled] - 1]
        return Ragged(self.index[mask], offsets)


def stable_order(keys: NDArray[np.integer[Any]], bound: int) -> Indices:
    """Sort positions by key, ties in their order.

    Parameters
    ----------
    keys : ndarray of integers, shape (N,)
        Keys in 0..bound-1.
    bound : int
        One above the largest key that can occur.

    Returns
    -------
    ndarray of int64, shape (N,)
        Positions in sorted order.
    """
    if bound <= _SMALL:
        return np.argsort(narrow(keys, bound), kind="stable")
    shift = max(len(keys) - 1, 0).bit_length()
    if bound.bit_length() + shift > _BITS:
        return np.argsort(keys, kind="stable")
    # Values sort ten times as fast as positions: let each key carry its position.
    carried = np.sort((keys << shift) | np.arange(len(keys)))
    return carried & ((1 << shift) - 1)


def narrow(keys: NDArray[np.integer[Any]], bound: int) -> NDArray[np.integer[Any]]:
    """Make small keys 16 bits wide: numpy sorts those by radix, ten times as fast as longer ones.

    Parameters
    ----------
    keys : ndarray of integers
        Keys in 0..bound-1.
    bound : int
        One above the largest key that can occur.

    Returns
    -------
    ndarray
        The keys, as uint16 if they fit.
    """
    return keys.astype(np.uint16, copy=False) if bound <= _SMALL else keys


def union(first: Indices, second: Indices) -> Indices:
    """Join two lists in which entries may repeat.

    Parameters
    ----------
    first, second : ndarray of int64
        Entries >= 0.

    Returns
    -------
    ndarray of int64
        Ascending; each entry as often as in the list that has it more often, so that what is in
        both lists is not doubled.
    """
    numbers = [_numbered(part) for part in (first, second)]
    width = max((int(number.max(initial=0)) for _, number in numbers), default=0) + 1
    return np.unique(np.concatenate([part * width + number for part, number in numbers])) // width


def _numbered(values: Indices) -> tuple[Indices, Indices]:
    """Sort values and count the repetitions of each from 0."""
    ordered = np.sort(values)
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    sizes = np.diff(starts, append=len(ordered))
    return ordered, np.arange(len(ordered)) - np.repeat(starts, sizes)


def _offsets(sizes: Indices) -> Indices:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
