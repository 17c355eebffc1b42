"""Simulation in this process: for one GPU, for tests, and for a breakpoint in a client."""

from collections.abc import Mapping, Sequence

from fedlabels.cohort.clock import Track
from fedlabels.cohort.types import Indices
from fedlabels.rounds.job import Arrays
from fedlabels.rounds.order import Order, Report
from fedlabels.simulation.backend import SimulationBackend
from fedlabels.worker.evaluation import Scored
from fedlabels.worker.state import StateStore
from fedlabels.worker.worker import Worker, WorkerSpec


class SerialBackend(SimulationBackend):
    """One worker, here; needs no Ray."""

    def __init__(self, spec: WorkerSpec, states: StateStore, block_size: int | None = None) -> None:
        super().__init__(spec, states, block_size)
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
        self._worker.restore()
