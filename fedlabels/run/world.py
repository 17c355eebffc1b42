"""What is run, before anything runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedlabels.cohort import Client, Layout
from fedlabels.data import DataSource
from fedlabels.federation import Federation
from fedlabels.strategies.base import ServerStrategy
from fedlabels.worker.evaluation import MOST_PROBABILITIES
from fedlabels.worker.population import Population


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
