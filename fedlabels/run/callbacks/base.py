"""What is called while a run goes on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from fedlabels.rounds.job import Arrays, EachTerm
from fedlabels.run.folder import RunFolder
from fedlabels.simulation.backend import SimulationBackend


class Callback(Protocol):
    """Hooks of a run; each is called with keywords."""

    def on_run_start(self, *, folder: RunFolder, config: Mapping[str, Any]) -> None:
        """Before the first round of this process; ``folder`` has the rows of earlier rounds."""

    def on_round_end(self, *, record: Mapping[str, Any]) -> bool:
        """After a round, with its row of rounds.csv; True stops the run.

        The answer is part of the round's checkpoint, which is written after it.
        """

    def on_run_end(self, *, folder: RunFolder) -> None:
        """After the last round, before the report is written.

        Again when a run that was killed since then is resumed, so it must not matter how often.
        """


@runtime_checkable
class Closing(Protocol):
    """What a callback has, too, when it comes after all else of a round."""

    def on_round_closed(self, *, record: Mapping[str, Any]) -> None:
        """After the other callbacks, the checkpoint and what is shown of a round."""


@dataclass(frozen=True)
class MeasuredRound:
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

    def measure(self, finished: MeasuredRound) -> Mapping[str, float]:
        """Return figures for the round's row of rounds.csv, by column."""
