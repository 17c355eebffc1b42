"""Sizes differ by a log-normal law, class mixes do not."""

from dataclasses import dataclass

import numpy as np

from fedlabels.federation.partition import PARTITIONS, Partition
from fedlabels.federation.partitions.dealing import by_sizes, log_normal_sizes
from fedlabels.federation.ragged import Indices
from fedlabels.federation.registry import check_range, register
from fedlabels.federation.samples import Samples


@register(PARTITIONS, "log_normal")
@dataclass(frozen=True, kw_only=True)
class LogNormal(Partition):
    """Draw sizes from LogNormal(0, sigma), scaled to use all samples; deal at random.

    The size rule of FedDyn (Acar et al., ICLR 2021, arXiv 2111.04263).

    Parameters
    ----------
    sigma : float
        Standard deviation of the logarithm of the sizes, in [0, 10]: 0 is ``iid``, at 1 the middle
        two thirds of the clients differ by a factor of seven.
    """

    sigma: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("sigma", self.sigma, 0.0, 10.0)

    def owners(self, samples: Samples, *, clients: int, random: np.random.Generator) -> Indices:
        """Name the owner of every sample; see :class:`Partition`."""
        sizes = log_normal_sizes(len(samples), clients, self.sigma, random)
        return by_sizes(sizes, len(samples), random)
