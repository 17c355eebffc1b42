"""Simulation in this process: for one GPU, for tests, and for a breakpoint in a client."""

from collections.abc import Mapping, Sequence

import torch

from fedlabels.cohort.clock import Track
from fedlabels.cohort.types import Indices
from fedlabels.simulation.backend import SimulationBackend
from fedlabels.simulation.evaluation import Scored
from fedlabels.simulation.job import Arrays
from fedlabels.simulation.order import Order, Report
from fedlabels.simulation.state import StateStore
from fedlabels.simulation.worker import Worker, WorkerSpec


class ProcessSettings:
    """What a worker sets for its whole process, as it was before; a GPU's is `Worker.restore`."""

    def __init__(self) -> None:
        self._threads, self._flushes = torch.get_num_threads(), _flushes_denormal()

    def put_back(self) -> None:
        """Set threads and the treatment of denormals as they were."""
        torch.set_num_threads(self._threads)
        torch.set_flush_denormal(self._flushes)


class SerialBackend(SimulationBackend):
    """One worker, here; needs no Ray."""

    def __init__(self, spec: WorkerSpec, states: StateStore, block_size: int | None = None) -> None:
        super().__init__(spec, states, block_size)
        self._before = ProcessSettings()
        self._worker = Worker(spec)
        self._gpus = float(self._worker.device.type == "cuda")

    def initial(self) -> Arrays:
        """Return the initial weights of the global model."""
        return self._worker.initial()

    def _dispatch(self, orders: Sequence[Order], shared: Mapping[str, Arrays]) -> list[Report]:
        return [self._worker.run(order, shared) for order in orders]

    def _evaluate(self, model: Arrays, blocks: int, part: Indices | None = None) -> list[Scored]:
        return self._worker.evaluate(model, 0, blocks, part)

    def tracks(self, events: bool) -> list[list[Track]]:
        """Return what the worker has timed since the last call."""
        return [self._worker.tracks(events)[1]]

    def close(self) -> None:
        """Put back what a worker sets for its process: threads, denormals, precision of a GPU."""
        self._before.put_back()
        self._worker.restore()


def _flushes_denormal() -> bool:
    """Tell by an example: torch can set it, but not say it."""
    return float(torch.tensor(1e-310, dtype=torch.float64) * 1) == 0
