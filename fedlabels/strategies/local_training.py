"""Local training: the server sends nothing and gets nothing but metrics."""

from typing import ClassVar

from fedlabels.rounds.job import Arrays
from fedlabels.strategies.base import CohortStrategy, Merged
from fedlabels.strategies.support import Collected


class LocalTraining(CohortStrategy):
    """No federation: clients train by themselves, the lower reference of personal models."""

    needs = {}  # noqa: RUF012 - never changed
    any_architecture: ClassVar[bool] = True
    has_model: ClassVar[bool] = False

    def initial(self, model: Arrays) -> Arrays:
        """Return no arrays."""
        return {}

    def merge(self, round_index: int, collected: Collected, server: Arrays) -> Merged:
        """Merge nothing: there is no model that could be kept."""
        return Merged({})
