"""Sorted by class and cut into shards: the first label skew of federated learning.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data" (AISTATS
2017, arXiv 1602.05629), section 3: 200 shards of 300 digits, two for each of 100 clients.
"""

from dataclasses import dataclass

import numpy as np

from fedlabels.errors import ConfigError
from fedlabels.federation.cutting import draw_class_order
from fedlabels.federation.partition import PARTITIONS, Partition
from fedlabels.federation.partitions.dealing import like_cards
from fedlabels.federation.ragged import Indices
from fedlabels.federation.registry import check_count, register
from fedlabels.federation.samples import Samples


@register(PARTITIONS, "shards")
@dataclass(frozen=True, kw_only=True)
class Shards(Partition):
    """Deal equal pieces of the samples sorted by class.

    Parameters
    ----------
    shards_per_client : int
        Pieces of each client, >= 1; a client has about as many classes, or fewer.

    Notes
    -----
    Within a class the samples are shuffled, so that the order of the file plays no part. Samples of
    unknown class are dealt in equal parts.
    """

    shards_per_client: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("shards_per_client", self.shards_per_client, low=1)

    def owners(self, samples: Samples, *, clients: int, random: np.random.Generator) -> Indices:
        """Name the owner of every sample; see :class:`Partition`."""
        *known, unknown = draw_class_order(samples.labels, samples.num_classes, random)
        ordered = np.concatenate(known)
        pieces = clients * self.shards_per_client
        if 0 < len(ordered) < pieces:
            raise ConfigError(
                f"{clients} clients with shards_per_client={self.shards_per_client} take {pieces} "
                f"shards, got {len(ordered)} samples of known class; lower shards_per_client or "
                "clients, or set partition.reuse=true"
            )
        holder = np.repeat(random.permutation(pieces) % clients, _even(len(ordered), pieces))
        owners = np.empty(len(samples), dtype=np.int64)
        owners[ordered] = holder
        owners[unknown] = like_cards(len(unknown), clients, random)
        return owners


def _even(total: int, pieces: int) -> Indices:
    return np.diff(np.arange(pieces + 1, dtype=np.int64) * total // pieces)
