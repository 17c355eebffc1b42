"""A worker: holds the data on its device and trains ranges of a cohort."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fedlabels import plugins
from fedlabels.cohort import DataSpec, Layout, Net, Nets, Shard, Term
from fedlabels.cohort.clock import Track, during, handed_over, phase, recorded
from fedlabels.cohort.device import choose_device, tune, upload
from fedlabels.cohort.engine import Engine
from fedlabels.cohort.probe import CudaMemory, StackSize
from fedlabels.cohort.types import Indices
from fedlabels.data import ArrayDataset, make_views
from fedlabels.federation import Federation
from fedlabels.federation.ragged import union
from fedlabels.machine.memory import keep_memory
from fedlabels.machine.process import ProcessSettings
from fedlabels.models import build as build_model
from fedlabels.rounds.job import Arrays, ClientRow, num_bytes
from fedlabels.rounds.judge import (
    Judge,
    Known,
    Like,
    RejectedError,
    check_metrics,
    check_tested,
    difference,
    reason_of,
    vote,
)
from fedlabels.rounds.order import Item, Order, Report
from fedlabels.rounds.reduce import Buffers, TreeSum
from fedlabels.rounds.terms import size
from fedlabels.worker.convert import begin_from, copies_of, tensors
from fedlabels.worker.evaluation import MOST_PROBABILITIES, Scored, scored
from fedlabels.worker.kept import check_state, held
from fedlabels.worker.outcome import Outcome
from fedlabels.worker.population import Population
from fedlabels.worker.shared import Shared
from fedlabels.worker.source import resident
from fedlabels.worker.trainer import Trainer

if TYPE_CHECKING:
    from fedlabels.worker.mods import Mods

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
    execution : {"auto", "looped", "stacked", "graphed"}
        How cohorts run, see `Trainer`; clients that cannot be stacked are looped instead.
    stack_size : int or None
        Clients in a stack at most; None measures it on a GPU and is 16 on a CPU.
    threads : int
        torch threads.
    dtype : str
        ``"float32"``, ``"float64"``, or ``"bfloat16"``: float32 weights and sums, products and
        convolutions in bfloat16.
    profile : bool
        Whether workers time their phases; it changes no result.
    device : {"auto", "cpu", "cuda"}
        Where they compute; ``"auto"`` is CUDA where the worker sees a GPU.
    tf32 : bool
        Whether a GPU rounds the factors of float32 products to 10 bits.
    lanes : int
        Clients that graphed execution keeps going at once.
    mods : tuple of str
        Flower's mods around what a client sends, outermost first; see `worker.mods`.
    plugins : mapping of str to str
        Packages that hold the clients, with their hashes; see `fedlabels.plugins`.
    start : dict of str to ndarray, or None
        Weights from which models begin, the global one and those of clients, by name.
    """

    train: ArrayDataset
    test: ArrayDataset
    federation: Federation
    population: Population
    views: str
    seed: int
    view_options: Mapping[str, Any] = field(default_factory=dict)
    execution: str = "looped"
    stack_size: int | None = None
    threads: int = 1
    dtype: str = "float32"
    profile: bool = False
    device: str = "cpu"
    tf32: bool = True
    lanes: int = 4
    mods: tuple[str, ...] = ()
    plugins: Mapping[str, str] = field(default_factory=dict)
    start: Arrays | None = None


class Worker:
    """Trains clients in this process.

    Parameters
    ----------
    spec : WorkerSpec
        What to hold.

    Attributes
    ----------
    device : torch.device
        Where it computes.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        plugins.check(spec.plugins)
        self._before = ProcessSettings()
        self._untune: Callable[[], None] = lambda: None
        try:
            self._set_up(spec)
        except BaseException:  # nobody will close it
            self.restore()
            raise

    def restore(self) -> None:
        """Put back what it set for its process: threads, denormals, precision of a GPU."""
        self._before.put_back()
        self._untune()

    def _set_up(self, spec: WorkerSpec) -> None:
        torch.set_num_threads(spec.threads)
        keep_memory()
        torch.set_flush_denormal(True)  # over-confident softmax makes denormal gradients: slow
        self._spec, self._buffers = spec, Buffers()
        self._tracks: list[Track] | None = [] if spec.profile else None
        self._low = torch.bfloat16 if spec.dtype == "bfloat16" else None
        self._dtype = torch.float32 if self._low else getattr(torch, spec.dtype)
        self._data = DataSpec(tuple(spec.train.x.shape[1:]), spec.train.num_classes)
        views = make_views(spec.views, **spec.view_options)
        self.device = choose_device(spec.device)
        self._untune = tune(self.device, tf32=spec.tf32)
        self._source = resident((spec.train, spec.test), views, self._dtype, self.device)
        self._first_test = len(spec.train.y)  # test samples follow the training samples
        self._nets = [self._build(g) for g in spec.population.groups]
        first = self._nets[0]["model"]
        model = {k: Like(v.shape, v.dtype) for k, v in first.init.items()}
        self._judge = Judge(tuple(model), first.layout.floored, {"model": Known(model)})
        private = [
            group.client.private(Layout(nets["model"].skeleton))
            for group, nets in zip(spec.population.groups, self._nets, strict=True)
        ]
        self._engines = [
            Engine(group.client, nets, self._source, self._data, spec.seed, spec.lanes)
            for group, nets in zip(spec.population.groups, self._nets, strict=True)
        ]
        self._mods = _mods_of(spec.mods, self._nets[0]["model"])
        memory = CudaMemory(self.device) if self.device.type == "cuda" else None
        self._trainer = Trainer(
            spec.population, self._engines,
            [StackSize(spec.stack_size, memory) for _ in self._engines],
            spec.execution, self.shard, spec.train.y, private,
        )  # fmt: skip

    def _build(self, group: Any) -> Nets:
        def factory() -> dict[str, torch.nn.Module]:
            model = build_model(group.model, self._data, **group.settings)
            if self._spec.start is not None:
                begin_from(model, self._spec.start)
            nets: dict[str, torch.nn.Module] = group.client.nets(model, self._data)
            return nets

        return Nets(factory, self._spec.seed, self._dtype, self._low, self.device)

    def initial(self, group: int = 0, net: str = "model") -> Arrays:
        """Return the initial weights of a net."""
        return {k: v.cpu().numpy().copy() for k, v in self._nets[group][net].init.items()}

    # ---- training

    def run(self, order: Order, shared: Mapping[str, Arrays]) -> Report:
        """Run an exchange for a range of clients; a client that raises becomes a failed row."""
        began = time.perf_counter()
        tests = order.exchange == "evaluate"
        base = "evaluate" if tests else "other"
        with recorded(self._tracks, order.exchange, base, flat=tests):
            report = self._run(order, shared)
        report.seconds = time.perf_counter() - began
        return report

    def alone(self, order: Order, shared: Mapping[str, Arrays]) -> Outcome:
        """Run the only client of an order and return what it made, not reduced: as a device does.

        Raises
        ------
        ValueError
            If there are more.
        """
        ((_, outcome),) = self._trainer.run(order, Shared(shared, self.device))
        if not self._mods:
            return outcome
        return self._mods.around(self._mods.message(order, shared), outcome)

    def tracks(self, events: bool) -> tuple[float, list[Track]]:
        """Return the time by this process's clock, and what was timed since the last call."""
        return time.perf_counter(), handed_over(self._tracks, events)

    def _run(self, order: Order, shared: Mapping[str, Arrays]) -> Report:
        with phase("ship"):
            trees = Shared(shared, self.device)
        down = sum(num_bytes(arrays) for arrays in shared.values())
        report = Report()
        sums = {
            name: TreeSum(order.cohort, self._buffers)
            for name, need in order.needs.items()
            if need == "sum"
        }
        asked = self._mods.message(order, shared) if self._mods else None
        for item, out in self._trainer.run(order, trees):
            if self._mods and asked:
                out = self._mods.around(asked, out)
            self._take(order, report, sums, item, out, down)
        report.chosen = dict(self._trainer.chosen)
        with phase("ship_back"):
            for name, tree in sums.items():
                nodes = tree.nodes.items()
                report.nodes[name] = {k: node and node.home() for k, node in nodes}
        return report

    def shard(self, client_id: int, reveal: bool) -> Shard:
        """Return who may see what; ``reveal`` gives the hidden labels, for the upper bound.

        A test sample whose class nobody knows is left out: nobody is scored on it.
        """
        federation, truth = self._spec.federation, self._spec.train.y
        labeled, unlabeled = federation.labeled[client_id], federation.unlabeled[client_id]
        if reveal:
            both = union(labeled, unlabeled)
            labeled, unlabeled = both[truth[both] >= 0], both[truth[both] < 0]
        test = federation.test[client_id]
        test = test[self._spec.test.y[test] >= 0]
        labels = truth[labeled] if reveal else federation.labels_of(client_id)
        truth_of_test = self._spec.test.y[test]
        place = test + self._first_test
        return Shard(client_id, labeled, labels, unlabeled, place, truth_of_test)

    @during("reduce")
    def _take(
        self,
        order: Order,
        report: Report,
        sums: Mapping[str, TreeSum],
        item: Item,
        out: Outcome,
        down: int,
    ) -> None:
        """Check one client's result and add it to the report."""
        row = ClientRow(item.client_id, "ok", out.error)
        row.bytes_down = down + sum(num_bytes(arrays) for arrays in item.own.values())
        terms: Mapping[str, Term] = {}
        if out.error is not None:
            row.status = "failed"
        else:
            try:
                terms = self._judged(order, report, item, out, row)
            except Exception as error:  # whatever a client returns, the run goes on without it
                row.status, row.error = "rejected", reason_of(error)
                row.weight, row.metrics = 0.0, {}
        report.rows.append(row)
        used = row.status == "ok"
        for name, need in order.needs.items():
            term = terms.get(name) if used else None
            if need == "sum":
                sums[name].push(item.position, term)
            elif term is not None:
                weight, value = out.weight(name), copies_of(term.value)
                made_by = (item.position, item.client_id, weight, value)
                report.each.setdefault(name, []).append(made_by)
        for name, whole in out.kept.items() if used else ():
            kept = (item.position, item.client_id, out.weight(name), whole)
            report.kept.setdefault(name, []).append(kept)

    def _judged(
        self, order: Order, report: Report, item: Item, out: Outcome, row: ClientRow
    ) -> dict[str, Term]:
        """Return a client's terms in the order of names that is due, and fill its row.

        Raises
        ------
        RejectedError
            If something of the result cannot be used. Nothing of the client is in the report then.
        """
        if out.problem is not None:
            raise RejectedError(out.problem)
        self._judge.reduces = order.reduces
        terms, forms = self._judge.terms(out.terms, out.read)
        check_metrics(out.metrics, finite=bool(order.needs))
        if order.exchange == "evaluate":
            check_tested(out.metrics, len(self._spec.federation.test[item.client_id]))
        if out.state is not None:
            check_state(out.state)
        out.terms = terms
        needed = {name: form for name, form in forms.items() if name in order.needs}
        # what nobody asked for is no reason to count a client
        weight = out.weight(*needed) if needed else 0.0
        size_up = sum(size(terms[name]) for name in needed)
        vote(report.votes, item.position, needed)
        for name, form in needed.items():
            if order.needs[name] == "each":  # it is kept as arrays, not added up
                for key, value in terms[name].value.items():
                    held(f"term '{name}': tensor '{key}'", value)
            due = order.like.get(name) or next(iter(report.taken.get(name, (form,))))
            if form != due:
                raise RejectedError(f"term '{name}': {difference(form, due)}")
        for name, form in needed.items():
            report.taken.setdefault(name, {form})
        row.weight, row.bytes_up = weight, size_up
        row.metrics = dict(out.metrics)
        row.status = "empty" if order.needs and weight == 0 else "ok"
        if out.state is not None:
            report.states[item.client_id] = out.state
        return terms

    # ---- evaluation

    def evaluate(
        self, model: Arrays, start: int, stop: int, part: Indices | None = None
    ) -> list[Scored]:
        """Score a model on a range of blocks of the test set, or of a part of it, one by one.

        Of the whole test set probabilities are told, too, unless they are too many.
        """
        chosen = np.arange(len(self._spec.test.y)) if part is None else part
        with recorded(self._tracks, "evaluate", base="evaluate", flat=True):
            return self._score(model, chosen, range(start, stop), whole=part is None)

    def _score(self, model: Arrays, chosen: Indices, blocks: range, *, whole: bool) -> list[Scored]:
        cohort = self._engines[0].cohort()
        tree, net = tensors(model, self.device), cohort.net("model")
        cuts = [chosen[b * EVALUATION_ROWS : (b + 1) * EVALUATION_ROWS] for b in blocks]
        # all are computed before the first is read: a GPU is waited for once
        logits = [cohort.map(lambda x: net.at(tree)(x), self._test_rows(rows)) for rows in cuts]
        truth = self._spec.test.y
        kept = whole and len(truth) * self._data.num_classes <= MOST_PROBABILITIES
        return [
            scored(values.cpu(), torch.from_numpy(truth[rows]), probabilities=kept)
            for values, rows in zip(logits, cuts, strict=True)
        ]

    def _test_rows(self, rows: Indices) -> Tensor:
        index = upload(torch.from_numpy(rows + self._first_test), self.device)
        return self._source.rows(index, "plain", torch.empty(len(rows), 0))


def _mods_of(names: tuple[str, ...], net: Net) -> "Mods | None":
    """Return the mods around what clients send; Flower is loaded where there are any."""
    if not names:
        return None
    from fedlabels.worker.mods import Mods

    return Mods(names, net.layout.names(role="buffer"))
