"""What the servers of prototype methods have in common: tables of vectors instead of a model."""

from collections.abc import Iterable, Mapping
from typing import ClassVar

import numpy as np
import torch
from flwr.app import Message
from numpy.typing import DTypeLike

from fedlabels.aggregation import Prototypes, mean_of_sums
from fedlabels.errors import ConfigError
from fedlabels.losses import gap
from fedlabels.rounds.job import Arrays, Need
from fedlabels.strategies.base import CohortStrategy, Outcome
from fedlabels.strategies.support import Collected, one_thread

PROTOTYPES, VECTORS, PRESENT = "prototypes", "vectors", "present"


class PrototypeStrategy(CohortStrategy):
    """A server that gets one vector a class from every client, and has no model.

    Subclasses override ``initial`` and ``merge``. The clients' term ``"prototypes"`` has the
    tensors ``vectors`` (classes, width), weighted class by class, and ``present`` (classes,).
    """

    needs: Mapping[str, Need] = {PROTOTYPES: "sum"}
    any_architecture: ClassVar[bool] = True
    same_features: ClassVar[bool] = True
    has_model: ClassVar[bool] = False
    dtype: DTypeLike = np.float32

    def shape(self) -> tuple[int, int]:
        """Return classes and width of the tables.

        Raises
        ------
        ConfigError
            If the run does not say them.
        """
        classes, width = self.server.num_classes, self.server.feature_dim
        if classes < 2 or width < 1:
            raise ConfigError(
                f"prototypes need at least 2 classes and features, got {classes} classes and "
                f"feature_dim {width}: bind the strategy to a run that knows both"
            )
        return classes, width

    def prepare(self, model: Arrays) -> tuple[int, int]:
        """Take the floating-point type of the models, and return classes and width."""
        floats = [value.dtype for value in model.values() if value.dtype.kind == "f"]
        self.dtype = floats[0] if floats else np.dtype(np.float32)
        return self.shape()

    def expected(self, term: str) -> Arrays | None:
        """Return what a device's prototypes must look like."""
        if term != PROTOTYPES or not self.server.feature_dim:
            return None
        classes, width = self.shape()
        return {
            VECTORS: np.zeros((classes, width), self.dtype),
            PRESENT: np.zeros(classes, self.dtype),
        }

    def train_outcome(self, round_index: int, replies: Iterable[Message]) -> Outcome:
        """Aggregate, torch on one thread."""
        with one_thread():
            return super().train_outcome(round_index, replies)

    def table(self, prototypes: Prototypes) -> Arrays:
        """Return prototypes as they are sent."""
        return {
            VECTORS: prototypes.vectors.astype(self.dtype),
            PRESENT: prototypes.present.astype(self.dtype),
        }


def no_prototypes(classes: int, width: int) -> Prototypes:
    """Return a table in which no class is present."""
    return Prototypes(np.zeros((classes, width)), np.zeros(classes, dtype=bool))


def mean_prototypes(collected: Collected) -> Prototypes | None:
    """Return the weighted mean of what the clients sent (S8, P2), None when nobody sent any."""
    term = collected.usable(PROTOTYPES)
    if term is None or not isinstance(term.weight, dict):
        return None
    return mean_of_sums(term.total[VECTORS], term.weight[VECTORS])


def gap_of(prototypes: Prototypes) -> float:
    """Return the mean distance to the nearest other vector; -inf for fewer than two."""
    vectors, present = torch.from_numpy(prototypes.vectors), torch.from_numpy(prototypes.present)
    return float(gap(vectors, present))


def spread_figures(prototypes: Prototypes) -> dict[str, float]:
    """Return what is worth knowing of global prototypes: how many, and how far apart."""
    return {
        "classes_with_prototype": float(prototypes.present.sum()),
        "gap_prototypes": gap_of(prototypes),
    }
