"""Simulation on processes of this machine, without Ray: quick to start, little between them."""

import contextlib
import logging
import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fedlabels.cohort.clock import Track, in_our_time
from fedlabels.cohort.types import Indices
from fedlabels.errors import ConfigError, RunError
from fedlabels.simulation.backend import SimulationBackend, failed_rows
from fedlabels.simulation.channel import Channel, Parcel, pack
from fedlabels.simulation.evaluation import Scored
from fedlabels.simulation.job import Arrays
from fedlabels.simulation.order import Order, Report
from fedlabels.simulation.ray_support import blocks_of
from fedlabels.simulation.state import StateStore
from fedlabels.simulation.worker import WorkerSpec

LOG = logging.getLogger(__name__)
_GONE = (EOFError, OSError)
STOP_SECONDS = 2.0  # for a worker to end by itself


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

    def ask(self, name: str, *arguments: Any, shared: Parcel | None = None) -> None:
        """Send a request; one that is not read because the process died fails in `answer`."""
        with contextlib.suppress(OSError):
            self._channel.send((name, arguments))
            if shared is not None:
                self._channel.send_parcel(shared)

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

    def stop(self) -> None:
        """End the process; it ends by itself when it has nothing to do."""
        self._channel.close()
        try:
            self._process.wait(STOP_SECONDS if not self._starting else 0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _environment(gpu: int | None) -> dict[str, str]:
    paths = [str(Path(__file__).resolve().parents[2]), *filter(None, sys.path)]
    path = os.pathsep.join(dict.fromkeys(paths))
    values = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return values if gpu is None else {**values, "CUDA_VISIBLE_DEVICES": str(gpu)}


class ProcessBackend(SimulationBackend):
    """Workers that live as long as the run, each a process of this machine.

    A worker that dies is started again and its range is run again, with the same bits; a block that
    kills its worker twice counts as failed clients.

    Parameters
    ----------
    spec, states, block_size
        Those of `SimulationBackend`.
    num_workers : int or None
        Processes; None is one a GPU, or one a core without GPUs.

    Raises
    ------
    ConfigError
        If ``num_workers`` is < 1, or the spec cannot be sent to another process.
    """

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
        self.workers = num_workers or self._devices or os.cpu_count() or 1
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
        except _GONE as error:
            raise RunError(f"a worker died while it started: {error}") from error
        return weights

    def _dispatch(self, orders: Sequence[Order], shared: Mapping[str, Arrays]) -> list[Report]:
        payload = pack(dict(shared))
        try:
            working = list(zip(range(len(orders)), orders, strict=True))
            for slot, order in working:
                self._processes[slot].ask("run", order, shared=payload)
            return [self._report(slot, order, payload) for slot, order in working]
        finally:
            payload.close()

    def _report(self, slot: int, order: Order, payload: Parcel) -> Report:
        try:
            report: Report = self._processes[slot].answer()
            return report
        except _GONE:
            LOG.warning("worker %d died; its %d clients run again", slot, len(order.items))
            self._replace(slot)
            return self._again(slot, order, payload)

    def _replace(self, slot: int) -> None:
        self._processes[slot].stop()
        self._processes[slot] = self._start(slot)

    def _again(self, slot: int, order: Order, payload: Parcel) -> Report:
        """Run a range again, block by block, so that one poisonous block loses only itself."""
        whole = Report()
        for part in blocks_of(order):
            try:
                self._processes[slot].ask("run", part, shared=payload)
                report = self._processes[slot].answer()
            except _GONE:
                self._replace(slot)
                report = failed_rows(part, "its worker process died twice")
            whole.add(report)
        return whole

    def _evaluate(self, model: Arrays, blocks: int, part: Indices | None = None) -> list[Scored]:
        share = -(-blocks // self.workers)
        cuts = [(start, min(start + share, blocks)) for start in range(0, blocks, share)]
        payload = pack(model)
        try:
            for process, cut in zip(self._processes, cuts, strict=False):
                process.ask("evaluate", *cut, part, shared=payload)
            found = [self._scored(slot, cut, part, payload) for slot, cut in enumerate(cuts)]
        finally:
            payload.close()
        return [block for blocks in found for block in blocks]

    def _scored(
        self, slot: int, cut: tuple[int, int], part: Indices | None, payload: Parcel
    ) -> list[Scored]:
        try:
            found: list[Scored] = self._processes[slot].answer()
            return found
        except _GONE:
            self._replace(slot)
        try:
            self._processes[slot].ask("evaluate", *cut, part, shared=payload)
            again: list[Scored] = self._processes[slot].answer()
        except _GONE as error:
            raise RunError(f"a worker died twice while it evaluated: {error}") from error
        return again

    def tracks(self, events: bool) -> list[list[Track]]:
        """Return what every worker has timed since the last call; nothing of one that died."""
        found = []
        for process in self._processes:
            asked = time.perf_counter()
            process.ask("tracks", events)
            try:
                theirs, made = process.answer()
            except _GONE:
                found.append(list[Track]())
                continue
            found.append(in_our_time(made, asked, theirs, time.perf_counter()))
        return found

    def close(self) -> None:
        """Stop the processes."""
        processes, self._processes = self._processes, []
        for process in processes:
            process.stop()
        self._spec.close()
