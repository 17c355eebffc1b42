"""So many labels in all: a number dealt exactly to clients and classes."""

import heapq
from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from fedlabels.errors import ConfigError
from fedlabels.federation.labels import LabelPolicy, Mask, Shuffled
from fedlabels.federation.ragged import Indices
from fedlabels.federation.registry import check_count
from fedlabels.federation.remainders import fill_by_weight


@dataclass(frozen=True, kw_only=True)
class Amount(LabelPolicy):
    """A policy that is told how many labels there are: a share of every shard, or a number.

    Parameters
    ----------
    fraction : float or None
        Share of labeled samples, in [0, 1].
    total : int or None
        Labels in all, >= 0, in place of ``fraction``: exactly so many in the federation, each class
        with as many as the others and each client with its share by size, as far as their samples
        go; docs/heterogeneity.md has the rule.
    """

    fraction: float | None = None
    total: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.total is not None and self.full_share:
            raise not_of_full(self.total)
        if (self.fraction is None) == (self.total is None):
            raise ConfigError(
                "give exactly one of labels.fraction (a share of every client's samples) and "
                f"labels.total (so many in all), the other null; got {self.fraction} and "
                f"{self.total}"
            )
        if self.total is not None:
            check_count("total", self.total)

    @abstractmethod
    def counts_of(self, shuffled: Shuffled, able: Mask, random: np.random.Generator) -> Indices:
        """Say how many labels each client has of each class where ``total`` is given.

        Parameters
        ----------
        shuffled : Shuffled
            As for :meth:`labeled`.
        able : ndarray of bool, shape (K,)
            Clients that may have labels.
        random : numpy.random.Generator
            Source of all draws.

        Returns
        -------
        ndarray of int64, shape (K, C)
            Counts whose sum is ``total``.
        """

    def _marks(self, shuffled: Shuffled, random: np.random.Generator) -> tuple[Mask, Mask, Mask]:
        """See :class:`LabelPolicy`; a number is dealt to those who have labels."""
        if self.total is None:
            return super()._marks(shuffled, random)
        sizes = shuffled.shards.sizes
        silent, full = self._special(shuffled, random)
        counts = self.counts_of(shuffled, ~silent, random)
        free = sizes - counts.sum(axis=1)
        wanted = np.floor((self.unlabeled_fraction or 0.0) * sizes).astype(np.int64)
        if (wanted > free).any():
            k = int(np.argmax(wanted > free))
            raise ConfigError(
                f"labels.unlabeled_fraction={self.unlabeled_fraction} takes {wanted[k]} of the "
                f"{sizes[k]} samples of client {k}, but with labels.total={self.total} "
                f"{sizes[k] - free[k]} of them are labeled; lower one of the two, or set "
                "labels.unlabeled_fraction=null for all that are not labeled"
            )
        return shuffled.first_of_class(counts), silent, full


def not_of_full(total: int) -> ConfigError:
    """Make the error about a number of labels beside clients that label all they have."""
    return ConfigError(
        f"labels.total={total} does not go with fully labeled clients, who have as many labels as "
        "samples; give labels.fraction, or have no such clients"
    )


def deal_total(
    total: int,
    held: Indices,
    weights: Indices,
    random: np.random.Generator,
    *,
    least: int = 0,
    in_proportion: bool = False,
) -> Indices:
    """Deal a number of labels to clients and classes.

    Parameters
    ----------
    total : int
        Labels in all, >= 0.
    held : ndarray of int64, shape (K, C)
        Samples of every client and class that may be labeled.
    weights : ndarray of int64, shape (K,)
        What the clients' shares follow, >= 0: their sizes.
    random : numpy.random.Generator
        Decides between equals.
    least : int
        Labels that each client has at least, as far as its samples go, >= 0.
    in_proportion : bool
        Labels of a class follow its size; else all classes have equally many.

    Returns
    -------
    ndarray of int64, shape (K, C)
        Counts <= ``held`` whose sum is ``total``.

    Raises
    ------
    ConfigError
        If there are fewer samples, or ``least`` takes more labels.

    Notes
    -----
    First ``least`` is met. Then each class gets its number of labels: equally many, or in
    proportion, as far as its samples go, and what a class lacks others get. Last, class by class,
    those of the fewest clients first, each label goes to the client that is furthest below its
    share of the total; of equals to the one with fewer labels of this class.

    Examples
    --------
    >>> held = np.array([[9, 9], [9, 9], [9, 0]])
    >>> deal_total(6, held, held.sum(axis=1), np.random.default_rng(0)).sum(axis=0).tolist()
    [3, 3]
    """
    room, needed = int(held.sum()), int(np.minimum(held.sum(axis=1), least).sum())
    if total > room:
        raise ConfigError(
            f"labels.total={total} is more than the {room} samples of known class that may be "
            "labeled; lower it"
        )
    if total < needed:
        raise ConfigError(
            f"labels.total={total} is less than the {needed} labels that labels.min_labels={least} "
            f"takes for {len(held)} clients; raise it, or lower labels.min_labels"
        )
    turn = random.permutation(len(held))  # whose turn it is among equals
    counts = _least(held, _quotas(total, held, in_proportion), least, turn)
    extra = _quotas(total, held, in_proportion, counts.sum(axis=0)) - counts.sum(axis=0)
    whole = max(int(weights.sum()), 1)
    # Below the share by so much, times the sum of the weights: whole numbers, no rounding.
    behind = [int(w) * total - int(n) * whole for w, n in zip(weights, counts.sum(1), strict=True)]
    for c in np.lexsort((random.permutation(len(extra)), (held > 0).sum(axis=0))).tolist():
        free = held[:, c] - counts[:, c]
        line = [
            (-behind[k], int(counts[k, c]), int(turn[k]), k) for k in np.flatnonzero(free).tolist()
        ]
        heapq.heapify(line)
        for _ in range(int(extra[c])):
            _, number, place, k = heapq.heappop(line)
            behind[k] -= whole
            counts[k, c] += 1
            if counts[k, c] < held[k, c]:
                heapq.heappush(line, (-behind[k], number + 1, place, k))
    return counts


def _quotas(
    total: int, held: Indices, in_proportion: bool, given: Indices | None = None
) -> Indices:
    """Return the labels of each class, at least those that are given, shape (C,)."""
    stock = held.sum(axis=0)
    given = np.zeros_like(stock) if given is None else given
    whole: Indices
    if in_proportion:
        whole = fill_by_weight(stock[None].astype(np.float64), np.array([total]), stock[None])[0]
    else:
        low, high = 0, int(stock.max(initial=0))
        while low < high:  # the highest level that all classes reach, as far as they go
            level = (low + high + 1) // 2
            if np.clip(level, given, stock).sum() <= total:
                low = level
            else:
                high = level - 1
        whole = np.clip(low, given, stock)
    whole = np.maximum(whole, given)
    surplus = total - int(whole.sum())
    while surplus:  # one more for some classes, or one less where others had to have more
        able = np.flatnonzero(whole < stock) if surplus > 0 else np.flatnonzero(whole > given)
        order = able[np.argsort(np.sign(surplus) * whole[able], kind="stable")]
        whole[order[: abs(surplus)]] += np.sign(surplus)
        surplus = total - int(whole.sum())
    return whole


def _least(held: Indices, quotas: Indices, least: int, turn: Indices) -> Indices:
    """Give each client its least, of the class of which most are still to be dealt."""
    counts, left = np.zeros_like(held), quotas.copy()
    if not least:
        return counts
    for k in np.lexsort((turn, (held > 0).sum(axis=1))).tolist():  # who has least choice first
        for _ in range(min(least, int(held[k].sum()))):
            free = np.flatnonzero(counts[k] < held[k])
            c = free[np.argmax(left[free])]
            counts[k, c] += 1
            left[c] -= 1
    return counts
