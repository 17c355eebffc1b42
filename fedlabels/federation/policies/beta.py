"""Every client has its own share of labels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedlabels.errors import ConfigError
from fedlabels.federation.labels import POLICIES, Mask, Shuffled
from fedlabels.federation.policies.uniform import behind_the_unlabeled
from fedlabels.federation.ragged import Indices
from fedlabels.federation.registry import check_positive, register
from fedlabels.federation.totals import Amount, deal_total

Shares = NDArray[np.float64]


@register(POLICIES, "beta")
@dataclass(frozen=True, kw_only=True)
class Beta(Amount):
    """Draw each client's share of labels from a Beta distribution; ours.

    Parameters
    ----------
    fraction : float or None
        Mean of the shares, in (0, 1).
    total : int or None
        Labels in all, in place of ``fraction``: exactly so many, which the clients have in
        proportion to their sizes times the shares.
    concentration : float
        a + b of the Beta distribution, > 0: small values make clients with nearly all and others
        with nearly no labels, large ones make all alike.
    """

    concentration: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fraction is not None and not 0 < self.fraction < 1:
            raise ConfigError(f"fraction must be in (0, 1), got {self.fraction!r}")
        check_positive("concentration", self.concentration)

    def labeled(self, shuffled: Shuffled, random: np.random.Generator) -> Mask:
        """Mark the labeled entries; see :class:`LabelPolicy`."""
        assert self.fraction is not None  # else counts_of is asked
        sizes = shuffled.shards.sizes
        counts = np.rint(self._shares(self.fraction, len(sizes), random) * sizes).astype(np.int64)
        return behind_the_unlabeled(shuffled, self.unlabeled_fraction, counts)

    def counts_of(self, shuffled: Shuffled, able: Mask, random: np.random.Generator) -> Indices:
        """Deal ``total`` labels; see :class:`Amount`."""
        assert self.total is not None
        held, sizes = shuffled.class_counts() * able[:, None], shuffled.shards.sizes * able
        mean = self.total / max(int(sizes.sum()), 1)
        shares = self._shares(mean, len(sizes), random) if 0 < mean < 1 else np.ones(len(sizes))
        weights = np.rint(shares * sizes * 1_000_000).astype(np.int64)
        return deal_total(self.total, held, weights, random)

    def _shares(self, mean: float, clients: int, random: np.random.Generator) -> Shares:
        first = mean * self.concentration
        return random.beta(first, self.concentration - first, size=clients)
