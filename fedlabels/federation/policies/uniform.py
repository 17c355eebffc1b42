"""The same share of labels on every client, whatever the class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedlabels.errors import ConfigError
from fedlabels.federation.labels import POLICIES, Mask, Shuffled, label_split
from fedlabels.federation.ragged import Indices
from fedlabels.federation.registry import check_count, check_range, register
from fedlabels.federation.totals import Amount, deal_total


@register(POLICIES, "uniform")
@dataclass(frozen=True, kw_only=True)
class Uniform(Amount):
    """Label a share of every shard, drawn uniformly: rare classes of a shard often have no label.

    Parameters
    ----------
    min_labels : int
        At least that many labels per client, as far as its shard goes, >= 0. Both shares are cut
        down to whole samples, so small shards have no label without it.

    Notes
    -----
    A shard of n is shuffled once; the first ``int(unlabeled_fraction * n)`` are unlabeled, the next
    ``int(fraction * n)`` labeled, as in the published FedLabel data script. Both given, that can
    leave one sample unused. ``total`` labels are the first of each class in the same order.
    """

    min_labels: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("min_labels", self.min_labels)
        if self.fraction is None:
            return
        check_range("fraction", self.fraction, 0.0, 1.0)
        if self.fraction + (self.unlabeled_fraction or 0.0) > 1 + 1e-9:
            raise ConfigError(
                "labels.fraction + labels.unlabeled_fraction must be <= 1, got "
                f"{self.fraction} + {self.unlabeled_fraction}: the second counts samples without a "
                "label; lower one of them, or set labels.unlabeled_fraction=null for all that are "
                "not labeled (labels.unlabeled_includes_labeled=true adds the labeled ones)"
            )

    def labeled(self, shuffled: Shuffled, random: np.random.Generator) -> Mask:
        """Mark the labeled entries; see :class:`LabelPolicy`."""
        sizes = shuffled.shards.sizes
        return behind_the_unlabeled(shuffled, self.unlabeled_fraction, self.budget(sizes))

    def budget(self, sizes: Indices) -> Indices:
        """Return how many labels shards of these sizes get."""
        split = label_split(sizes, self.fraction or 0.0, self.unlabeled_fraction or 0.0)
        return np.maximum(split.num_labeled, np.minimum(self.min_labels, sizes))

    def counts_of(self, shuffled: Shuffled, able: Mask, random: np.random.Generator) -> Indices:
        """Deal ``total`` labels; see :class:`Amount`."""
        return self.deal(shuffled, shuffled.class_counts(), able, random)

    def deal(
        self,
        shuffled: Shuffled,
        held: Indices,
        able: Mask,
        random: np.random.Generator,
        *,
        in_proportion: bool = False,
    ) -> Indices:
        """Deal ``total`` labels of these samples by the sizes of the clients, shape (K, C)."""
        assert self.total is not None  # else nobody asks
        return deal_total(
            self.total,
            held * able[:, None],
            shuffled.shards.sizes * able,
            random,
            least=self.min_labels,
            in_proportion=in_proportion,
        )


def check_share(share: float | None, clients: Sequence[int] | None) -> None:
    """Check that clients are chosen by a share or by number, and not by both.

    Raises
    ------
    ConfigError
        If not, or the share is out of range.
    """
    if (share is None) == (clients is None):
        raise ConfigError(
            "give exactly one of labels.share (a share of the clients) and labels.clients (their "
            f"numbers), the other null; got {share} and {clients}"
        )
    if share is not None:
        check_range("share", share, 0.0, 1.0)


def behind_the_unlabeled(
    shuffled: Shuffled, unlabeled_fraction: float | None, num_labeled: Indices
) -> Mask:
    """Mark ``num_labeled`` entries of each shuffled shard behind the unlabeled ones."""
    sizes = shuffled.shards.sizes
    start = sizes - num_labeled
    if unlabeled_fraction is not None:
        start = np.minimum(np.floor(unlabeled_fraction * sizes).astype(np.int64), start)
    first, last = (np.repeat(edge, sizes) for edge in (start, start + num_labeled))
    marks: Mask = (shuffled.rank >= first) & (shuffled.rank < last)
    return marks
