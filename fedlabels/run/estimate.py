"""How long a run would take and how much memory: a client and a test of its own code, measured."""

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from flwr.app import Message

from fedlabels.errors import ConfigError, RunError
from fedlabels.machine import allowed_cores
from fedlabels.machine.blas import one_blas_thread
from fedlabels.machine.memory import peak_memory
from fedlabels.rounds import wire
from fedlabels.rounds.job import Arrays, Job, Task
from fedlabels.run.folder import RunFolder
from fedlabels.run.merged import aggregated
from fedlabels.run.place import Simulated, server_of
from fedlabels.run.setup import build_backend, build_world
from fedlabels.run.start import start_of
from fedlabels.run.world import World
from fedlabels.settings.hashing import schedule_of
from fedlabels.simulation.backend import SimulationBackend
from fedlabels.simulation.grid import FIRST_NODE_ID, CohortGrid

Settings = Mapping[str, Any]
_STACK = 16  # clients that are tried together where they run together, at most


@dataclass(frozen=True)
class Estimate:
    """What a run would take on this machine, roughly; times in seconds.

    Parameters
    ----------
    rounds, clients_per_round, evaluations : int
        What is planned.
    workers : int
        That train side by side.
    tried : int
        Clients that were trained for it.
    client : float
        Training of a client of mean size, with all exchanges of a round.
    evaluation : float
        Of the global model by one worker; 0 where it is not tested.
    own_test : float
        Of all clients' own models by one worker; 0 where they are not tested.
    data : float
        Reading and dealing the data.
    memory : float
        Bytes of all processes together; nan where the system does not say.
    gpu_memory : float
        Bytes that a worker takes on its GPU; 0 without one.
    """

    rounds: int
    clients_per_round: int
    evaluations: int
    workers: int
    tried: int
    client: float
    evaluation: float
    own_test: float
    data: float
    memory: float
    gpu_memory: float

    @property
    def seconds(self) -> float:
        """The whole run."""
        trained = math.ceil(self.clients_per_round / self.workers) * self.client
        tested = (self.evaluation + self.own_test) / self.workers
        return self.data + self.rounds * trained + self.evaluations * tested


@one_blas_thread()
def estimate(config: Settings) -> Estimate:
    """Measure what a run would take, on one worker in this process; no run folder is written.

    Training is tried with the client of median work among those that the first round draws, twice:
    the first time, which starts libraries, does not count.

    Parameters
    ----------
    config : mapping
        Resolved settings of a new run.

    Raises
    ------
    FedLabelsError
        If a setting is unknown or out of range, data are missing, or the client fails.
    """
    if config["resume"] is not None:
        raise ConfigError("an estimate is of a new run: leave resume= out")
    began = time.perf_counter()
    world = build_world(config)
    data = time.perf_counter() - began
    backend = {**config["backend"], "name": "serial", "portable": False}
    with tempfile.TemporaryDirectory(prefix="fedlabels-estimate-") as place:
        world = replace(world, start=start_of(config, world, Path(place), None))
        folder = RunFolder(Path(place) / "run", resume=False)
        worker = build_backend({**config, "backend": backend}, world, folder, 0)
        try:
            return _Trial(config, world, worker).measured(data)
        finally:
            worker.close()


class _Trial:
    """A round with few clients."""

    def __init__(self, config: Settings, world: World, worker: SimulationBackend) -> None:
        self._config, self._world, self._worker = config, world, worker
        self._place = Simulated(config, world)
        self._tried = self._cohort = 0

    def measured(self, data: float) -> Estimate:
        config, world = self._config, self._world
        arrays, client = self._trained()
        evaluation = own_test = 0.0
        if world.tests_model:
            evaluation = _seconds(lambda: self._worker.evaluate(arrays))
        if self._place.evaluates_clients():
            own_test = self._own_test(arrays)
        rounds, every = config["rounds"], config["evaluate_every"]
        on_gpu = config["backend"]["device"] != "cpu" and torch.cuda.is_available()
        workers = _workers(config["backend"], on_gpu)
        return Estimate(
            rounds, self._cohort, -(-rounds // every), workers, self._tried, client, evaluation,
            own_test, data, self._memory(workers, arrays),
            float(torch.cuda.max_memory_reserved()) if on_gpu else 0.0,
        )  # fmt: skip

    def _trained(self) -> tuple[Arrays, float]:
        """Return a global model, and the seconds of a client of mean work."""
        strategy = self._world.strategy
        strategy.bind(server_of(self._config, self._world, self._place))
        arrays = wire.to_record(strategy.initial(self._worker.initial()))
        grid = CohortGrid(range(self._config["clients"]), self._worker)
        grid.needs, grid.reduces = strategy.needs, strategy.reduces
        seconds = 0.0
        for exchange in strategy.exchanges(1):
            drawn = list(strategy.configure(exchange, 1, arrays, grid))
            self._cohort = max(self._cohort, len(drawn))
            messages, scale = self._chosen(exchange, drawn)
            if not messages:
                continue
            for _ in range(2):
                once = _seconds(lambda m=messages: grid.send_and_receive(m))  # type: ignore[misc]
            for row in (row for result in grid.last for row in result.rows):
                if row.status in ("failed", "rejected"):
                    raise RunError(
                        f"client {row.client_id}, which was tried, {row.status}: {row.error}"
                    )
            seconds += once * scale / len(messages)
            outcome = aggregated(strategy, exchange, 1, grid.send_and_receive(messages))
            arrays = arrays if outcome.arrays is None else outcome.arrays
        return wire.from_record(arrays), seconds

    def _chosen(self, exchange: str, drawn: Sequence[Message]) -> tuple[Sequence[Message], float]:
        """Return messages to clients of middle work, and how much more work the mean client has."""

        def work(message: Message) -> int:
            return self._worker.work(exchange, message.metadata.dst_node_id - FIRST_NODE_ID)

        together = self._worker.spec.execution != "looped"
        count = min(_STACK if together else 1, len(drawn))
        first = (len(drawn) - count) // 2
        chosen = sorted(drawn, key=work)[first : first + count]
        self._tried = max(self._tried, count)
        every = [self._worker.work(exchange, k) for k in range(self._config["clients"])]
        mean = sum(every) / len(every)
        return chosen, mean * count / sum(map(work, chosen)) if chosen else 0.0

    def _own_test(self, arrays: Arrays) -> float:
        """Return the seconds of the test of all clients' own models."""
        strategy, tests = self._world.strategy, self._world.federation.test
        tested = [k for k in range(self._config["clients"]) if len(tests[k])]
        if not tested:
            return 0.0
        work = {k: self._worker.work("evaluate", k) for k in tested}
        middle = sorted(tested, key=work.__getitem__)[len(tested) // 2]
        shared = {wire.MODEL: arrays, **strategy.shared("evaluate", 1)}
        task = Task(middle, strategy.own("evaluate", 1, middle))
        job = Job("evaluate", 1, schedule_of(self._config), (task,), shared)
        return _seconds(lambda: self._worker.run(job)) * sum(work.values()) / work[middle]

    def _memory(self, workers: int, arrays: Arrays) -> float:
        """Return bytes of all processes: workers of their own share the data, nothing else."""
        source, one = self._world.source, peak_memory()
        held = source.train.x.nbytes + source.test.x.nbytes
        own = 0 if self._config["backend"]["name"] == "serial" else workers * (one - held)
        model = sum(value.nbytes for value in arrays.values())
        apart = "each" in self._world.strategy.needs.values()
        return one + own + (model * self._cohort if apart else 0)


def _workers(backend: Settings, on_gpu: bool) -> int:
    if backend["name"] == "serial":
        return 1
    cores = max(1, allowed_cores() // (backend["threads"] or 1))
    if on_gpu:
        return int(backend["num_workers"] or torch.cuda.device_count())
    return min(backend["num_workers"] or cores, cores)


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began
