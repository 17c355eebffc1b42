"""Simulation on Ray actors: one worker a GPU, or one a core; the only file that imports Ray."""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlabels import telemetry

telemetry.disable()  # before Ray is imported

# ruff: noqa: E402
import ray
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    ObjectStoreFullError,
    OutOfDiskError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

from fedlabels.cohort.clock import Track
from fedlabels.cohort.types import Indices
from fedlabels.errors import ConfigError, RunError
from fedlabels.machine import allowed_cores, share_of_cores
from fedlabels.rounds.job import Arrays
from fedlabels.rounds.order import Order, Report
from fedlabels.simulation.pool import WorkerPool, worker_environment
from fedlabels.simulation.ray_support import (
    environment_of,
    reach,
    remove_session,
    signals_kept,
    software,
)
from fedlabels.worker.evaluation import Scored
from fedlabels.worker.state import StateStore
from fedlabels.worker.worker import Worker, WorkerSpec

LOG = logging.getLogger(__name__)
# A node that dies takes finished reports along: ObjectLostError.
_DIED = (RayActorError, WorkerCrashedError, OutOfMemoryError, NodeDiedError, ObjectLostError)
START_SECONDS = 60.0  # for a worker to start on a node that has room for it


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
        ``"local"`` starts a Ray of its own; ``"host:port"`` joins a running cluster, ``"auto"`` the
        one that Ray finds (``RAY_ADDRESS``, or one on this machine).
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

    def evaluate(self, model: Arrays, start: int, stop: int, part: Indices | None) -> list[Scored]:
        return self._worker.evaluate(model, start, stop, part)

    def tracks(self, events: bool) -> tuple[float, list[Track]]:
        return self._worker.tracks(events)

    def placement(self) -> dict[str, Any]:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        return {
            "pid": os.getpid(),
            "node": ray.get_runtime_context().get_node_id(),
            "cuda_visible_devices": visible,
            "gpus": ray.get_gpu_ids(),
            "software": software(),
        }


def start_ray(settings: RaySettings) -> str | None:
    """Start or join Ray, quietly: no dashboard, no usage statistics.

    Returns
    -------
    str or None
        Folder of a Ray that was started: logs and sockets. None of one that was joined.

    Raises
    ------
    RunError
        If Ray cannot be started or joined.
    """
    local = settings.address == "local"
    environment = worker_environment()
    options: dict[str, Any] = {
        "address": settings.address,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
    }
    if not local:
        options["runtime_env"] = {"env_vars": environment}
    else:
        workers = settings.num_workers or 1
        # not by Ray's own count, which does not know every limit that is set on this process
        options.update(include_dashboard=False, num_cpus=max(allowed_cores(), workers))
        if settings.num_gpus is not None:
            options["num_gpus"] = settings.num_gpus
    try:
        if not local:
            reach(settings.address)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # tips for developers, not for users
            # Workers that Ray starts ahead have its own environment: with a runtime_env they would
            # be of no use, and starting others takes seconds.
            with environment_of(environment if local else {}), signals_kept():
                context: Any = ray.init(**options)
    except Exception as error:
        raise RunError(
            f"Ray could not be {'started' if local else 'joined'} at address "
            f"'{settings.address}' ({error}); try backend=serial, which needs no Ray"
        ) from error
    return str(context.address_info["session_dir"]) if local else None


@contextmanager
def explained() -> Iterator[None]:
    """Turn Ray's errors into a `RunError` that says what to do; deaths of workers pass through."""
    try:
        yield
    except _DIED:
        raise
    except (ObjectStoreFullError, OutOfDiskError) as error:
        raise RunError(
            f"Ray's shared memory is full ({_first_line(error)}): make room in /dev/shm and on the "
            "disk of Ray's folder, lower per_round, or use backend=processes, which needs less"
        ) from error
    except RayTaskError as error:
        raise RunError(f"a worker failed: {_first_line(error.cause or error)}") from error
    except RayError as error:
        raise RunError(
            f"Ray failed ({type(error).__name__}: {_first_line(error)}); resume, or use "
            "backend=processes, which needs no Ray"
        ) from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class RayBackend(WorkerPool):
    """Workers that are Ray actors; each gets one call an exchange.

    If the node of one that died is gone and no other one has room, the workers that are left
    share the work.
    """

    _GONE = _DIED

    def __init__(
        self,
        spec: WorkerSpec,
        states: StateStore,
        block_size: int | None = None,
        settings: RaySettings | None = None,
    ) -> None:
        super().__init__(spec, states, block_size)
        self._settings = settings or RaySettings()
        self._actors: list[Any] = []
        self._room, self._trouble = True, False
        self._session: str | None = None
        self._started = not ray.is_initialized()
        if self._started:
            self._session = start_ray(self._settings)
        try:
            self._fit_resources()
            # once into the shared memory of a node: its actors map the arrays, nobody copies them
            with explained():
                self._spec: Any = ray.put(spec)
            self._actors = [self._start() for _ in range(self.workers)]
        except BaseException:
            self.close()
            raise

    def _fit_resources(self) -> None:
        """Choose the number of workers; more than Ray has room for would wait for ever."""
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        gpus, cores = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
        share = share_of_cores() or cores  # of a cell of a sweep on this cluster
        self.workers = self._settings.num_workers or min(gpus or cores, share)
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
        options = {
            "num_cpus": 1,
            "num_gpus": self._gpus,
            "max_restarts": 0,
            "scheduling_strategy": "SPREAD",  # over the nodes: memory and its bandwidth, too
        }
        return ray.remote(_Actor).options(**options).remote(self._spec)

    def placement(self) -> list[dict[str, Any]]:
        """Return process, node, visible and assigned GPUs, and software of every actor."""
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
            problems = self._started_up([actor.problem.remote() for actor in self._actors])
            if any(problems):
                raise RunError(f"a worker could not start: {next(filter(None, problems))}")
            different = sorted({place["software"] for place in self.placement()})
            weights: Arrays = ray.get(self._actors[0].initial.remote())
        except RayError as error:
            self._trouble = True
            raise RunError(f"a worker died while it started: {error}") from error
        if len(different) > 1:
            LOG.warning("nodes differ, results depend on who runs what: %s", "; ".join(different))
        return weights

    def _started_up(self, starting: Sequence[Any]) -> list[str]:
        """Wait for workers; a cluster that is full may make room, but nobody should wonder."""
        waiting: Sequence[Any] = starting
        while waiting:
            _, waiting = ray.wait(list(waiting), num_returns=len(waiting), timeout=START_SECONDS)
            if waiting:
                LOG.warning(
                    "%d of %d workers have not started; Ray may have no free core or GPU for them",
                    len(waiting), len(starting),
                )  # fmt: skip
        problems: list[str] = ray.get(list(starting))
        return problems

    def _share(self, value: Any) -> AbstractContextManager[Any]:
        with explained():
            return nullcontext(ray.put(value))

    def _ask(self, slot: int, name: str, *arguments: Any) -> Any:
        with explained():
            return getattr(self._actors[slot], name).remote(*arguments)

    def _answer(self, asked: Any) -> Any:
        with explained():
            return ray.get(asked)

    def _why(self, slot: int, error: Exception) -> str:
        if isinstance(error, OutOfMemoryError):
            return "Ray ended it because memory was short; lower backend.num_workers"
        return super()._why(slot, error)

    def _slots(self) -> int:
        return len(self._actors)

    def _replace(self, slot: int) -> None:
        """Put a new worker into a slot, or one that lives when no node has room for a new one.

        Raises
        ------
        RunError
            If no worker is left.
        """
        self._trouble = True
        if self._room:
            new = self._start()
            self._room = bool(ray.wait([new.problem.remote()], timeout=START_SECONDS)[0])
            if self._room:
                self._actors[slot] = new
                return
            ray.kill(new)
        for other in self._actors[slot + 1 :] + self._actors[:slot]:
            try:
                ray.get(other.problem.remote())
            except _DIED:
                continue
            self._actors[slot] = other
            return
        raise RunError("no worker is left and Ray has no room for one; add a node and resume")

    def _settle(self) -> None:
        """Go on with the workers that live, each once; look for room again at the next death."""
        self._actors, self._room = list(dict.fromkeys(self._actors)), True
        if len(self._actors) < self.workers:
            LOG.warning("Ray has lost cores: %d workers go on", len(self._actors))
            self.workers = len(self._actors)

    def close(self) -> None:
        """Stop the actors, and Ray where this backend started it; its logs go unless they help."""
        actors, self._actors, self._spec = self._actors, [], None
        for actor in actors:
            ray.kill(actor)
        if self._started and ray.is_initialized():
            ray.shutdown()
        session, self._session = self._session, None
        if session and self._trouble:
            LOG.warning("a worker died; Ray's logs are in %s", session)
        elif session:
            remove_session(Path(session))
