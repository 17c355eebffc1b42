"""What a partitioner is: a rule that gives every training sample an owner."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedlabels.effect import Only, only
from fedlabels.federation.evening import even_out
from fedlabels.federation.ragged import Indices, Ragged
from fedlabels.federation.registry import check_count
from fedlabels.federation.samples import Samples
from fedlabels.seeds import generator

PARTITIONS: dict[str, "type[Partition]"] = {}
"""Name -> partitioner. Every file in ``fedlabels/federation/partitions`` adds to it."""


@dataclass(frozen=True, kw_only=True)
class Partition(ABC):
    """Deals the training set to clients.

    A new partitioner is one file in ``fedlabels/federation/partitions`` with one frozen dataclass
    that gives :meth:`owners` and is decorated with ``@register(PARTITIONS, name)``.

    Parameters
    ----------
    min_size : int
        Every client gets at least that many samples, >= 0. Where the rule gives fewer, random
        samples of the largest clients are moved: retries would never end for small alpha.
    """

    min_size: int = 1

    as_it_lies: ClassVar[bool] = False
    """Whether it deals the whole training set: what a long tail leaves out is then taken away."""

    counts: ClassVar[tuple[Only, ...]] = (only("samples_per_client", reuse=True),)

    def __post_init__(self) -> None:
        check_count("min_size", self.min_size)

    @abstractmethod
    def owners(self, samples: Samples, *, clients: int, random: np.random.Generator) -> Indices:
        """Name the owner of every sample.

        Parameters
        ----------
        samples : Samples
            N samples.
        clients : int
            Number of clients, >= 1.
        random : numpy.random.Generator
            Source of all draws.

        Returns
        -------
        ndarray of int64, shape (N,)
            Client 0..clients-1, or -1 for a sample that nobody gets.
        """

    def deal(self, samples: Samples, *, clients: int, seed: int) -> Ragged:
        """Deal the samples and meet ``min_size``.

        Parameters
        ----------
        samples : Samples
            N samples.
        clients : int
            Number of clients, >= 1.
        seed : int
            The run's seed.

        Returns
        -------
        Ragged
            Sample indices of every client, ascending; no sample twice.

        Raises
        ------
        ConfigError
            If there are not enough samples.
        """
        random = generator(seed, "partition")
        owners = self.owners(samples, clients=clients, random=random)
        owners = self.repair(owners, samples, clients=clients, random=random)
        return Ragged.from_owners(owners, clients)

    def repair(
        self, owners: Indices, samples: Samples, *, clients: int, random: np.random.Generator
    ) -> Indices:
        """Meet ``min_size`` by moving samples; a rule that must not mix origins replaces this."""
        return even_out(owners, clients=clients, min_size=self.min_size, random=random)

    def names_of(self, shards: Ragged, samples: Samples) -> tuple[str, ...]:
        """Return the names of the clients, for rules whose clients have some; others have none.

        Parameters
        ----------
        shards : Ragged
            The samples of every client, as this rule dealt them.
        samples : Samples
            The training set.
        """
        return ()
