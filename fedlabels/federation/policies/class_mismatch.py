"""Labels of some classes only: what a client sees unlabeled differs from what it knows."""

import math
from dataclasses import dataclass

import numpy as np

from fedlabels.federation.labels import POLICIES, Mask, Shuffled
from fedlabels.federation.policies.uniform import Uniform
from fedlabels.federation.ragged import Indices
from fedlabels.federation.registry import check_range, register


@register(POLICIES, "class_mismatch")
@dataclass(frozen=True, kw_only=True)
class ClassMismatch(Uniform):
    """Label only a random subset of each shard's classes.

    This construction is ours; that labeled and unlabeled data differ in their classes is what
    motivates FedLabel (arXiv 2307.08809).

    Parameters
    ----------
    fraction : float or None
        Share of labeled samples, in [0, 1]; reached as far as the chosen classes go.
    total : int or None
        Labels in all, in place of ``fraction``, of the classes that are chosen.
    kept : float
        Share of a shard's classes that are labeled, in [0, 1], rounded up: above 0 at least one.
    """

    kept: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("kept", self.kept, 0.0, 1.0)

    def labeled(self, shuffled: Shuffled, random: np.random.Generator) -> Mask:
        """Mark the labeled entries; see :class:`LabelPolicy`."""
        eligible = self._open(shuffled, random)[shuffled.shards.owners, shuffled.classes]
        return shuffled.first_among(eligible, self.budget(shuffled.shards.sizes))

    def counts_of(self, shuffled: Shuffled, able: Mask, random: np.random.Generator) -> Indices:
        """Deal ``total`` labels; see :class:`Amount`."""
        held = shuffled.class_counts() * self._open(shuffled, random)
        return self.deal(shuffled, held, able, random)

    def _open(self, shuffled: Shuffled, random: np.random.Generator) -> Mask:
        """Draw the classes of which each client may have labels, shape (K, C)."""
        present = shuffled.class_counts() > 0
        turn = np.where(present, random.random(present.shape), 2.0)
        order = np.argsort(turn, axis=1, kind="stable")
        place = np.argsort(order, axis=1, kind="stable")
        number = np.array([math.ceil(self.kept * n - 1e-9) for n in present.sum(axis=1)])
        marks: Mask = present & (place < number[:, None])
        return marks
