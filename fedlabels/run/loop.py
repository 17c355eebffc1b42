"""The round loop: exchanges, evaluation, tables, checkpoints, and an orderly end in every case."""

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import yaml
from flwr.app import ArrayRecord

from fedlabels.cohort.clock import phase, whole
from fedlabels.cohort.types import EMPTY
from fedlabels.errors import RunError
from fedlabels.machine.blas import one_blas_thread
from fedlabels.machine.kernels import hardware
from fedlabels.rounds import wire
from fedlabels.rounds.grid import RoundGrid
from fedlabels.rounds.job import Arrays, ClientRow, EachTerm, Job, Task
from fedlabels.run.agreement import check_messages
from fedlabels.run.callbacks import Callback, Closing, Measure, Seen
from fedlabels.run.code import package_versions
from fedlabels.run.console import Console
from fedlabels.run.data import sample_of
from fedlabels.run.early_stop import BY_CALLBACK, EarlyStop, still_stopped
from fedlabels.run.ending import status_of, tried
from fedlabels.run.folder import RunFolder
from fedlabels.run.folder.checkpoint import Checkpoint, write_checkpoint, write_model
from fedlabels.run.folder.records import made_record, record_of, tested_by
from fedlabels.run.kernels import warnings_of
from fedlabels.run.merged import aggregated
from fedlabels.run.notes import lost_tests, odd
from fedlabels.run.place import Begin, Place, Simulated, usable
from fedlabels.run.setup import World
from fedlabels.run.signals import undisturbed
from fedlabels.settings.hashing import config_hash, flatten, schedule_of
from fedlabels.simulation.backend import SimulationBackend
from fedlabels.worker.evaluation import Evaluation
from fedlabels.worker.personal import personal
from fedlabels.worker.state import Version
from strategies.base import MODEL_REFUSED
from strategies.support.contract import Server, State

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Done:
    """The state after a finished round: all that a checkpoint needs."""

    round: int
    arrays: ArrayRecord
    strategy: State
    early_stop: Mapping[str, Any] = field(default_factory=dict)
    stopped: str | None = None  # why no further round follows
    lost: tuple[int, bool] = (0, False)  # rounds without use up to here, and if any was of use


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
        self._checkpoint, self._callbacks, self._facts = checkpoint, list(callbacks), facts
        self._place = Simulated(config, world) if place is None else place
        self._early_stop = EarlyStop() if early_stop is None else early_stop
        self._first = checkpoint.round + 1 if checkpoint else 1
        self._saved = checkpoint.round if checkpoint else -1
        self._resumable = 0
        self._began, self._since = time.time(), time.monotonic()
        self._last: Evaluation | None = None
        self._personal: list[dict[str, Any]] = []
        self._done: Done | None = None
        # rounds without a usable reply or a new model, one after the other; and if any was of use
        known = checkpoint.manifest if checkpoint else EMPTY
        self._lost, self._useful = known.get("lost", (0, self._first > 1))

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
        self._began, self._since = time.time(), time.monotonic()
        if (ended := self._ended()) is not None:
            return self._conclude(ended)
        states = self._checkpoint.states if self._checkpoint else None
        backend = self._place.start(self._folder, self._first - 1, states)
        record: dict[str, Any] = {}
        first: BaseException | None = None
        try:
            self._announce()  # only now: a folder in which nothing could start holds no run
            record = self._rounds(backend, self._start(backend))
        except BaseException as error:
            first = error
        with undisturbed():  # a signal must not leave half a checkpoint, or workers
            self._console.finish()
            first = self._end(backend, first)
            if first is not None:
                raise first
        return record

    def _end(self, backend: SimulationBackend, first: BaseException | None) -> BaseException | None:
        """Save, stop the workers, say how the run ended; return what went wrong first."""
        done = self._done

        def save() -> None:
            if done is not None:
                self._save(backend, done)

        for step in (save, backend.close):  # a full disk must not leave workers behind
            first = tried(step, first)
        told = {
            "rounds_done": done.round if done else self._first - 1,
            "stopped_early": self._stopped_early(done),
            "execution": backend.executions(),
        }
        return tried(lambda: self._tell(status_of(first), **told), first)

    def _ended(self) -> Done | None:
        """Return the state of a run without a further round; None if one follows."""
        last = self._checkpoint
        if last is None:
            return None
        stopped = still_stopped(self._early_stop, last.manifest, self._config["rounds"])
        if stopped is None and last.round < self._config["rounds"]:
            return None
        state = State(last.strategy_arrays, last.strategy_values)
        return Done(
            last.round, wire.to_record(last.arrays), state, self._early_stop.state(), stopped,
            (self._lost, self._useful),
        )  # fmt: skip

    def _conclude(self, done: Done) -> dict[str, Any]:
        """Do what comes after the last round; it may have been done in part, or wholly."""
        assert self._checkpoint is not None
        last, saved = self._checkpoint, self._checkpoint.manifest
        told = {
            "rounds_done": done.round,
            "stopped_early": self._stopped_early(done),
            **{name: saved[name] for name in ("execution",) if name in saved},
        }

        def close() -> None:
            self._close(done)
            if last.states is not None and saved["config_hash"] != config_hash(self._config):
                # something may differ, but all files of a run name one setting
                self._keep(done, last.states, saved.get("execution"))

        with undisturbed():
            first = tried(close, None)
            first = tried(lambda: self._tell(status_of(first), **told), first)
            if first is not None:
                raise first
        return record_of([*self._folder.rounds.rows()][-1])

    def _close(self, done: Done) -> None:
        self._announce()
        for callback in self._callbacks:
            callback.on_run_start(folder=self._folder, config=self._config)
        for callback in self._callbacks:
            callback.on_run_end(folder=self._folder)
        write_model(self._folder.model, wire.from_record(done.arrays))

    def _tell(self, status: str, **values: Any) -> None:
        if status == "finished":
            # one of fewer rounds: whoever finds a finished run without a report writes it
            self._folder.remove_report()
        self._folder.update_manifest(
            status=status, finished=time.time(), seconds=self._seconds(), **values
        )

    def _stopped_early(self, done: Done | None) -> dict[str, Any] | None:
        if done is None or done.stopped is None or done.round >= self._config["rounds"]:
            return None
        return {"round": done.round, "reason": done.stopped}

    def _seconds(self) -> float:
        """Return the seconds that this process and those before it took."""
        before = self._checkpoint.manifest.get("seconds", 0.0) if self._checkpoint else 0.0
        return float(before) + time.monotonic() - self._since

    def _announce(self) -> None:
        config = {k: v for k, v in self._config.items() if k != "resume"}
        self._folder.write_config(yaml.safe_dump(config, sort_keys=False))
        if self._place.dealt:
            self._world.federation.save(self._folder.federation)
        source, saved = self._world.source, self._folder.read_manifest()
        known, before = saved.get("run_id"), saved.get("hardware") if self._checkpoint else None
        now = hardware(self._config["backend"]["threads"])
        notes = odd(self._world, dealt=self._place.dealt)
        notes += warnings_of(self._config, before or {}, now)
        self._console.note(*(f"! {note}" for note in notes))
        self._folder.update_manifest(
            run_id=known or secrets.token_hex(8),  # what devices keep belongs to a run
            name=self._config["name"],
            seed=self._config["seed"],
            status="running",
            started=self._began,
            stopped_early=None,
            package=package_versions(),
            hardware=now,
            config_hash=config_hash(config),
            federation_hash=self._world.federation.hash,
            class_names=list(source.train.class_names),
            dataset=source.train.name,
            sample=sample_of(source.train),
            view_options=dict(self._world.view_options),
            notes=notes,
            **{"method": self._config["client"]["name"], **self._facts},
        )

    def _start(self, backend: SimulationBackend) -> Done:
        strategy = self._world.strategy
        strategy.bind(
            Server(
                seed=self._config["seed"],
                rounds=schedule_of(self._config),
                clients_per_round=self._config["per_round"],
                min_clients=self._place.min_clients,
                deadline_seconds=self._place.deadline_seconds,
                client_of=self._place.client_of,
                private=self._world.client.private(self._world.layout),
                buffers=self._world.layout.names(role="buffer"),
                layout=self._world.layout,
                num_classes=self._world.source.train.num_classes,
                feature_dim=self._world.feature_dim,
            )
        )
        initial = strategy.initial(backend.initial())
        self._folder.update_manifest(
            num_parameters=int(sum(v.size for v in initial.values() if v.dtype.kind == "f"))
        )
        if self._checkpoint is None:
            return Done(0, wire.to_record(initial), strategy.state())
        state = State(self._checkpoint.strategy_arrays, self._checkpoint.strategy_values)
        strategy.load_state(state)
        return Done(
            self._checkpoint.round, wire.to_record(self._checkpoint.arrays), state,
            self._early_stop.state(),
        )  # fmt: skip

    def _rounds(self, backend: SimulationBackend, done: Done) -> dict[str, Any]:
        grid = self._place.grid(self._folder, backend)
        grid.needs, grid.reduces = self._world.strategy.needs, self._world.strategy.reduces
        for callback in self._callbacks:
            callback.on_run_start(folder=self._folder, config=self._config)
        self._console.start(self._config["rounds"], done=done.round)
        self._done = done
        record: dict[str, Any] = {}
        for index in range(self._first, self._config["rounds"] + 1):
            arrays, record, rows = self._round(grid, backend, index, done.arrays)
            with phase("write"):
                self._write(index, record, rows)
            self._check_lost(index, rows)  # first: what ends a run is run again when it is resumed
            # one assignment: an interrupt finds the old round or the new one, never a mixture
            self._done = done = Done(
                index, arrays, self._world.strategy.state(), self._early_stop.state(),
                self._early_stop.reason(), (self._lost, self._useful),
            )  # fmt: skip
            stops = [callback.on_round_end(record=record) for callback in self._callbacks]
            if any(stops) and done.stopped is None:
                self._done = done = replace(done, stopped=BY_CALLBACK)
            if index % self._config["checkpoint_every"] == 0:
                with phase("write"):
                    self._save(backend, done)
            self._console.round(record)
            for callback in self._callbacks:
                if isinstance(callback, Closing):
                    callback.on_round_closed(record=record)
            if done.stopped is not None:
                break
        for callback in self._callbacks:
            callback.on_run_end(folder=self._folder)
        return record

    def _round(
        self, grid: RoundGrid, backend: SimulationBackend, index: int, arrays: ArrayRecord
    ) -> tuple[ArrayRecord, dict[str, Any], list[ClientRow]]:
        began = time.perf_counter()
        strategy, rows = self._world.strategy, list[ClientRow]()
        metrics: dict[str, float] = {}
        weight = 0.0
        measures = self._measures(index)
        grid.keep, models = ((wire.MODEL,) if measures else ()), None
        evaluates = index % self._config["evaluate_every"] == 0 or index == self._config["rounds"]
        tested = strategy.shared("evaluate", index - 1) if evaluates else EMPTY
        self._place.begin(Begin(index, evaluates, self._resumable, tested))
        for exchange in strategy.exchanges(index):
            with phase("configure"):
                messages = list(strategy.configure(exchange, index, arrays, grid))
            check_messages(messages, self._world.client, self._config["deploy"]["mods"])
            replies = grid.send_and_receive(messages)
            made = [row for result in grid.last for row in result.rows]
            self._check_failures(index, exchange, made)
            rows += made
            with phase("aggregate"):
                outcome = aggregated(strategy, exchange, index, replies)
            arrays = outcome.arrays if outcome.arrays is not None else arrays
            metrics.update(outcome.metrics)
            weight = outcome.weight or weight
            models = grid.kept.get(wire.MODEL, models)
        trained = time.perf_counter()
        self._count_lost(index, rows, metrics)
        record = made_record(index, rows, weight, metrics)
        if evaluates:
            with whole("evaluate"):
                figures = self._evaluate(backend, index, wire.from_record(arrays))
                record |= figures
                self._early_stop.see(index, figures)
                last = index == self._config["rounds"] or self._early_stop.reason() is not None
                if self._place.asks_at_the_end and last:
                    record |= self._ask_clients(grid, index, arrays)
        ended = time.perf_counter()
        record["seconds_train"], record["seconds_evaluate"] = trained - began, ended - trained
        for measure in measures:
            record |= measure.measure(self._seen(backend, index, arrays, models))
        record["seconds_total"] = time.perf_counter() - began
        return arrays, record, rows

    def _measures(self, index: int) -> list[Measure]:
        """Return the callbacks that add figures to a round's row."""
        able = [callback for callback in self._callbacks if isinstance(callback, Measure)]
        return [one for one in able if one.wants(index, self._config["rounds"])]

    def _seen(
        self, backend: SimulationBackend, index: int, arrays: ArrayRecord, models: EachTerm | None
    ) -> Seen:
        private = self._world.client.private(self._world.layout)
        rounds, whole = self._config["rounds"], wire.from_record(arrays)
        return Seen(index, rounds, whole, models, private, backend)

    def _evaluate(self, backend: SimulationBackend, index: int, arrays: Arrays) -> dict[str, float]:
        """Test the global model, and every client's own where that is asked for."""
        figures: dict[str, float] = {}
        self._last, self._personal = None, []
        if self._world.strategy.has_model and (self._world.source.test.y >= 0).any():
            self._last = backend.evaluate(arrays)
            figures = {"test_loss": self._last.loss, "test_accuracy": self._last.accuracy}
            figures |= self._last.parts
        if self._place.evaluates_clients():
            figures |= self._evaluate_clients(backend, index, arrays)
        return figures

    def _ask_clients(self, grid: RoundGrid, index: int, arrays: ArrayRecord) -> dict[str, float]:
        """Let the clients of the last round test what came of it, in an exchange of its own."""
        strategy = self._world.strategy
        replies = grid.send_and_receive(strategy.configure("evaluate", index, arrays, grid))
        found = strategy.aggregate("evaluate", index, replies)
        figures = found.metrics | tested_by(row for result in grid.last for row in result.rows)
        return {f"final_{name}": value for name, value in figures.items()}

    def _evaluate_clients(
        self, backend: SimulationBackend, index: int, arrays: Arrays
    ) -> dict[str, float]:
        strategy, shards = self._world.strategy, self._world.federation.test
        asked = [k for k in range(self._config["clients"]) if len(shards[k])]
        tasks = tuple(Task(k, strategy.own("evaluate", index, k)) for k in asked)
        shared = {wire.MODEL: arrays, **strategy.shared("evaluate", index)}
        result = backend.run(Job("evaluate", index, schedule_of(self._config), tasks, shared))
        self._check_failures(index, "evaluate", result.rows)
        figures, self._personal = personal(result.rows, self._world.source.test, shards)
        self._console.note(*lost_tests(index, self._personal))
        return figures

    def _count_lost(
        self, index: int, rows: Sequence[ClientRow], metrics: Mapping[str, float]
    ) -> None:
        refused = bool(metrics.get(MODEL_REFUSED))
        came = usable(rows, self._world.strategy.needs)
        self._lost = self._lost + 1 if refused or not came else 0
        self._useful = self._useful or not self._lost

    def _check_lost(self, index: int, rows: Sequence[ClientRow]) -> None:
        """End a run whose rounds come to nothing; the round is in the tables already.

        Raises
        ------
        RunError
            If too many rounds in a row were lost, or all of the run.
        """
        ends = index == self._config["rounds"] and not self._useful
        if self._lost < self._place.lost_rounds and not (ends and self._place.wants_a_good_round):
            return
        said = (f"client {row.client_id}: {row.error}" for row in rows if row.error)
        raise RunError(
            f"{self._lost} rounds in a row gave no new model, the last is round {index}: every"
            " update was rejected, lost or without a tensor, or what came of them was not finite;"
            f" {next(said, 'see the log')}. Mend the cause and resume={self._folder.path}"
        )

    def _check_failures(self, index: int, exchange: str, rows: Sequence[ClientRow]) -> None:
        if self._place.goes_on(rows):
            return
        lost = [row for row in rows if row.status in ("failed", "rejected")]
        first, rejected = lost[0], any(row.status == "rejected" for row in lost)
        what = "failed or were rejected" if rejected else "failed"
        # whoever mends this wants to know who failed and why; a resume cuts these rows off again
        self._folder.clients.append([self._client_record(index, row) for row in rows])
        raise RunError(
            f"{len(lost)} of {len(rows)} clients {what} in round {index} ({exchange}), allowed is"
            f" {self._place.allowance()}; client {first.client_id}: {first.error}. Mend the cause"
            f" and resume={self._folder.path}"
        )

    def _write(self, index: int, record: Mapping[str, Any], rows: Sequence[ClientRow]) -> None:
        self._folder.clients.append([self._client_record(index, row) for row in rows])
        if "test_accuracy" in record and self._last is not None:
            recall = {f"recall_{c}": float(v) for c, v in enumerate(self._last.recall)}
            self._folder.test_class.append([{"round": index, **recall}])
        if self._personal:
            self._folder.personal.append([{"round": index, **row} for row in self._personal])
        # last, because a round is finished when its row is there
        self._folder.rounds.append([record])

    def _client_record(self, index: int, row: ClientRow) -> dict[str, Any]:
        labeled, unlabeled = self._place.held(row.client_id)
        return {
            **{k: s / c for k, (s, c) in row.metrics.items() if c},
            "round": index,
            "client_id": row.client_id,
            "status": row.status,
            "error": row.error,
            "labeled": labeled,
            "unlabeled": unlabeled,
            "weight": row.weight,
            "bytes_down": row.bytes_down,
            "bytes_up": row.bytes_up,
        }

    def _save(self, backend: SimulationBackend, done: Done) -> None:
        """Write the checkpoint of a finished round, and the model alone."""
        if done.round == self._saved:
            return
        backend.sync()
        self._folder.sync()
        self._keep(done, backend.versions(done.round), backend.executions())
        # two checkpoints are kept: a resume may start from the one before
        self._resumable, self._saved = max(self._saved, 0), done.round
        backend.prune(self._resumable, self._saved)

    def _keep(self, done: Done, states: Mapping[int, Version], execution: Any) -> None:
        arrays = wire.from_record(done.arrays)
        manifest = {
            "config": flatten({k: v for k, v in self._config.items() if k != "resume"}),
            "federation_hash": self._world.federation.hash,
            "seconds": self._seconds(),
            **self._place.kept(),
            **{key: self._facts[key] for key in ("code", "content") if key in self._facts},
            "early_stop": done.early_stop,
            "stopped_early": done.stopped,
            "execution": execution,
            "lost": list(done.lost),
        }
        kept = (done.strategy.arrays, done.strategy.values)
        write_checkpoint(self._folder.path, done.round, arrays, kept, manifest, states=states)
        write_model(self._folder.model, arrays)
