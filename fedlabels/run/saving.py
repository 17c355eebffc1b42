"""How far a run has come, and the checkpoints that are written of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import ArrayRecord

from fedlabels.cohort.types import EMPTY
from fedlabels.models.description import Description
from fedlabels.rounds import wire
from fedlabels.rounds.job import Arrays
from fedlabels.run.described import at_round, header_of, write_described
from fedlabels.run.failures import Losses
from fedlabels.run.folder import RunFolder
from fedlabels.run.folder.checkpoint import write_checkpoint
from fedlabels.run.manifest import Manifest, own_settings
from fedlabels.run.place import Place
from fedlabels.settings.hashing import flatten
from fedlabels.simulation.backend import SimulationBackend
from fedlabels.strategies.support.contract import State
from fedlabels.worker.evaluation import Evaluation
from fedlabels.worker.state import Version


@dataclass(frozen=True)
class RunState:
    """The state after a finished round: all that a checkpoint needs.

    Parameters
    ----------
    round : int
        The round, 0 before the first.
    arrays : ArrayRecord
        The global model.
    strategy : State
        What the strategy keeps.
    early_stop : mapping
        What the early stop has seen.
    stopped : str or None
        Why no further round follows; None if one does.
    losses : Losses
        Rounds that came to nothing.
    tested : tuple of int and Evaluation, or None
        The last evaluation of this process, and its round.
    """

    round: int
    arrays: ArrayRecord
    strategy: State
    early_stop: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    stopped: str | None = None
    losses: Losses = field(default_factory=Losses)
    tested: tuple[int, Evaluation] | None = None

    def early_end(self, rounds: int) -> dict[str, Any] | None:
        """Return what the manifest says of a run that ended before its planned rounds."""
        if self.stopped is None or self.round >= rounds:
            return None
        return {"round": self.round, "reason": self.stopped}


@dataclass
class Saver:
    """Writes a run's checkpoints, and its newest model alone.

    Parameters
    ----------
    config, federation_hash : mapping and str
        Resolved settings, and who holds what.
    folder : RunFolder
        Where it is written.
    place, manifest : Place and Manifest
        What they know of the clients and of the run is kept, too.
    description : Description
        Of the model, whatever the round.
    last : int
        Round of the newest checkpoint; -1 without one.
    resumable : int
        Oldest round that a resume may go back to.
    """

    config: Mapping[str, Any]
    federation_hash: str
    folder: RunFolder
    place: Place
    manifest: Manifest
    description: Description
    last: int
    resumable: int = 0

    def save(self, state: RunState, backend: SimulationBackend) -> None:
        """Write the checkpoint of a finished round, once, and the model alone."""
        if state.round == self.last:
            return
        backend.sync()
        self.folder.sync()
        self.write(state, backend.versions(state.round), backend.executions())
        # two checkpoints are kept: a resume may start from the one before
        self.resumable, self.last = max(self.last, 0), state.round
        backend.prune(self.resumable, self.last)

    def write(self, state: RunState, states: Mapping[int, Version], execution: Any) -> None:
        """Write a checkpoint, whether or not there is one of its round, model and last test.

        Parameters
        ----------
        state : RunState
            After the round.
        states : mapping of int to Version
            What the clients keep.
        execution : JSON value
            How they ran.
        """
        arrays = wire.from_record(state.arrays)
        facts = self.manifest.facts
        values = {
            "config": flatten(own_settings(self.config)),
            "federation_hash": self.federation_hash,
            "seconds": self.manifest.seconds(),
            **self.place.kept(),
            **{key: facts[key] for key in ("code", "content") if key in facts},
            "early_stop": state.early_stop,
            "stopped_early": state.stopped,
            "execution": execution,
            "lost": [state.losses.in_a_row, state.losses.any_useful],
        }
        if state.tested is not None:  # before the checkpoint, which says that the round is done
            wanted = self.config.get("predictions", True)
            self.folder.last_test.write(*state.tested, predictions=wanted)
        strategy = state.strategy.arrays, state.strategy.values
        described = at_round(self.description, state.round, arrays)
        write_checkpoint(
            self.folder.path, state.round, arrays, strategy, values,
            states=states, header=header_of(described),
        )  # fmt: skip
        write_described(self.folder, arrays, described)

    def write_model(self, index: int, arrays: Arrays) -> None:
        """Write the model after a round alone, with its description."""
        write_described(self.folder, arrays, at_round(self.description, index, arrays))
