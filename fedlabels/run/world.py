"""What is run, before anything runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedlabels.cohort import Client, Layout
from fedlabels.data import DataSource
from fedlabels.federation import Federation
from fedlabels.rounds.job import Arrays
from fedlabels.strategies.base import ServerStrategy
from fedlabels.worker.evaluation import MOST_PROBABILITIES
from fedlabels.worker.population import Population


@dataclass(frozen=True)
class Start:
    """What a run's model begins from.

    Parameters
    ----------
    arrays : dict of str to ndarray
        Tensors that the model takes over.
    sha256 : str
        Of all that was read.
    notes : tuple of str
        What is new in the model, and what of the tensors is no part of it.
    read : dict of str to ndarray
        All that was read.
    """

    arrays: Arrays
    sha256: str
    notes: tuple[str, ...]
    read: Arrays


@dataclass(frozen=True)
class World:
    """What is simulated, before anything runs."""

    source: DataSource
    federation: Federation
    population: Population
    client: Client
    strategy: ServerStrategy
    layout: Layout
    feature_dim: int
    view_options: Mapping[str, Any] = field(default_factory=dict)
    start: Start | None = None

    @property
    def tests_model(self) -> bool:
        """Whether there is a global model, and a test sample of known class to test it on."""
        return self.strategy.has_model and bool((self.source.test.y >= 0).any())

    @property
    def tests_ranking(self) -> bool:
        """Whether the test of the global model tells an AUC: from two classes on."""
        test = self.source.test
        classes = np.unique(test.y[test.y >= 0])
        few = len(test.y) * test.num_classes <= MOST_PROBABILITIES
        return self.tests_model and few and len(classes) > 1
