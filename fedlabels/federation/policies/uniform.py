"""The same share of labels on every client, whatever the class."""

from dataclasses import dataclass

import numpy as np

from fedlabels.errors import ConfigError
from fedlabels.federation.labels import (
    POLICIES,
    LabelMasks,
    LabelPolicy,
    label_split,
    shuffled_rank,
)
from fedlabels.federation.ragged import Indices, Ragged
from fedlabels.federation.registry import check_count, check_range, register


@register(POLICIES, "uniform")
@dataclass(frozen=True, kw_only=True)
class Uniform(LabelPolicy):
    """Label a share of every shard, drawn uniformly: rare classes of a shard often have no label.

    Parameters
    ----------
    fraction : float
        Share of labeled samples, in [0, 1].
    unlabeled_fraction : float or None
        Share of the unlabeled pool, in [0, 1]; None is ``1 - fraction`` without loss: every sample
        that is not labeled.
    unlabeled_includes_labeled : bool
        Add the labeled samples to the unlabeled pool, without their labels, as FixMatch does.
    min_labels : int
        At least that many labels per client, as far as its shard goes, >= 0. Both shares are cut
        down to whole samples, so small shards have no label without it.

    Notes
    -----
    Shares count samples of known class. A shard of n is shuffled once; the first
    ``int(unlabeled_fraction * n)`` are unlabeled, the next ``int(fraction * n)`` labeled, as in the
    published FedLabel data script. Both given, that can leave one sample unused.
    """

    fraction: float
    unlabeled_fraction: float | None = None
    unlabeled_includes_labeled: bool = False
    min_labels: int = 0

    def __post_init__(self) -> None:
        check_range("fraction", self.fraction, 0.0, 1.0)
        check_count("min_labels", self.min_labels)
        if self.unlabeled_fraction is None:
            return
        check_range("unlabeled_fraction", self.unlabeled_fraction, 0.0, 1.0)
        if self.fraction + self.unlabeled_fraction > 1 + 1e-9:
            raise ConfigError(
                "fraction + unlabeled_fraction must be <= 1, got "
                f"{self.fraction} + {self.unlabeled_fraction}; lower one of them, or set "
                "unlabeled_includes_labeled=true to use the labeled samples twice"
            )

    def masks(
        self,
        shards: Ragged,
        labels: Indices,
        *,
        num_classes: int,
        random: np.random.Generator,
    ) -> LabelMasks:
        """Mark labeled and unlabeled entries; see :class:`LabelPolicy`."""
        rank = shuffled_rank(shards, random)
        num_unlabeled, num_labeled = self._sizes(shards.sizes)
        start = np.repeat(num_unlabeled, shards.sizes)
        stop = np.repeat(num_unlabeled + num_labeled, shards.sizes)
        labeled = (rank >= start) & (rank < stop)
        unlabeled = rank < start
        return LabelMasks(
            labeled, unlabeled | labeled if self.unlabeled_includes_labeled else unlabeled
        )

    def _sizes(self, sizes: Indices) -> tuple[Indices, Indices]:
        split = label_split(sizes, self.fraction, self.unlabeled_fraction or 0.0)
        num_labeled = np.maximum(split.num_labeled, np.minimum(self.min_labels, sizes))
        rest = sizes - num_labeled
        if self.unlabeled_fraction is None:
            return rest, num_labeled
        return np.minimum(split.num_unlabeled, rest), num_labeled
