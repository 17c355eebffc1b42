"""Simulation on Ray actors: one worker a GPU, or one a core; the only file that imports Ray."""

import logging
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedlabels import telemetry

telemetry.disable()  # before Ray is imported

# ruff: noqa: E402
import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError

from fedlabels.errors import ConfigError, RunError
from fedlabels.simulation.backend import SimulationBackend, failed_rows
from fedlabels.simulation.evaluation import Scored
from fedlabels.simulation.job import Arrays
from fedlabels.simulation.state import StateStore
from fedlabels.simulation.worker import Order, Report, Worker, WorkerSpec

LOG = logging.getLogger(__name__)
_DIED = (RayActorError, WorkerCrashedError, OutOfMemoryError, NodeDiedError)


@dataclass(frozen=True)
class RaySettings:
    """How to start Ray and its workers.

    Parameters
    ----------
    num_workers : int or None
        Actors; None is one a GPU, or one a core without GPUs.
    gpus_per_worker : float or None
        GPUs of an actor; None is 1 where Ray sees a GPU, else 0.
    address : str
        ``"local"`` starts a Ray of its own; ``"auto"`` joins a running cluster.
    num_gpus : int or None
        GPUs to tell a local Ray of; None lets it look.
    """

    num_workers: int | None = None
    gpus_per_worker: float | None = None
    address: str = "local"
    num_gpus: int | None = None

    def __post_init__(self) -> None:
        if self.num_workers is not None and self.num_workers < 1:
            raise ConfigError(f"backend.num_workers must be >= 1 or null, got {self.num_workers}")
        if self.gpus_per_worker is not None and self.gpus_per_worker < 0:
            raise ConfigError(f"backend.gpus_per_worker must be >= 0, got {self.gpus_per_worker}")


class _Actor:
    """A worker process; one that cannot start says why instead of dying."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._problem = ""
        try:
            self._worker = Worker(spec)
        except Exception as error:
            self._problem = f"{type(error).__name__}: {error}"

    def problem(self) -> str:
        return self._problem

    def initial(self) -> Arrays:
        return self._worker.initial()

    def run(self, order: Order, shared: Mapping[str, Arrays]) -> Report:
        return self._worker.run(order, shared)

    def evaluate(self, model: Arrays, start: int, stop: int) -> list[Scored]:
        return self._worker.evaluate(model, start, stop)

    def placement(self) -> dict[str, Any]:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        return {"pid": os.getpid(), "cuda_visible_devices": visible, "gpus": ray.get_gpu_ids()}


def start_ray(settings: RaySettings) -> None:
    """Start or join Ray, quietly: no dashboard, no usage statistics.

    Raises
    ------
    RunError
        If Ray cannot be started or joined.
    """
    paths = [str(Path(__file__).resolve().parents[2]), *filter(None, sys.path)]
    environment = {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), "OMP_NUM_THREADS": "1"}
    options: dict[str, Any] = {
        "address": settings.address,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "runtime_env": {"env_vars": environment},
    }
    if settings.address == "local":
        workers = settings.num_workers or 1
        options.update(include_dashboard=False, num_cpus=max(os.cpu_count() or 1, workers))
        if settings.num_gpus is not None:
            options["num_gpus"] = settings.num_gpus
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # tips for developers, not for users
            ray.init(**options)
    except Exception as error:
        raise RunError(
            f"Ray could not be {'started' if settings.address == 'local' else 'joined'} at address "
            f"'{settings.address}' ({error}); try backend=serial, which needs no Ray"
        ) from error


class RayBackend(SimulationBackend):
    """Actors that live as long as the run; each gets one call an exchange.

    An actor that dies is started again and its range is run again, with the same bits; a block
    that kills its worker twice counts as failed clients.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        states: StateStore,
        block_size: int = 8,
        settings: RaySettings | None = None,
    ) -> None:
        super().__init__(spec, states, block_size)
        self._settings = settings or RaySettings()
        self._actors: list[Any] = []
        self._started = not ray.is_initialized()
        if self._started:
            start_ray(self._settings)
        try:
            self._fit_resources()
            # once into shared memory: actors map the pixels instead of copying them
            self._spec = ray.put(spec)
            self._actors = [self._start() for _ in range(self.workers)]
        except BaseException:
            self.close()
            raise

    def _fit_resources(self) -> None:
        """Choose the number of workers; more than Ray has room for would wait for ever."""
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        gpus, cores = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
        self.workers = self._settings.num_workers or gpus or cores
        per_worker = self._settings.gpus_per_worker
        self._gpus = per_worker if per_worker is not None else float(min(gpus, 1))
        if self._gpus * self.workers > gpus:
            raise ConfigError(
                f"{self.workers} workers of {self._gpus:g} GPUs each are too many: "
                f"Ray has {gpus}; lower backend.num_workers or backend.gpus_per_worker"
            )
        if self.workers > cores:
            raise ConfigError(
                f"{self.workers} workers are too many: Ray has {cores} cores; lower"
                " backend.num_workers"
            )

    def _start(self) -> Any:
        options = {"num_cpus": 1, "num_gpus": self._gpus, "max_restarts": 0}
        return ray.remote(_Actor).options(**options).remote(self._spec)

    def placement(self) -> list[dict[str, Any]]:
        """Return process, visible and assigned GPUs of every actor."""
        out: list[dict[str, Any]] = ray.get([a.placement.remote() for a in self._actors])
        return out

    def initial(self) -> Arrays:
        """Return the initial weights of the global model.

        Raises
        ------
        RunError
            If a worker could not start.
        """
        try:
            problems = ray.get([actor.problem.remote() for actor in self._actors])
        except _DIED as error:
            raise RunError(f"a worker died while it started: {error}") from error
        if any(problems):
            raise RunError(f"a worker could not start: {next(filter(None, problems))}")
        weights: Arrays = ray.get(self._actors[0].initial.remote())
        return weights

    def _dispatch(self, orders: Sequence[Order], shared: Mapping[str, Arrays]) -> list[Report]:
        payload = ray.put(dict(shared))
        waiting = [
            actor.run.remote(order, payload)
            for actor, order in zip(self._actors, orders, strict=False)
        ]
        reports = []
        for slot, (order, future) in enumerate(zip(orders, waiting, strict=True)):
            try:
                reports.append(ray.get(future))
            except _DIED:
                LOG.warning("worker %d died; its %d clients run again", slot, len(order.items))
                self._actors[slot] = self._start()
                reports.append(self._again(slot, order, payload))
        return reports

    def _again(self, slot: int, order: Order, payload: Any) -> Report:
        """Run a range again, block by block, so that one poisonous block loses only itself."""
        whole = Report()
        for part in _blocks(order):
            try:
                report = ray.get(self._actors[slot].run.remote(part, payload))
            except _DIED:
                self._actors[slot] = self._start()
                report = failed_rows(part, "its worker process died twice")
            whole.rows += report.rows
            whole.states.update(report.states)
            whole.seconds += report.seconds
            for name, nodes in report.nodes.items():
                whole.nodes.setdefault(name, {}).update(nodes)
            for name, made in report.each.items():
                whole.each.setdefault(name, []).extend(made)
        return whole

    def _evaluate(self, model: Arrays, blocks: int) -> list[Scored]:
        payload = ray.put(model)
        share = -(-blocks // self.workers)
        cuts = [(start, min(start + share, blocks)) for start in range(0, blocks, share)]
        parts = [
            actor.evaluate.remote(payload, *cut)
            for actor, cut in zip(self._actors, cuts, strict=False)
        ]
        out = []
        for slot, (part, cut) in enumerate(zip(parts, cuts, strict=True)):
            try:
                out += ray.get(part)
            except _DIED:
                self._actors[slot] = self._start()
                out += self._evaluate_again(slot, payload, cut)
        return out

    def _evaluate_again(self, slot: int, payload: Any, cut: tuple[int, int]) -> list[Scored]:
        try:
            part: list[Scored] = ray.get(self._actors[slot].evaluate.remote(payload, *cut))
        except _DIED as error:
            raise RunError(f"a worker died twice while it evaluated: {error}") from error
        return part

    def close(self) -> None:
        """Stop the actors, and Ray where this backend started it."""
        actors, self._actors = self._actors, []
        for actor in actors:
            ray.kill(actor)
        if self._started and ray.is_initialized():
            ray.shutdown()


def _blocks(order: Order) -> list[Order]:
    blocks: dict[int, list[Any]] = {}
    for item in order.items:
        blocks.setdefault(item.position // order.block_size, []).append(item)
    return [replace(order, items=tuple(items)) for items in blocks.values()]
