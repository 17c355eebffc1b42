"""What backends with worker processes share: asking all, and going on when one dies."""

import logging
import os
import sys
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from fedlabels.cohort.clock import Track, in_our_time
from fedlabels.cohort.types import Indices
from fedlabels.errors import RunError
from fedlabels.machine.blas import ONE_THREAD
from fedlabels.machine.portable import environment, pinned
from fedlabels.rounds.job import Arrays
from fedlabels.rounds.order import Item, Order, Report
from fedlabels.simulation.backend import SimulationBackend, failed_rows
from fedlabels.worker.evaluation import Scored

LOG = logging.getLogger(__name__)

DEATHS = 3  # of workers with single clients of a block, before the rest of it is given up
DIED = "its worker process died whenever it ran"


class WorkerPool(SimulationBackend):
    """Base of backends whose workers live as long as the run, each in a process of its own.

    A worker that dies is replaced and its range is run again, block by block; the clients of a
    block that kills its worker again run one by one, and who does it then has failed. Every client
    has the same bits as without. A subclass says how a worker is asked.
    """

    _GONE: ClassVar[tuple[type[Exception], ...]]
    """What `_answer` raises when the worker has died."""

    @abstractmethod
    def _share(self, value: Any) -> AbstractContextManager[Any]:
        """Put a value where all workers can read it; what is entered stands for it in requests."""

    @abstractmethod
    def _ask(self, slot: int, name: str, *arguments: Any) -> Any:
        """Let a worker begin with one of its methods; return what `_answer` is to wait for."""

    @abstractmethod
    def _answer(self, asked: Any) -> Any:
        """Wait for an answer."""

    @abstractmethod
    def _replace(self, slot: int) -> None:
        """Put a worker that lives into a slot."""

    @abstractmethod
    def _slots(self) -> int:
        """Return how many workers there are now."""

    def _why(self, slot: int, error: Exception) -> str:
        """Say why a worker died, for messages."""
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"

    def _settle(self) -> None:
        """Go on after all have answered; by default nothing is to be done."""
        return None

    def _dispatch(self, orders: Sequence[Order], shared: Mapping[str, Arrays]) -> list[Report]:
        with self._share(dict(shared)) as payload:
            asked = [self._ask(slot, "run", order, payload) for slot, order in enumerate(orders)]
            reports = []
            for slot, (order, waiting) in enumerate(zip(orders, asked, strict=True)):
                try:
                    reports.append(self._answer(waiting))
                except self._GONE as error:
                    why, again = self._why(slot, error), len(order.items)
                    LOG.warning("worker %d died; its %d clients run again (%s)", slot, again, why)
                    self._replace(slot)
                    reports.append(self._again(slot, order, payload))
        self._settle()
        return reports

    def _again(self, slot: int, order: Order, payload: Any) -> Report:
        """Run a range again, block by block, so that one poisonous client loses only itself."""
        whole = Report()
        for part in _blocks(order):
            report = self._lived(slot, part, payload)
            whole.add(self._one_by_one(slot, part, payload) if report is None else report)
        return whole

    def _one_by_one(self, slot: int, order: Order, payload: Any) -> Report:
        """Run the clients of a block alone that has ended its worker."""
        if len(order.items) == 1:
            return failed_rows(order, DIED)
        whole, deaths = Report(), 0
        reason = f"its worker process died with its block, and {DEATHS} more with one client of it"
        for item in order.items:
            alone = replace(order, items=(item,))
            if deaths == DEATHS:  # whatever ends them, it is not one client
                whole.add(failed_rows(alone, reason))
                continue
            report = self._lived(slot, alone, payload)
            deaths += report is None
            whole.add(report or failed_rows(alone, DIED))
        return whole

    def _lived(self, slot: int, order: Order, payload: Any) -> Report | None:
        """Run an order; None if its worker died, which then is replaced."""
        try:
            report: Report = self._answer(self._ask(slot, "run", order, payload))
        except self._GONE as error:
            LOG.warning("worker %d died again (%s)", slot, self._why(slot, error))
            self._replace(slot)
            return None
        return report

    def _evaluate(self, model: Arrays, blocks: int, part: Indices | None = None) -> list[Scored]:
        share = -(-blocks // self.workers)
        cuts = [(start, min(start + share, blocks)) for start in range(0, blocks, share)]
        out: list[Scored] = []
        with self._share(model) as payload:
            requests = [("evaluate", payload, *cut, part) for cut in cuts]
            asked = [self._ask(slot, *request) for slot, request in enumerate(requests)]
            for slot, (request, waiting) in enumerate(zip(requests, asked, strict=True)):
                try:
                    out += self._answer(waiting)
                except self._GONE as error:
                    LOG.warning("worker %d died as it evaluated (%s)", slot, self._why(slot, error))
                    self._replace(slot)
                    out += self._evaluate_again(slot, request)
        self._settle()
        return out

    def _evaluate_again(self, slot: int, request: tuple[Any, ...]) -> list[Scored]:
        try:
            part: list[Scored] = self._answer(self._ask(slot, *request))
        except self._GONE as error:
            why = self._why(slot, error)
            raise RunError(f"a worker died twice while it evaluated: {why}") from error
        return part

    def tracks(self, events: bool) -> list[list[Track]]:
        """Return what every worker has timed since the last call; nothing of one that died."""
        found = []
        for slot in range(self._slots()):
            asked = time.perf_counter()
            try:
                worker_time, seen = self._answer(self._ask(slot, "tracks", events))
            except self._GONE:
                found.append(list[Track]())
                continue
            found.append(in_our_time(seen, asked, worker_time, time.perf_counter()))
        return found


def _blocks(order: Order) -> list[Order]:
    """Cut an order into its blocks."""
    blocks: dict[int, list[Item]] = {}
    for item in order.items:
        blocks.setdefault(item.position // order.block_size, []).append(item)
    return [replace(order, items=tuple(items)) for items in blocks.values()]


def worker_environment() -> dict[str, str]:
    """Return a worker's environment: where we import from, one thread, pinned kernels."""
    paths = [str(Path(__file__).resolve().parents[2]), *filter(None, sys.path)]
    pins = environment() if pinned() else {}
    return {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), **ONE_THREAD, **pins}
