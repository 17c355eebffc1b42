"""Runs the clients of a range: who runs with whom, in which execution, and what if that fails."""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedlabels.cohort import FitRequest, Shard
from fedlabels.cohort.clock import phase
from fedlabels.cohort.engine import Engine, Made, Member
from fedlabels.cohort.probe import OutOfMemory, StackSize, fastest, seconds
from fedlabels.cohort.recorders import RecordError
from fedlabels.cohort.types import EMPTY, Received
from fedlabels.errors import RunError
from fedlabels.rounds.judge import reason_of
from fedlabels.rounds.order import Item, Order
from fedlabels.worker.convert import failure_text, trees_of
from fedlabels.worker.outcome import Outcome, outcomes
from fedlabels.worker.population import Population
from fedlabels.worker.shared import Shared
from fedlabels.worker.state import unflatten

LOG = logging.getLogger(__name__)
Results = list[tuple[Item, Outcome]]

PROBED = 16  # clients that a choice is measured with, at most
PROBES = 2  # timed runs of each execution


class Trainer:
    """Runs ranges of a cohort on one device.

    Parameters
    ----------
    population : Population
        Who runs which client.
    engines : sequence of Engine
        One a group of the population.
    sizes : sequence of StackSize
        Likewise.
    execution : {"auto", "looped", "stacked", "graphed"}
        ``"auto"`` is looped on a CPU; on a GPU the faster one of graphed and stacked, measured
        with the first clients of a group.
    shard : callable
        Returns a client's shard, with hidden labels if asked to.
    truth : ndarray of int64
        The hidden labels, against which pseudo-labels are scored.
    private : sequence of frozenset of str
        Tensors of a group's model that never leave a client.

    Attributes
    ----------
    chosen : dict of int to str
        Execution by group, where it had to be measured.
    """

    def __init__(
        self,
        population: Population,
        engines: Sequence[Engine],
        sizes: Sequence[StackSize],
        execution: str,
        shard: Callable[[int, bool], Shard],
        truth: NDArray[np.int64],
        private: Sequence[frozenset[str]],
    ) -> None:
        self._population, self._engines, self._sizes = population, engines, sizes
        self._shard, self._truth, self._private = shard, truth, private
        if execution == "auto" and not _measured(engines[0].device):
            execution = "looped"
        for engine in engines if execution == "graphed" else ():
            engine.prepare()  # a device without graphs says so now
        self._execution = execution
        self._broken: set[int] = set()
        self.chosen: dict[int, str] = {}

    def run(self, order: Order, trees: Shared) -> Iterator[tuple[Item, Outcome]]:
        """Run the clients of a range, in order; one that raises has an outcome, too.

        Parameters
        ----------
        trees : Shared
            The shared payloads, on the device.
        """
        for engine in self._engines:
            engine.begin()
        self.chosen.update(order.chosen)
        if self._execution == "auto":
            for group in dict.fromkeys(map(self._group, order.items)):
                self._choose(order, trees, group)
        for items in self._cut(order.items, order.block_size):
            with phase("other", [item.client_id for item in items]):
                together = self._together(order, trees, items)
            yield from together

    # ---- who with whom

    def _group(self, item: Item) -> int:
        return int(self._population.members[item.client_id])

    def _execution_of(self, group: int) -> str:
        """Return how a group's clients run."""
        execution = self._execution
        if execution == "auto":
            execution = self.chosen.get(group, "graphed")
        stackable = self._engines[group].client.stackable
        looped = group in self._broken or (execution == "stacked" and not stackable)
        return "looped" if looped else execution

    def _cut(self, items: Sequence[Item], block: int) -> Iterator[list[Item]]:
        """Cut a range into what runs together; a limit counts from the next cut on."""
        current: list[Item] = []
        for item in items:
            if current and (
                len(current) >= self._limit(item) or self._differs(current[-1], item, block)
            ):
                yield current
                current = []
            current.append(item)
        if current:
            yield current

    def _limit(self, item: Item) -> int:
        group = self._group(item)
        execution = self._execution_of(group)
        if execution == "stacked":
            return self._sizes[group].clients
        return self._engines[group].window if execution == "graphed" else 1

    def _differs(self, last: Item, item: Item, block: int) -> bool:
        """Say whether two clients cannot be in one stack: group, state, block."""
        if self._group(last) != self._group(item):
            return True
        if self._execution_of(self._group(item)) == "graphed":
            return False
        return not _alike(last, item, block)

    def _choose(self, order: Order, trees: Shared, group: int) -> None:
        """Measure which execution is the faster one for a group, once."""
        engine = self._engines[group]
        if group in self.chosen or not engine.client.stackable:
            return
        items = [item for item in order.items if self._group(item) == group]
        items = [item for item in items if _alike(items[0], item, order.block_size)][:PROBED]
        if len(items) < 2:
            return  # one client says nothing of many
        request = self._request(order, trees)
        members = self._members(order, items)

        def graphed() -> None:
            for result in engine.graphed(request, members[: engine.window]):
                if isinstance(result, Exception):
                    raise result

        runs = {"graphed": graphed, "stacked": lambda: engine.stacked(request, members)}
        share = {"graphed": min(len(members), engine.window), "stacked": len(members)}
        timed = {name: partial(self._each, run, share[name], engine) for name, run in runs.items()}
        try:
            self.chosen[group] = fastest(timed, f"{len(members)} clients of group {group}")
        except Exception:
            self.chosen[group] = "graphed"  # whatever is wrong is said when they run
        self._restore_written(trees, group)

    @staticmethod
    def _each(run: Callable[[], Any], clients: int, engine: Engine) -> float:
        return seconds(run, engine.device, repeats=PROBES) / clients

    # ---- running them

    def _request(self, order: Order, trees: Shared) -> FitRequest:
        settings = Received("setting", order.settings)
        shared = Received("payload", trees.trees)
        return FitRequest(order.exchange, order.round, order.rounds, settings, shared)

    def _members(self, order: Order, items: Sequence[Item]) -> list[Member]:
        engine = self._engines[self._group(items[0])]
        reveal = engine.client.sees_all_labels or order.reveal
        out = []
        for item in items:
            own, state = EMPTY, EMPTY
            if item.own or item.state:
                with phase("ship"):
                    own = trees_of(item.own, engine.device)
                    state = trees_of(unflatten(item.state or {}), engine.device)
            out.append(Member(self._shard(item.client_id, reveal), own, state))
        return out

    def _together(self, order: Order, trees: Shared, items: Sequence[Item]) -> Results:
        execution = self._execution_of(self._group(items[0]))
        if execution == "graphed":
            return self._graphed(order, trees, items)
        # a stack of one, too, is a stack: its bits must not depend on who is left over
        if execution == "stacked" and self._sizes[self._group(items[0])].clients > 1:
            return self._stacked(order, trees, items)
        return [self._alone(order, trees, item) for item in items]

    def _alone(self, order: Order, trees: Shared, item: Item) -> tuple[Item, Outcome]:
        group = self._group(item)
        engine = self._engines[group]
        try:
            trained = engine.looped(self._request(order, trees), self._members(order, [item])[0])
            self._require_untouched(trees, group)
        except Exception as error:
            self._restore_written(trees, group)
            return item, Outcome(error=failure_text(order.exchange, error))
        try:
            return item, self._read(order, [item], [trained])[0]
        except Exception as error:
            return item, Outcome(problem=reason_of(error))

    def _read(self, order: Order, items: Sequence[Item], results: Sequence[Made]) -> list[Outcome]:
        hidden = self._private[self._group(items[0])]
        return outcomes(results, self._truth, hidden, order.keep)

    def _stacked(self, order: Order, trees: Shared, items: Sequence[Item]) -> Results:
        size = self._sizes[self._group(items[0])]
        found, problem = self._stack(order, trees, items, size)
        if problem is None:
            return list(zip(items, found, strict=True))
        if isinstance(problem, OutOfMemory) and len(items) > 1:
            size.halve(len(items))
            half = -(-len(items) // 2)
            parts = items[:half], items[half:]
            return [out for part in parts for out in self._stacked(order, trees, part)]
        # run one by one to name the client that raised
        alone = [self._alone(order, trees, item) for item in items]
        if all(out.error is None and out.problem is None for _, out in alone):
            LOG.warning("a stack failed and ran one by one, which is slow: %s", problem)
        return alone

    def _stack(
        self, order: Order, trees: Shared, items: Sequence[Item], size: StackSize
    ) -> tuple[list[Outcome], Exception | None]:
        group = self._group(items[0])
        engine = self._engines[group]
        try:
            size.watch()
            results = engine.stacked(self._request(order, trees), self._members(order, items))
            self._require_untouched(trees, group)
            found = self._read(order, items, results)
            size.learn(len(items))
            return found, None
        except Exception as error:
            self._restore_written(trees, group)
            # without its frames, which hold the tensors that did not fit
            return [], error.with_traceback(None)

    def _graphed(self, order: Order, trees: Shared, items: Sequence[Item]) -> Results:
        group = self._group(items[0])
        results = self._engines[group].graphed(
            self._request(order, trees), self._members(order, items)
        )
        good = [one for one in results if isinstance(one, Made)]
        try:
            self._require_untouched(trees, group)
            read = iter(self._read(order, items, good))
        except Exception:  # of one of them: alone each is blamed for itself
            self._restore_written(trees, group)
            return [self._alone(order, trees, item) for item in items]
        return [
            (item, next(read))
            if isinstance(one, Made)
            else self._without_graph(order, trees, item, one)
            for item, one in zip(items, results, strict=True)
        ]

    def _without_graph(
        self, order: Order, trees: Shared, item: Item, error: Exception
    ) -> tuple[Item, Outcome]:
        """Run a client looped whose graph failed; one that raises there, too, has failed."""
        group = self._group(item)
        if isinstance(error, RecordError) and group not in self._broken:
            self._broken.add(group)
            name = type(self._engines[group].client).__name__
            LOG.warning("steps of %s cannot be replayed, they run looped: %s", name, error)
        return self._alone(order, trees, item)

    # ---- what all clients share

    def _require_untouched(self, trees: Shared, group: int) -> None:
        """Refuse what was made by code that writes into the payloads or nets of all clients.

        Raises
        ------
        RunError
            If it does; the tensor is named.
        """
        received, drawn = trees.written(), self._engines[group].nets.written()
        if received is None and drawn is None:
            return
        what = f"received tensor '{received}'" if drawn is None else f"initial tensor '{drawn}'"
        raise RunError(
            f"the client wrote into the {what}, which all clients share: train a copy,"
            " cohort.start(tree), and change nothing in place"
        )

    def _restore_written(self, trees: Shared, group: int) -> None:
        """Copy anew what all clients share after one that failed, if it had written to it."""
        if trees.written() is not None:
            trees.restore()
        nets = self._engines[group].nets
        if nets.written() is not None:
            nets.restore()


def _measured(device: torch.device) -> bool:
    """Say whether the best execution has to be measured."""
    return device.type == "cuda"


def _alike(one: Item, other: Item, block: int) -> bool:
    """Say whether two clients of a group fit into one stack."""
    same_block = one.position // block == other.position // block
    return same_block and (one.state is None) == (other.state is None)
