"""Label skew of the published FedLoGe code, draw for draw.

Xiao et al., "FedLoGe: Joint Local and Generic Federated Learning under Long-tailed Data" (ICLR
2024, arXiv 2401.08977). Together with ``long_tail`` it gives the client sizes of its logs.
"""

from dataclasses import dataclass

import numpy as np

from fedlabels.errors import ConfigError
from fedlabels.federation.partition import PARTITIONS, Partition
from fedlabels.federation.ragged import Indices
from fedlabels.federation.registry import check_count, check_positive, check_range, register
from fedlabels.federation.samples import Samples


@register(PARTITIONS, "fedloge")
@dataclass(frozen=True, kw_only=True)
class FedLoge(Partition):
    """Give every sample of a class to a client drawn from a Dirichlet distribution of that class.

    Parameters
    ----------
    alpha : float
        Concentration, > 0; 1 and 0.5 in the paper.
    seed : int or None
        Seed of numpy's legacy generator, 0..2**32 - 1; 3407 in the published code. None follows the
        run's seed.

    Notes
    -----
    The published code has no minimum; ``min_size`` of 0 or 1 changes nothing at its settings.
    """

    alpha: float
    seed: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("alpha", self.alpha)
        if self.seed is not None:
            check_range("seed", self.seed, 0, 2**32 - 1)
            check_count("seed", self.seed)

    def owners(self, samples: Samples, *, clients: int, random: np.random.Generator) -> Indices:
        """Name the owner of every sample; see :class:`Partition`.

        Samples of unknown class are dealt last, each to any client.
        """
        # Legacy draws are what makes it compatible: the new generators give other numbers.
        legacy = np.random.RandomState(random.integers(2**32) if self.seed is None else self.seed)
        legacy.binomial(1, 1, size=(clients, samples.num_classes))  # drawn there, too, and not used
        owners = np.empty(len(samples), dtype=np.int64)
        for c in range(samples.num_classes):
            own = np.flatnonzero(samples.labels == c)
            with np.errstate(invalid="ignore"):
                shares = legacy.dirichlet(np.full(clients, self.alpha))
            if not np.isfinite(shares).all():  # all of its draws underflowed
                raise ConfigError(
                    f"alpha={self.alpha} is too small for this rule; use partition=dirichlet, or "
                    "raise alpha"
                )
            owners[own] = legacy.choice(clients, size=len(own), p=shares)
        unknown = np.flatnonzero(samples.labels < 0)
        owners[unknown] = legacy.choice(clients, size=len(unknown))
        return owners
