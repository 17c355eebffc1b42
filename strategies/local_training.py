"""Local training: the server sends nothing and gets nothing but metrics."""

from collections.abc import Iterable
from typing import ClassVar

from flwr.app import Message

from fedlabels.rounds.job import Arrays
from strategies.base import MODEL_KEPT, CohortStrategy, Outcome


class LocalTraining(CohortStrategy):
    """No federation: clients train by themselves, the lower reference of personal models."""

    needs = {}  # noqa: RUF012 - never changed
    any_architecture: ClassVar[bool] = True
    has_model: ClassVar[bool] = False

    def initial(self, model: Arrays) -> Arrays:
        """Return no arrays."""
        return {}

    def train_outcome(self, round_index: int, replies: Iterable[Message]) -> Outcome:
        """Merge metrics; there is no model that could have been kept."""
        outcome = super().train_outcome(round_index, replies)
        outcome.metrics.pop(MODEL_KEPT, None)
        return outcome
