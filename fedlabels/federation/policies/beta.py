"""Every client has its own share of labels."""

from dataclasses import dataclass

import numpy as np

from fedlabels.errors import ConfigError
from fedlabels.federation.labels import POLICIES, LabelPolicy, Mask, Shuffled
from fedlabels.federation.policies.uniform import behind_the_unlabeled
from fedlabels.federation.registry import check_positive, register


@register(POLICIES, "beta")
@dataclass(frozen=True, kw_only=True)
class Beta(LabelPolicy):
    """Draw each client's share of labels from a Beta distribution; ours.

    Parameters
    ----------
    fraction : float
        Mean of the shares, in (0, 1).
    concentration : float
        a + b of the Beta distribution, > 0: small values make clients with nearly all and others
        with nearly no labels, large ones make all alike.
    """

    fraction: float
    concentration: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.fraction < 1:
            raise ConfigError(f"fraction must be in (0, 1), got {self.fraction!r}")
        check_positive("concentration", self.concentration)

    def labeled(self, shuffled: Shuffled, random: np.random.Generator) -> Mask:
        """Mark the labeled entries; see :class:`LabelPolicy`."""
        sizes = shuffled.shards.sizes
        first = self.fraction * self.concentration
        shares = random.beta(first, self.concentration - first, size=len(sizes))
        counts = np.rint(shares * sizes).astype(np.int64)
        return behind_the_unlabeled(shuffled, self.unlabeled_fraction, counts)
