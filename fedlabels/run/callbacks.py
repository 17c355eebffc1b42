"""What is called while a run goes on."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from fedlabels.run.folder import RunFolder

LOG = logging.getLogger(__name__)


class Callback(Protocol):
    """Hooks of a run; each is called with keywords."""

    def on_run_start(self, *, folder: RunFolder, config: Mapping[str, Any]) -> None:
        """Before the first round of this process; ``folder`` has the rows of earlier rounds."""

    def on_round_end(self, *, record: Mapping[str, Any]) -> bool:
        """After a round, with its row of rounds.csv; True stops the run."""

    def on_run_end(self, *, folder: RunFolder) -> None:
        """After the last round, before the report is written."""


@dataclass
class EarlyStop:
    """Stops a run by its test accuracy.

    Parameters
    ----------
    target : float or None
        Stop as soon as it is reached.
    patience : int or None
        Stop after so many evaluations in a row without a new best.
    """

    target: float | None = None
    patience: int | None = None
    _best: float = -1.0
    _waited: int = 0

    def on_run_start(self, *, folder: RunFolder, config: Mapping[str, Any]) -> None:
        """Take up what earlier rounds of a resumed run have seen."""
        for row in folder.rounds.rows():
            if row.get("test_accuracy"):
                self._see(float(row["test_accuracy"]))

    def on_round_end(self, *, record: Mapping[str, Any]) -> bool:
        """Return whether to stop."""
        accuracy = record.get("test_accuracy")
        if accuracy is None:
            return False
        self._see(float(accuracy))
        reached = self.target is not None and accuracy >= self.target
        tired = self.patience is not None and self._waited >= self.patience
        if reached or tired:
            LOG.info("early stop in round %s: best accuracy %.4f", record["round"], self._best)
        return reached or tired

    def on_run_end(self, *, folder: RunFolder) -> None:
        """Do nothing."""

    def _see(self, accuracy: float) -> None:
        self._waited = 0 if accuracy > self._best else self._waited + 1
        self._best = max(self._best, accuracy)
