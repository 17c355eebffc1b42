"""The round loop: round after round, checkpoints between them, an orderly end in every case."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fedlabels.cohort.clock import phase
from fedlabels.cohort.types import EMPTY
from fedlabels.machine.blas import one_blas_thread
from fedlabels.rounds import wire
from fedlabels.run.callbacks import Callback, Closing
from fedlabels.run.console import Console
from fedlabels.run.described import describe
from fedlabels.run.early_stop import BY_CALLBACK, EarlyStop, still_stopped
from fedlabels.run.ending import tried
from fedlabels.run.failures import Losses, check_losses
from fedlabels.run.folder import RunFolder
from fedlabels.run.folder.checkpoint import Checkpoint
from fedlabels.run.folder.records import record_of
from fedlabels.run.manifest import Manifest
from fedlabels.run.place import Place, Simulated, server_of
from fedlabels.run.round import Rounds
from fedlabels.run.saving import RunState, Saver
from fedlabels.run.signals import undisturbed
from fedlabels.run.world import World
from fedlabels.settings.hashing import config_hash
from fedlabels.simulation.backend import SimulationBackend
from fedlabels.strategies.support.contract import State

Settings = Mapping[str, Any]


class Loop:
    """One run of one setting.

    Parameters
    ----------
    config : mapping
        Resolved settings.
    world : World
        Data, federation, population, strategy.
    folder : RunFolder
        Where everything is written.
    console : Console
        What the user sees.
    checkpoint : Checkpoint or None
        Where to go on from.
    callbacks : sequence of Callback
        Called after every round.
    facts : mapping
        Further values of the manifest, such as the command.
    place : Place or None
        Where the clients are; None simulates them.
    early_stop : EarlyStop or None
        With the checkpoint's state; None never stops.
    """

    def __init__(
        self,
        config: Settings,
        world: World,
        folder: RunFolder,
        console: Console,
        checkpoint: Checkpoint | None = None,
        callbacks: Sequence[Callback] = (),
        facts: Settings = EMPTY,
        place: Place | None = None,
        early_stop: EarlyStop | None = None,
    ) -> None:
        self._config, self._world, self._folder, self._console = config, world, folder, console
        self._checkpoint, self._callbacks = checkpoint, list(callbacks)
        self._place = Simulated(config, world) if place is None else place
        self._early_stop = EarlyStop() if early_stop is None else early_stop
        self._manifest = Manifest(config, world, folder, facts, checkpoint)
        self._saver = Saver(
            config, world.federation.hash, folder, self._place, self._manifest,
            describe(config, world), checkpoint.round if checkpoint else -1,
        )  # fmt: skip
        self._state: RunState | None = None

    @one_blas_thread()
    def run(self) -> dict[str, Any]:
        """Run to the end and return the last round's record.

        A run whose rounds are all done, but whose end was killed, is ended: nothing is computed.

        Raises
        ------
        RunError
            If all sampled clients failed, or more than ``max_client_failures``; a checkpoint of
            the last good round is written before.
        DiskError
            If a file cannot be written; a checkpoint is tried all the same.
        KeyboardInterrupt
            At Ctrl-C, SIGTERM or SIGHUP in a block of `terminable`, after a checkpoint was written.
        """
        if self._checkpoint is not None and (ended := self._ended(self._checkpoint)) is not None:
            return self._conclude(ended, self._checkpoint)
        committed = self._checkpoint.round if self._checkpoint else 0
        states = self._checkpoint.states if self._checkpoint else None
        backend = self._place.start(self._folder, committed, states)
        record: dict[str, Any] = {}
        first: BaseException | None = None
        try:
            self._announce()  # only now: a folder in which nothing could start holds no run
            record = self._rounds(backend, self._start(backend))
        except BaseException as error:
            first = error
        with undisturbed():  # a signal must not leave half a checkpoint, or workers
            self._console.finish()
            first = self._end(backend, first, committed)
            if first is not None:
                raise first
        return record

    def _announce(self) -> None:
        self._manifest.announce(self._console, dealt=self._place.dealt)

    def _start(self, backend: SimulationBackend) -> RunState:
        """Tell the strategy of its run; return where the run begins or goes on."""
        strategy, world = self._world.strategy, self._world
        strategy.bind(server_of(self._config, world, self._place))
        initial = strategy.initial(backend.initial())
        self._folder.update_manifest(
            num_parameters=int(sum(v.size for v in initial.values() if v.dtype.kind == "f"))
        )
        if self._checkpoint is None:
            return RunState(0, wire.to_record(initial), strategy.state())
        state = self._restored(self._checkpoint)
        strategy.load_state(state.strategy)
        return state

    def _restored(self, checkpoint: Checkpoint, stopped: str | None = None) -> RunState:
        """Return how far the run was when a checkpoint of it was written."""
        lost = checkpoint.manifest.get("lost", (0, checkpoint.round > 0))
        return RunState(
            checkpoint.round,
            wire.to_record(checkpoint.arrays),
            State(checkpoint.strategy_arrays, checkpoint.strategy_values),
            self._early_stop.state(),
            stopped,
            Losses(*lost),
        )

    def _rounds(self, backend: SimulationBackend, state: RunState) -> dict[str, Any]:
        """Run all rounds that follow; return the last one's record."""
        strategy, last = self._world.strategy, self._config["rounds"]
        grid = self._place.grid(self._folder, backend)
        grid.needs, grid.reduces = strategy.needs, strategy.reduces
        rounds = Rounds(
            self._config, self._world, self._place, self._folder, self._console, self._callbacks,
            self._early_stop, backend, grid,
        )  # fmt: skip
        for callback in self._callbacks:
            callback.on_run_start(folder=self._folder, config=self._config)
        self._console.start(last, done=state.round)
        self._state = state
        record: Mapping[str, Any] = {}
        for index in range(state.round + 1, last + 1):
            finished = rounds.run(index, state.arrays, self._saver.resumable)
            record, losses = finished.record, state.losses.then(finished.lost)
            # first: what ends a run is run again when it is resumed
            check_losses(
                losses, self._place, self._folder, index, finished.clients, last=index == last
            )
            tested = (index, finished.evaluation) if finished.evaluation else state.tested
            # one assignment: an interrupt finds the old round or the new one, never a mixture
            self._state = state = RunState(
                index, finished.arrays, strategy.state(), self._early_stop.state(),
                self._early_stop.reason(), losses, tested,
            )  # fmt: skip
            stops = [callback.on_round_end(record=record) for callback in self._callbacks]
            if any(stops) and state.stopped is None:
                self._state = state = replace(state, stopped=BY_CALLBACK)
            if index % self._config["checkpoint_every"] == 0:
                with phase("write"):
                    self._saver.save(state, backend)
            self._console.round(record)
            for callback in self._callbacks:
                if isinstance(callback, Closing):
                    callback.on_round_closed(record=record)
            if state.stopped is not None:
                break
        for callback in self._callbacks:
            callback.on_run_end(folder=self._folder)
        return dict(record)

    def _end(
        self, backend: SimulationBackend, first: BaseException | None, committed: int
    ) -> BaseException | None:
        """Save, stop the workers, say how the run ended; return what went wrong first."""
        state = self._state

        def save() -> None:
            if state is not None:
                self._saver.save(state, backend)

        for step in (save, backend.close):  # a full disk must not leave workers behind
            first = tried(step, first)
        facts = {
            "rounds_done": state.round if state else committed,
            "stopped_early": state.early_end(self._config["rounds"]) if state else None,
            "execution": backend.executions(),
        }
        return tried(lambda: self._manifest.end(first, **facts), first)

    def _ended(self, checkpoint: Checkpoint) -> RunState | None:
        """Return the state of a run without a further round; None if one follows."""
        stopped = still_stopped(self._early_stop, checkpoint.manifest, self._config["rounds"])
        if stopped is None and checkpoint.round < self._config["rounds"]:
            return None
        return self._restored(checkpoint, stopped)

    def _conclude(self, state: RunState, checkpoint: Checkpoint) -> dict[str, Any]:
        """Do what comes after the last round; it may have been done in part, or wholly."""
        saved = checkpoint.manifest
        facts = {
            "rounds_done": state.round,
            "stopped_early": state.early_end(self._config["rounds"]),
            **{name: saved[name] for name in ("execution",) if name in saved},
        }

        def close() -> None:
            self._announce()
            for callback in self._callbacks:
                callback.on_run_start(folder=self._folder, config=self._config)
            for callback in self._callbacks:
                callback.on_run_end(folder=self._folder)
            self._saver.write_model(state.round, wire.from_record(state.arrays))
            if checkpoint.states is not None and saved["config_hash"] != config_hash(self._config):
                # something may differ, but all files of a run name one setting
                self._saver.write(state, checkpoint.states, saved.get("execution"))

        with undisturbed():
            first = tried(close, None)
            first = tried(lambda: self._manifest.end(first, **facts), first)
            if first is not None:
                raise first
        return record_of([*self._folder.rounds.rows()][-1])
