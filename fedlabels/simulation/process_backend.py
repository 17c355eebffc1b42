"""Simulation on processes of this machine, without Ray: quick to start, little between them."""

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from fedlabels.errors import ConfigError, RunError
from fedlabels.machine import allowed_cores
from fedlabels.rounds.job import Arrays
from fedlabels.simulation.channel import Channel, Parcel, pack
from fedlabels.simulation.pool import WorkerPool, worker_environment
from fedlabels.worker.state import StateStore
from fedlabels.worker.worker import WorkerSpec

STOP_SECONDS = 2.0  # for workers to end by themselves, all together


class WorkerProcess:
    """A process with a worker, and the socket to it.

    Parameters
    ----------
    spec : Parcel
        The packed `WorkerSpec`.
    gpu : int or None
        The only GPU that it sees; None leaves the environment as it is.
    """

    def __init__(self, spec: Parcel, gpu: int | None) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "fedlabels.simulation.process_worker"]
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                env=_environment(gpu),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self._channel = Channel(ours)
        self._starting = True
        with contextlib.suppress(OSError):  # it died already: the first answer says so
            self._channel.send_parcel(spec)

    def ask(self, name: str, *arguments: Any) -> None:
        """Send a request, whose parcels arrive as what is in them.

        If it is not read because the process died, `answer` fails.
        """
        with contextlib.suppress(OSError):
            self._channel.send_request(name, arguments)

    def answer(self) -> Any:
        """Wait for the answer to the request.

        Raises
        ------
        EOFError, OSError
            If the process died.
        RunError
            If the worker could not start, or could not do it.
        """
        self.started()
        went_well, value = self._channel.receive()
        if not went_well:
            raise RunError(f"a worker failed: {value}")
        return value

    def started(self) -> None:
        """Wait until the worker is there; see `answer` for what it raises."""
        if self._starting:
            problem = self._channel.receive()
            if problem:
                raise RunError(f"a worker could not start: {problem}")
            self._starting = False

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def hang_up(self) -> None:
        """Close our end of the socket, upon which the process ends; one that starts is killed."""
        self._channel.close()
        if self._starting:
            self.kill()

    def ended(self, seconds: float | None) -> bool:
        """Wait for the end of the process, None for ever; say whether it has ended."""
        try:
            self._process.wait(seconds if seconds is None else max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End the process by force."""
        self._process.kill()

    def how_it_ended(self) -> str:
        """Say how the process ended, for messages; "" while it lives."""
        code = self._process.poll()
        if code is None or code >= 0:
            return "" if code is None else f"exit status {code}"
        name = signal.Signals(-code).name
        memory = "; the system does that where memory is short" if name == "SIGKILL" else ""
        return f"ended by {name}{memory}"


def end(processes: Sequence[WorkerProcess]) -> None:
    """End worker processes, all at once: each ends by itself when nobody listens any more."""
    for process in processes:
        process.hang_up()
    until = time.monotonic() + STOP_SECONDS
    late = [process for process in processes if not process.ended(until - time.monotonic())]
    for process in late:
        process.kill()
    for process in late:
        process.ended(None)


def _environment(gpu: int | None) -> dict[str, str]:
    values = {**os.environ, **worker_environment()}
    return values if gpu is None else {**values, "CUDA_VISIBLE_DEVICES": str(gpu)}


class ProcessBackend(WorkerPool):
    """Workers that are processes of this machine.

    Parameters
    ----------
    spec, states, block_size
        Those of `SimulationBackend`.
    num_workers : int or None
        Processes; None is one a GPU, or without GPUs one a core that may be
        used.

    Raises
    ------
    ConfigError
        If ``num_workers`` is < 1, or the spec cannot be sent to another process.
    """

    _GONE = (EOFError, OSError)

    def __init__(
        self,
        spec: WorkerSpec,
        states: StateStore,
        block_size: int | None = None,
        num_workers: int | None = None,
    ) -> None:
        super().__init__(spec, states, block_size)
        if num_workers is not None and num_workers < 1:
            raise ConfigError(f"backend.num_workers must be >= 1 or null, got {num_workers}")
        self._devices = torch.cuda.device_count() if spec.device != "cpu" else 0
        self._gpus = float(self._devices > 0)
        self.workers = num_workers or self._devices or max(1, allowed_cores() // spec.threads)
        try:
            self._spec = pack(spec)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"settings cannot be sent to other processes ({error}); use backend=serial"
            ) from error
        self._processes = [self._start(slot) for slot in range(self.workers)]

    def _start(self, slot: int) -> WorkerProcess:
        gpu = slot % self._devices if self._devices else None
        return WorkerProcess(self._spec, gpu)

    def initial(self) -> Arrays:
        """Return the initial weights of the global model.

        Raises
        ------
        RunError
            If a worker could not start.
        """
        try:
            for process in self._processes:
                process.started()
            self._processes[0].ask("initial")
            weights: Arrays = self._processes[0].answer()
        except self._GONE as error:
            raise RunError(f"a worker died while it started: {error}") from error
        return weights

    @contextlib.contextmanager
    def _share(self, value: Any) -> Iterator[Parcel]:
        parcel = pack(value)
        try:
            yield parcel
        finally:
            parcel.close()

    def _ask(self, slot: int, name: str, *arguments: Any) -> WorkerProcess:
        self._processes[slot].ask(name, *arguments)
        return self._processes[slot]

    def _answer(self, asked: WorkerProcess) -> Any:
        return asked.answer()

    def _slots(self) -> int:
        return len(self._processes)

    def _why(self, slot: int, error: Exception) -> str:
        self._processes[slot].ended(STOP_SECONDS)
        return self._processes[slot].how_it_ended() or str(error)

    def _replace(self, slot: int) -> None:
        end([self._processes[slot]])
        self._processes[slot] = self._start(slot)

    def close(self) -> None:
        """Stop the processes."""
        processes, self._processes = self._processes, []
        end(processes)
        self._spec.close()
