"""Simulation in this process: for one GPU, for tests, and for a breakpoint in a client."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fedlabels.simulation.backend import SimulationBackend
from fedlabels.simulation.job import Arrays
from fedlabels.simulation.state import StateStore
from fedlabels.simulation.worker import Order, Report, Worker, WorkerSpec


class SerialBackend(SimulationBackend):
    """One worker, here; needs no Ray."""

    def __init__(self, spec: WorkerSpec, states: StateStore, block_size: int = 8) -> None:
        super().__init__(spec, states, block_size)
        self._worker = Worker(spec)

    def initial(self) -> Arrays:
        """Return the initial weights of the global model."""
        return self._worker.initial()

    def _dispatch(self, orders: Sequence[Order], shared: Mapping[str, Arrays]) -> list[Report]:
        return [self._worker.run(order, shared) for order in orders]

    def _evaluate(self, model: Arrays, blocks: int) -> list[NDArray[np.float64]]:
        return self._worker.evaluate(model, 0, blocks)
