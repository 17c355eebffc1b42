"""What is called while a run goes on."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from fedlabels.run.folder import RunFolder
from fedlabels.simulation.backend import SimulationBackend
from fedlabels.simulation.job import Arrays, EachTerm

LOG = logging.getLogger(__name__)


class Callback(Protocol):
    """Hooks of a run; each is called with keywords."""

    def on_run_start(self, *, folder: RunFolder, config: Mapping[str, Any]) -> None:
        """Before the first round of this process; ``folder`` has the rows of earlier rounds."""

    def on_round_end(self, *, record: Mapping[str, Any]) -> bool:
        """After a round, with its row of rounds.csv; True stops the run."""

    def on_run_end(self, *, folder: RunFolder) -> None:
        """After the last round, before the report is written."""


@dataclass(frozen=True)
class Seen:
    """A round whose row is not written yet: what further figures can be made of.

    Parameters
    ----------
    round, rounds : int
        Which, from 1, and how many are planned.
    arrays : Arrays
        The new global model.
    models : EachTerm or None
        The models w_i of the clients that count, whole; None when there is none.
    private : frozenset of str
        Names of the tensors that a client keeps for itself: the global model's are not in use.
    backend : SimulationBackend
        Runs further exchanges; they change nothing of the run.
    """

    round: int
    rounds: int
    arrays: Arrays
    models: EachTerm | None
    private: frozenset[str]
    backend: SimulationBackend


@runtime_checkable
class Measure(Protocol):
    """What a callback has, too, when it adds figures to the rows of some rounds."""

    def wants(self, index: int, rounds: int) -> bool:
        """Say whether a round is measured; the clients' models are then kept."""

    def measure(self, seen: Seen) -> Mapping[str, float]:
        """Return figures for the round's row of rounds.csv, by column."""


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
