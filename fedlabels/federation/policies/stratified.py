"""The same share of labels in every class of a shard."""

from dataclasses import dataclass

import numpy as np

from fedlabels.federation.labels import POLICIES, Mask, Shuffled
from fedlabels.federation.policies.uniform import Uniform
from fedlabels.federation.ragged import Indices
from fedlabels.federation.registry import register
from fedlabels.federation.remainders import fill_by_weight


@register(POLICIES, "stratified")
@dataclass(frozen=True, kw_only=True)
class Stratified(Uniform):
    """Share a client's labels out over its classes by their sizes.

    Parameters
    ----------
    fraction : float or None
        Share of labeled samples, in [0, 1]; a client has ``int(fraction * n)`` of them.
    total : int or None
        Labels in all, in place of ``fraction``: exactly so many, of each class in proportion to the
        samples that all clients have of it.

    Notes
    -----
    One label for each class of the shard first, the largest classes before the others where there
    are fewer labels than classes; the rest in proportion, largest remainders last. Rounding each
    class for itself could double the number of labels of small shards.
    """

    def labeled(self, shuffled: Shuffled, random: np.random.Generator) -> Mask:
        """Mark the labeled entries; see :class:`LabelPolicy`."""
        held = shuffled.class_counts()
        budget = self.budget(shuffled.shards.sizes)
        by_size = np.argsort(np.argsort(-held, axis=1, kind="stable"), axis=1, kind="stable")
        counts = ((by_size < budget[:, None]) & (held > 0)).astype(np.int64)
        target = held * (budget / np.maximum(held.sum(axis=1), 1))[:, None]
        weights = np.maximum(target - counts, 0.0) + 1e-9 * held
        counts += fill_by_weight(weights, budget - counts.sum(axis=1), held - counts)
        return shuffled.first_of_class(counts)

    def counts_of(self, shuffled: Shuffled, able: Mask, random: np.random.Generator) -> Indices:
        """Deal ``total`` labels; see :class:`Amount`."""
        return self.deal(shuffled, shuffled.class_counts(), able, random, in_proportion=True)
