"""Each client labels by a class mix of its own."""

from dataclasses import dataclass

import numpy as np

from fedlabels.federation.labels import POLICIES, Mask, Shuffled
from fedlabels.federation.policies.uniform import Uniform
from fedlabels.federation.ragged import Indices
from fedlabels.federation.registry import check_positive, register
from fedlabels.federation.remainders import fill_by_weight


@register(POLICIES, "dirichlet_labels")
@dataclass(frozen=True, kw_only=True)
class DirichletLabels(Uniform):
    """Draw the class mix of each client's labels from Dirichlet(alpha); ours.

    Parameters
    ----------
    fraction : float or None
        Share of labeled samples, in [0, 1].
    total : int or None
        Labels in all, in place of ``fraction``, dealt to the clients by their sizes; the class mix
        is the client's own.
    alpha : float
        Concentration, > 0: at 0.1 nearly all labels of a client are of one or two of its classes.
        Where a class runs out its other classes take its place.
    """

    alpha: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("alpha", self.alpha)

    def labeled(self, shuffled: Shuffled, random: np.random.Generator) -> Mask:
        """Mark the labeled entries; see :class:`LabelPolicy`."""
        return shuffled.first_of_class(
            self._mixed(shuffled, self.budget(shuffled.shards.sizes), random)
        )

    def counts_of(self, shuffled: Shuffled, able: Mask, random: np.random.Generator) -> Indices:
        """Deal ``total`` labels; see :class:`Amount`."""
        budget = self.deal(shuffled, shuffled.shards.sizes[:, None], able, random)
        return self._mixed(shuffled, budget[:, 0], random)

    def _mixed(self, shuffled: Shuffled, budget: Indices, random: np.random.Generator) -> Indices:
        """Share the clients' labels out over classes, shape (K, C)."""
        held = shuffled.class_counts()
        mixes = random.dirichlet(np.full(held.shape[1], self.alpha), size=len(held))
        # A weight that underflowed is still a class that may be labeled when others run out.
        mixes = np.maximum(mixes, 1e-300)
        return fill_by_weight(mixes, budget, held)
