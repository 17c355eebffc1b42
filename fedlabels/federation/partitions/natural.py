"""Every client is a person, a writer, a device: who recorded a sample keeps it."""

from dataclasses import dataclass

import numpy as np

from fedlabels.errors import ConfigError
from fedlabels.federation.partition import PARTITIONS, Partition
from fedlabels.federation.ragged import Indices, Ragged
from fedlabels.federation.registry import register
from fedlabels.federation.samples import Samples


@register(PARTITIONS, "natural")
@dataclass(frozen=True, kw_only=True)
class Natural(Partition):
    """Make each natural client of the data set one client.

    Parameters
    ----------
    min_size : int
        Natural clients with fewer samples take no part. Nothing is moved between people, so there
        must be as many others as ``clients``.

    Notes
    -----
    If there are more of them, as many as needed are drawn by the seed and the samples of the others
    stay unused. Clients are numbered in the order of the data set's own numbers.
    """

    def owners(self, samples: Samples, *, clients: int, random: np.random.Generator) -> Indices:
        """Name the owner of every sample; see :class:`Partition`."""
        if samples.owner is None:
            raise ConfigError(
                "this data set does not say whose its samples are; use another partition, or a "
                "data set with natural clients"
            )
        people, place, sizes = np.unique(samples.owner, return_inverse=True, return_counts=True)
        large = np.flatnonzero(sizes >= self.min_size)
        if clients > len(large):
            raise ConfigError(self._too_few(clients, len(people), len(large)))
        drawn = np.sort(random.permutation(large)[:clients])
        client_of = np.full(len(people), -1, dtype=np.int64)
        client_of[drawn] = np.arange(clients)
        return client_of[place]

    def repair(
        self, owners: Indices, samples: Samples, *, clients: int, random: np.random.Generator
    ) -> Indices:
        """Leave all as it is: :meth:`owners` chose among those that are large enough."""
        return owners

    def names_of(self, shards: Ragged, samples: Samples) -> tuple[str, ...]:
        """Return the names of the people; see :class:`Partition`."""
        if samples.owner is None or not samples.owner_names or not shards.sizes.all():
            return ()
        people = samples.owner[shards.index[shards.offsets[:-1]]]
        return tuple(samples.owner_names[person] for person in people.tolist())

    def _too_few(self, clients: int, found: int, large: int) -> str:
        below = f", {found - large} of them with fewer than min_size={self.min_size} samples"
        return (
            f"{clients} clients, but the data set has {found} natural clients"
            f"{below if large < found else ''}; lower clients to {large} or less"
            f"{', or lower min_size' if large < found else ''} (partition.reuse does not help: it "
            "makes no new people)"
        )
