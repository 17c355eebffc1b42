"""A worker: holds the data on its device and trains ranges of a cohort."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedlabels.cohort import (
    Cohort,
    DataSpec,
    FitRequest,
    FitResult,
    Layout,
    LoopedCohort,
    Nets,
    Shard,
    StackedCohort,
    Term,
)
from fedlabels.cohort.tree import row, stack
from fedlabels.cohort.types import Scalar
from fedlabels.data import ArrayDataset, make_views
from fedlabels.federation import Federation
from fedlabels.models import build as build_model
from fedlabels.simulation.convert import arrays_of, tensors, told, trees_of
from fedlabels.simulation.evaluation import Scored, scored
from fedlabels.simulation.job import Arrays, ClientRow, Need, num_bytes
from fedlabels.simulation.memory import keep_memory
from fedlabels.simulation.population import Population
from fedlabels.simulation.reduce import Buffers, Key, Node, TreeSum, leaf
from fedlabels.simulation.scoring import score
from fedlabels.simulation.source import resident
from fedlabels.simulation.state import flatten, unflatten
from fedlabels.simulation.terms import finite, misfit, size, weight_of

LOG = logging.getLogger(__name__)
EVALUATION_ROWS = 500  # fixed: the sum of the test loss must not depend on the number of workers


@dataclass(frozen=True)
class WorkerSpec:
    """Everything a worker needs, sent once.

    Parameters
    ----------
    train, test : ArrayDataset
        The data; the training set's labels are the hidden truth and stay in the worker.
    federation : Federation
        Who holds what.
    population : Population
        Who runs which client.
    views, view_options : str and mapping
        Preset of the weak and strong views, and what differs from it.
    seed : int
        The run's seed.
    execution : {"looped", "stacked"}
        How cohorts run; clients that cannot be stacked are always looped.
    stack_size : int
        Clients in a stack at most.
    threads : int
        torch threads.
    dtype : str
        ``"float32"``, ``"float64"``, or ``"bfloat16"``: float32 weights and sums, products and
        convolutions in bfloat16.
    """

    train: ArrayDataset
    test: ArrayDataset
    federation: Federation
    population: Population
    views: str
    seed: int
    view_options: Mapping[str, Any] = field(default_factory=dict)
    execution: str = "looped"
    stack_size: int = 16
    threads: int = 1
    dtype: str = "float32"


@dataclass(frozen=True)
class Item:
    """One client of a range: its position in the cohort, payload and committed state."""

    position: int
    client_id: int
    own: Mapping[str, Arrays]
    state: Arrays | None


@dataclass(frozen=True)
class Order:
    """A contiguous range of a cohort.

    Parameters
    ----------
    exchange, round, rounds, settings, needs
        Of the job.
    items : tuple of Item
        In ascending position.
    block_size : int
        Stacks never cross a multiple of it.
    cohort : int
        Positions of the whole cohort.
    """

    exchange: str
    round: int
    rounds: int
    settings: Mapping[str, Scalar]
    needs: Mapping[str, Need]
    items: tuple[Item, ...]
    block_size: int
    cohort: int


@dataclass
class Report:
    """What a worker sends back for a range.

    Parameters
    ----------
    rows : list of ClientRow
        One per item.
    nodes : dict of term to subtrees
        Of terms needed as sums.
    each : dict of term to list of (position, client_id, weight, Arrays)
        Of terms needed one by one.
    states : dict of client_id to Arrays
        New states, flat.
    shapes : dict of term to shapes by name
        What the first accepted client of the range sent; its neighbours must send the same.
    seconds : float
        Time of work.
    """

    rows: list[ClientRow] = field(default_factory=list)
    nodes: dict[str, dict[Key, Node | None]] = field(default_factory=dict)
    each: dict[str, list[tuple[int, int, float, Arrays]]] = field(default_factory=dict)
    states: dict[int, Arrays] = field(default_factory=dict)
    shapes: dict[str, dict[str, torch.Size]] = field(default_factory=dict)
    seconds: float = 0.0


class Worker:
    """Trains clients in this process.

    Parameters
    ----------
    spec : WorkerSpec
        What to hold.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        torch.set_num_threads(spec.threads)
        keep_memory()
        torch.set_flush_denormal(True)  # over-confident softmax makes denormal gradients: slow
        self._spec, self._buffers = spec, Buffers()
        self._low = torch.bfloat16 if spec.dtype == "bfloat16" else None
        self._dtype = torch.float32 if self._low else getattr(torch, spec.dtype)
        self._data = DataSpec(tuple(spec.train.x.shape[1:]), spec.train.num_classes)
        views = make_views(spec.views, **spec.view_options)
        self._source = resident(spec.train, views, self._dtype)
        self._test = resident(spec.test, {}, self._dtype)
        self._nets = [self._build(g) for g in spec.population.groups]
        self._shapes = {k: v.shape for k, v in self._nets[0]["model"].init.items()}
        self._private = [
            group.client.private(Layout(nets["model"].skeleton))
            for group, nets in zip(spec.population.groups, self._nets, strict=True)
        ]

    def _build(self, group: Any) -> Nets:
        def factory() -> dict[str, torch.nn.Module]:
            model = build_model(group.model, self._data, **group.settings)
            nets: dict[str, torch.nn.Module] = group.client.nets(model, self._data)
            return nets

        return Nets(factory, self._spec.seed, self._dtype, self._low)

    def initial(self, group: int = 0, net: str = "model") -> Arrays:
        """Return the initial weights of a net."""
        return {k: v.numpy().copy() for k, v in self._nets[group][net].init.items()}

    # ---- training

    def run(self, order: Order, shared: Mapping[str, Arrays]) -> Report:
        """Run an exchange for a range of clients; a client that raises becomes a failed row."""
        began = time.perf_counter()
        trees = {name: tensors(arrays) for name, arrays in shared.items()}
        down = sum(num_bytes(arrays) for arrays in shared.values())
        report = Report()
        sums = {
            name: TreeSum(order.cohort, self._buffers)
            for name, need in order.needs.items()
            if need == "sum"
        }
        for stack_items in self._stacks(order):
            for item, out in self._run_stack(order, trees, stack_items):
                self._take(report, sums, order.needs, item, out, down)
        report.nodes = {name: tree.nodes for name, tree in sums.items()}
        report.seconds = time.perf_counter() - began
        return report

    def _stacks(self, order: Order) -> Iterator[list[Item]]:
        """Cut a range into stacks: one group, all with or all without state, inside a block."""
        current: list[Item] = []
        for item in order.items:
            if current and (
                len(current) >= self._limit(item) or self._differs(order, current[-1], item)
            ):
                yield current
                current = []
            current.append(item)
        if current:
            yield current

    def _limit(self, item: Item) -> int:
        group = self._spec.population.groups[self._group(item)]
        stacked = self._spec.execution == "stacked" and group.client.stackable
        return self._spec.stack_size if stacked else 1

    def _differs(self, order: Order, last: Item, item: Item) -> bool:
        return (
            self._group(last) != self._group(item)
            or (last.state is None) != (item.state is None)
            or last.position // order.block_size != item.position // order.block_size
        )

    def _group(self, item: Item) -> int:
        return int(self._spec.population.members[item.client_id])

    def _run_stack(
        self, order: Order, trees: Mapping[str, Any], items: Sequence[Item]
    ) -> list[tuple[Item, "_Outcome"]]:
        stacked = self._limit(items[0]) > 1
        try:
            return list(zip(items, self._fit(order, trees, items, stacked), strict=True))
        except Exception as error:
            if stacked:  # run one by one to name the client that raised
                alone = [out for item in items for out in self._alone(order, trees, item)]
                if all(out.error is None for _, out in alone):
                    LOG.warning("a stack failed and ran one by one, which is slow: %s", error)
                return alone
            return [(item, _Outcome(error=told(order.exchange, error))) for item in items]

    def _alone(
        self, order: Order, trees: Mapping[str, Any], item: Item
    ) -> list[tuple[Item, "_Outcome"]]:
        try:
            return [(item, self._fit(order, trees, [item], False)[0])]
        except Exception as error:
            return [(item, _Outcome(error=told(order.exchange, error)))]

    def _fit(
        self, order: Order, trees: Mapping[str, Any], items: Sequence[Item], stacked: bool
    ) -> list["_Outcome"]:
        group = self._group(items[0])
        client = self._spec.population.groups[group].client
        kind: type[Cohort] = StackedCohort if stacked else LoopedCohort
        states = [trees_of(unflatten(i.state)) for i in items if i.state is not None]
        own = [trees_of(i.own) for i in items]
        cohort = kind(
            spec=self._data,
            nets=self._nets[group],
            source=self._source,
            shards=[self.shard(i.client_id, client.sees_all_labels) for i in items],
            seed=self._spec.seed,
            round_index=order.round,
            state=(stack(states) if stacked else states[0]) if states else {},
        )
        request = FitRequest(
            order.exchange, order.round, order.rounds, order.settings, trees,
            stack(own) if stacked else own[0],
        )  # fmt: skip
        method = getattr(client, "fit" if order.exchange == "train" else order.exchange)
        result: FitResult = method(cohort, request)
        hidden = self._private[group]
        return [
            self._outcome(cohort, result, hidden, k if stacked else None) for k in range(len(items))
        ]

    def shard(self, client_id: int, reveal: bool) -> Shard:
        """Return who may see what; ``reveal`` gives the hidden labels, for the upper bound."""
        federation, truth = self._spec.federation, self._spec.train.y
        labeled, unlabeled = federation.labeled[client_id], federation.unlabeled[client_id]
        if reveal:
            both = np.union1d(labeled, unlabeled)
            labeled, unlabeled = both[truth[both] >= 0], both[truth[both] < 0]
        test = federation.test[client_id]
        labels = truth[labeled] if reveal else federation.given_to(client_id)
        return Shard(client_id, labeled, labels, unlabeled, test, self._spec.test.y[test])

    def _outcome(
        self, cohort: Cohort, result: FitResult, private: frozenset[str], k: int | None
    ) -> "_Outcome":
        def take(value: Any) -> Any:
            return value if k is None else row(value, k)

        terms = {}
        for name, term in result.terms.items():
            weight = None if term.weight is None else take(term.weight)
            value = {k: v for k, v in term.value.items() if name != "model" or k not in private}
            terms[name] = Term(take(value), weight, term.reduce)
        metrics = {
            name: (float(take(ratio.sum)), float(take(ratio.count)))
            for name, ratio in result.metrics.items()
        }
        metrics.update(score(cohort.pseudo_labels, self._spec.train.y, k))
        state = {name: arrays_of(take(dict(tree))) for name, tree in result.state.items()}
        return _Outcome(terms, metrics, flatten(state) if state else None)

    def _take(
        self,
        report: Report,
        sums: Mapping[str, TreeSum],
        needs: Mapping[str, Need],
        item: Item,
        out: "_Outcome",
        down: int,
    ) -> None:
        """Check one client's result and add it to the report."""
        made = ClientRow(item.client_id, "ok", out.error, metrics=out.metrics)
        made.bytes_down = down + sum(num_bytes(arrays) for arrays in item.own.values())
        made.bytes_up = sum(size(term) for name, term in out.terms.items() if name in needs)
        bad = self._problem(out.terms, report.shapes)
        if out.error is not None:
            made.status = "failed"
        elif bad is not None:
            made.status, made.error = "rejected", bad
            made.metrics = {}
        else:
            made.weight = weight_of(out.terms)
            for name, sent in out.terms.items():
                if name not in report.shapes:
                    report.shapes[name] = {k: v.shape for k, v in sent.value.items()}
            made.status = "empty" if needs and made.weight == 0 else "ok"
            if out.state is not None:
                report.states[item.client_id] = out.state
        report.rows.append(made)
        used = made.status == "ok"
        for name, need in needs.items():
            term = out.terms.get(name) if used else None
            if need == "sum":
                sums[name].push(item.position, None if term is None else leaf(term, self._buffers))
            elif term is not None:
                weight, value = weight_of({name: term}), arrays_of(term.value)
                made_by = (item.position, item.client_id, weight, value)
                report.each.setdefault(name, []).append(made_by)

    def _problem(
        self, terms: Mapping[str, Term], shapes: Mapping[str, Mapping[str, torch.Size]]
    ) -> str | None:
        """Say why an update cannot be used: it must fit the model and its neighbours, be finite."""
        model = self._shapes
        for name, term in terms.items():
            wrong = misfit(term, model, whole=False) if name == "model" else None
            wrong = wrong or (misfit(term, shapes[name], whole=True) if name in shapes else None)
            if wrong is not None:
                return f"term '{name}': {wrong}"
            if not finite(term):
                return f"term '{name}' has entries that are not finite"
        return None

    # ---- evaluation

    def evaluate(self, model: Arrays, start: int, stop: int) -> list[Scored]:
        """Score a model on a range of blocks of the global test set, block by block."""
        cohort = LoopedCohort(
            spec=self._data, nets=self._nets[0], source=self._test, shards=[Shard(0)],
            seed=self._spec.seed, round_index=0,
        )  # fmt: skip
        tree, net = tensors(model), cohort.net("model")
        out = []
        for block in range(start, stop):
            rows = np.arange(
                block * EVALUATION_ROWS, min((block + 1) * EVALUATION_ROWS, len(self._spec.test.y))
            )
            index = torch.from_numpy(rows)
            x = self._source_rows(index)
            logits = cohort.map(lambda x: net.at(tree)(x), x)
            out.append(scored(logits, torch.from_numpy(self._spec.test.y[rows])))
        return out

    def _source_rows(self, index: Tensor) -> Tensor:
        return self._test.rows(index, "plain", torch.empty(len(index), 0))


@dataclass
class _Outcome:
    terms: dict[str, Term] = field(default_factory=dict)
    metrics: dict[str, tuple[float, float]] = field(default_factory=dict)
    state: Arrays | None = None
    error: str | None = None
