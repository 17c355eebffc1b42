"""Every client's data look alike."""

from dataclasses import dataclass

import numpy as np

from fedlabels.federation.partition import PARTITIONS, Partition
from fedlabels.federation.ragged import Indices
from fedlabels.federation.registry import register
from fedlabels.federation.samples import Samples


@register(PARTITIONS, "iid")
@dataclass(frozen=True, kw_only=True)
class Iid(Partition):
    """Deal the shuffled samples like cards: sizes differ by one at most."""

    def owners(self, samples: Samples, *, clients: int, random: np.random.Generator) -> Indices:
        """Name the owner of every sample; see :class:`Partition`."""
        return random.permutation(len(samples)) % clients
