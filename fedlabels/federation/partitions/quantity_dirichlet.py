"""Sizes differ by a Dirichlet law, class mixes do not."""

from dataclasses import dataclass

import numpy as np

from fedlabels.federation.cutting import piece_sizes
from fedlabels.federation.partition import PARTITIONS, Partition
from fedlabels.federation.partitions.dealing import by_sizes
from fedlabels.federation.ragged import Indices
from fedlabels.federation.registry import check_positive, register
from fedlabels.federation.samples import Samples


@register(PARTITIONS, "quantity_dirichlet")
@dataclass(frozen=True, kw_only=True)
class QuantityDirichlet(Partition):
    """Draw the clients' shares of the samples from Dirichlet(alpha); deal at random.

    The quantity skew of NIID-Bench (Li et al., ICDE 2022, arXiv 2102.02079).

    Parameters
    ----------
    alpha : float
        Concentration, > 0: at 0.5 sizes differ a hundredfold, at 100 by some percent.
    """

    alpha: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("alpha", self.alpha)

    def owners(self, samples: Samples, *, clients: int, random: np.random.Generator) -> Indices:
        """Name the owner of every sample; see :class:`Partition`."""
        shares = random.dirichlet(np.full(clients, self.alpha))
        return by_sizes(piece_sizes(shares, len(samples)), len(samples), random)
