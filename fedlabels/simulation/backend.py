"""What serial and Ray backends share: the order of a cohort, its ranges, the merge of reports."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from fedlabels.cohort import clock
from fedlabels.cohort.clock import Track, phase
from fedlabels.cohort.types import Indices
from fedlabels.data import make_views
from fedlabels.rounds.job import Arrays, ClientRow, EachTerm, Job, JobResult, SumTerm, Task
from fedlabels.rounds.judge import counted, winners
from fedlabels.rounds.order import Item, Made, Order, Report
from fedlabels.rounds.reduce import Key, Node, finish
from fedlabels.simulation.ranges import ends
from fedlabels.worker.evaluation import Evaluation, Scored, evaluate
from fedlabels.worker.state import StateStore, Version
from fedlabels.worker.worker import EVALUATION_ROWS, WorkerSpec

CPU_BLOCK, GPU_BLOCK = 8, 64
PORTION = 2  # blocks of every worker, where a cohort runs in portions
BESIDE = 16  # what a client costs beside its samples, in samples


class SimulationBackend(ABC):
    """Base of the backends; a subclass says where ranges run.

    Parameters
    ----------
    spec : WorkerSpec
        What workers hold.
    states : StateStore
        What clients keep between rounds.
    block_size : int or None
        Unit of retry and, of stacked cohorts, of dispatch, in clients; a power of two gives the
        fewest partial sums. None is 64 for workers with a GPU, else 8.
    """

    workers: int = 1
    _gpus: float = 0.0  # of a worker

    def __init__(self, spec: WorkerSpec, states: StateStore, block_size: int | None = None) -> None:
        make_views(spec.views, **spec.view_options)  # a wrong name is refused before workers start
        self.spec, self._states, self._given_block = spec, states, block_size
        self._chosen: dict[int, str] = {}

    @abstractmethod
    def initial(self) -> Arrays:
        """Return the initial weights of the global model."""

    @abstractmethod
    def _dispatch(self, orders: Sequence[Order], shared: Mapping[str, Arrays]) -> list[Report]:
        """Run one range per worker and return the reports in order."""

    @abstractmethod
    def _evaluate(self, model: Arrays, blocks: int, part: Indices | None = None) -> list[Scored]:
        """Score all blocks of the test set, or of a part of it, in order."""

    @abstractmethod
    def tracks(self, events: bool) -> list[list[Track]]:
        """Return what every worker has timed since the last call; see `clock.Source`."""

    def sync(self) -> None:
        """Flush client states to disk, before a checkpoint counts on them."""
        self._states.sync()

    def versions(self, round_index: int) -> dict[int, Version]:
        """Return the client states that a checkpoint of a round counts on."""
        return self._states.versions(round_index)

    def prune(self, *saved: int) -> None:
        """Remove client states that no resume from the checkpoints of some rounds needs."""
        self._states.prune(*saved)

    def executions(self) -> dict[str, str]:
        """Return the execution of every group, as far as it is known; see `Trainer`."""
        fixed = self.spec.execution
        return {
            f"{group.client.__class__.__name__} {group.model}": self._chosen.get(number, fixed)
            for number, group in enumerate(self.spec.population.groups)
        }

    def close(self) -> None:
        """Free what the backend holds; a second call does nothing."""
        return None

    def run(self, job: Job) -> JobResult:
        """Run one exchange with a cohort, which may be empty."""
        if not job.tasks:
            return JobResult([])
        began = time.perf_counter()
        clock.follow(self.tracks)
        reports: list[Report] = []
        with phase("ship"):
            ordered = self._ordered(job.tasks)
        for start, stop in self._portions(job, ordered):
            with phase("ship"):
                orders = self._ranges(job, ordered, start, stop)
            with phase("work"):
                reports += self._agreed(orders, self._dispatch(orders, job.shared), job.shared)
        for report in reports:  # what the first worker has measured holds for all from now on
            self._chosen = {**report.chosen, **self._chosen}
        with phase("reduce"):
            result = self._merge(job, len(ordered), reports)
        with phase("write"):
            for report in reports:
                for client_id, state in sorted(report.states.items()):
                    self._states.write(client_id, job.round, state)
        result.seconds = {
            "wall": time.perf_counter() - began,
            "work": sum(report.seconds for report in reports),
        }
        return result

    def evaluate(self, model: Arrays) -> Evaluation:
        """Score a model on the global test set; the same bits for any number of workers."""
        blocks = -(-len(self.spec.test.y) // EVALUATION_ROWS)
        found = self._evaluate(model, blocks)
        return evaluate(found, self.spec.test, self.spec.federation.test)

    def test_loss(self, model: Arrays, part: Indices) -> float:
        """Return the mean loss on some test samples of known class, in nats; the same bits, too.

        It is nan when there are none.
        """
        if not len(part):
            return math.nan
        found = self._evaluate(model, -(-len(part) // EVALUATION_ROWS), part)
        return sum(block.loss for block in found) / len(part)

    def _ordered(self, tasks: Sequence[Task]) -> list[Task]:
        """Order a cohort by (group, samples, client): neighbours are alike, stacks pad little."""
        federation, members = self.spec.federation, self.spec.population.members
        samples = federation.labeled.sizes + federation.unlabeled.sizes

        def place(task: Task) -> tuple[int, int, int]:
            return int(members[task.client_id]), int(samples[task.client_id]), task.client_id

        return sorted(tasks, key=place)

    @property
    def _block(self) -> int:
        return self._given_block or (GPU_BLOCK if self._gpus else CPU_BLOCK)

    def _portions(self, job: Job, ordered: Sequence[Task]) -> list[tuple[int, int]]:
        """Cut a cohort so that the states of few clients are in memory at once.

        What is summed up runs in one go: its cohort is a round's. What only tells figures of
        every client asks all clients that there are.
        """
        if job.needs or job.keep or self._states.empty:
            return [(0, len(ordered))]
        size = PORTION * self._block * self.workers
        return [(i, min(i + size, len(ordered))) for i in range(0, len(ordered), size)]

    def _ranges(
        self, job: Job, ordered: Sequence[Task], start: int = 0, stop: int | None = None
    ) -> list[Order]:
        items = [
            Item(position, task.client_id, task.own, self._states.read(task.client_id))
            for position, task in enumerate(ordered[start:stop], start)
        ]
        # A stack must not depend on the number of workers, so blocks stay whole; clients that run
        # one by one are dealt by what they have to do.
        execution = self.spec.execution
        unit = self._block if execution == "stacked" or (execution == "auto" and self._gpus) else 1
        work = [self.work(job.exchange, item.client_id) for item in items]
        cuts = [0, *ends(work, self.workers, unit)]
        return [self._order(job, items[a:b], len(ordered)) for a, b in pairwise(cuts)]

    def work(self, exchange: str, client_id: int) -> int:
        """Estimate what a client has to do in an exchange, in samples, > 0."""
        federation, population = self.spec.federation, self.spec.population
        if exchange == "evaluate":
            return BESIDE + int(federation.test.sizes[client_id])
        labeled = int(federation.labeled.sizes[client_id])
        unlabeled = int(federation.unlabeled.sizes[client_id])
        if exchange != "train":
            return BESIDE + labeled + unlabeled
        client = population.groups[int(population.members[client_id])].client
        return BESIDE + client.work(labeled, unlabeled)

    def _order(self, job: Job, items: Sequence[Item], cohort: int) -> Order:
        return Order(
            job.exchange, job.round, job.rounds, dict(job.settings), dict(job.needs),
            tuple(items), self._block, cohort, tuple(job.keep), job.reveal, dict(self._chosen),
            dict(job.reduces),
        )  # fmt: skip

    def _agreed(
        self, orders: Sequence[Order], reports: list[Report], shared: Mapping[str, Arrays]
    ) -> list[Report]:
        """Let most clients of the whole cohort decide what a term looks like.

        A range whose first client decided otherwise runs again, with the same bits: who is rejected
        does not depend on the number of workers.
        """
        like = winners(counted(report.votes for report in reports))
        wrong = [
            place
            for place, report in enumerate(reports)
            if any(forms != {like[name]} for name, forms in report.taken.items())
        ]
        again = [replace(orders[place], like=like) for place in wrong]
        for place, report in zip(
            wrong, self._dispatch(again, shared) if again else (), strict=True
        ):
            reports[place] = report
        return reports

    def _merge(self, job: Job, positions: int, reports: Sequence[Report]) -> JobResult:
        rows = sorted((r for report in reports for r in report.rows), key=lambda r: r.client_id)
        result = JobResult(rows)
        for name, need in job.needs.items():
            if need == "sum":
                nodes: dict[Key, Node | None] = {}
                for report in reports:
                    nodes.update(report.nodes.get(name, {}))
                total = finish(nodes, positions)
                if total is not None:
                    result.sums[name] = _sum_term(total)
            else:
                entries = [entry for report in reports for entry in report.each.get(name, [])]
                if entries:
                    result.each[name] = _each_term(entries)
        for name in job.keep:
            entries = [entry for report in reports for entry in report.kept.get(name, [])]
            if entries:
                result.kept[name] = _each_term(entries)
        return result


def failed_rows(order: Order, reason: str) -> Report:
    """Make the report of a range whose worker died every time."""
    report = Report()
    report.rows = [ClientRow(item.client_id, "failed", reason) for item in order.items]
    for name, need in order.needs.items():
        if need == "sum":
            report.nodes[name] = {(p, p + 1): None for p in (i.position for i in order.items)}
    return report


def _sum_term(node: Node) -> SumTerm:
    weight: Any
    if isinstance(node.weight, dict):
        weight = {k: w.numpy() for k, w in node.weight.items()}
    else:
        weight = float(node.weight)
    return SumTerm({k: v.numpy() for k, v in node.total.items()}, weight, node.reduce, node.count)


def _each_term(entries: Sequence[Made]) -> EachTerm:
    entries = sorted(entries, key=lambda entry: entry[1])
    names = entries[0][3]
    values = {name: np.stack([entry[3][name] for entry in entries]) for name in names}
    return EachTerm([entry[1] for entry in entries], values, [entry[2] for entry in entries])
