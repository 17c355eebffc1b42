"""Graphed execution with the recorder for tests: what is replayed is what looped computes.

The recorder writes down what a step does once and does that again: Python control flow, numbers of
closures and addresses of tensors are kept as a CUDA graph keeps them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import torch

from fedlabels.clients import build
from fedlabels.cohort import (
    SGD,
    Client,
    FitRequest,
    FitResult,
    LoopedCohort,
    PseudoLabels,
    Ratio,
    Term,
    tree_map,
)
from fedlabels.cohort.constants import constants
from fedlabels.cohort.device import CPU
from fedlabels.cohort.engine import Engine, Made, Member
from fedlabels.cohort.graphed import KEPT_STEPS, GraphedCohort
from fedlabels.cohort.recorders import Lane, RecordError, TapeRecorder, make_lanes
from fedlabels.cohort.tree import row
from fedlabels.errors import ConfigError
from tests.clients.test_equivalence import CASES
from tests.cohort import test_probes as probes
from tests.cohort.harness import SIZES, SPEC, Probe, World, flat


class Counting(TapeRecorder):
    """Counts recordings and replays."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def record(self, body: Any, pool: Any) -> Any:
        replay, ran = super().record(body, pool)
        self.recorded += 1

        def counted() -> Any:
            self.replayed += 1
            return replay()

        return counted, ran


def graphed(
    world: World, request: FitRequest, lane: Lane, states: Any = None
) -> tuple[list[FitResult], list[list[PseudoLabels]]]:
    """Run every client of a world in one lane, one after the other."""
    lane.begin()
    results, marks = [], []
    for k in range(len(world.shards)):
        own = {name: row(tree, k) for name, tree in request.own.items()}
        cohort = GraphedCohort(
            lane=lane, spec=SPEC, nets=world.nets, source=world.source, seed=5,
            round_index=request.round, shards=[world.shards[k]], state=states[k] if states else {},
        )  # fmt: skip
        results.append(world.client.fit(cohort, replace(request, own=own)))
        marks.append(cohort.pseudo_labels)
    return results, marks


def gap(left: Sequence[FitResult], right: Sequence[FitResult]) -> float:
    """Return the largest difference of anything that comes out."""
    worst = 0.0

    def compare(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        nonlocal worst
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        if a.numel():
            worst = max(worst, (a.double() - b.double()).abs().max().item())
        return a

    for a, b in zip(left, right, strict=True):
        tree_map(compare, flat(a), flat(b))
    return worst


def compared(world: World, rounds: int = 1, **request: Any) -> Counting:
    """Run rounds graphed and looped, with state; the models must have the same bits."""
    recorder = Counting()
    lane, states = Lane(recorder), None
    for round_index in range(1, rounds + 1):
        asked = world.request(round_index=round_index, **request)
        made, _ = graphed(world, asked, lane, states)
        looped = world.looped("train", asked, states)
        assert gap(made, looped) <= 1e-12  # sums over steps are added in another order
        for one, other in zip(made, looped, strict=True):
            for name, term in one.terms.items():
                for key, value in term.value.items():
                    assert torch.equal(value, other.terms[name].value[key])
        states = [dict(r.state) for r in made] if made[0].state else None
    return recorder


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.replace(" ", "-"))
def test_every_client_graphed_equals_looped(case):
    world = World(build(CASES[case]))
    recorder = compared(world, rounds=2)
    assert recorder.replayed > recorder.recorded > 0


PROBES = {
    "sharpness": (probes.Sharpness, None, {}),
    "three optimizers": (probes.ThreeOptimizers, probes.three_nets, {"extra": ("generator",)}),
    "teacher": (probes.Teacher, None, {}),
    "prototypes": (probes.Prototypes, None, {}),
    "whole shard": (probes.WholeShard, None, {}),
    "conditional": (probes.Conditional, lambda: {"model": Probe(("head", "private"))}, {}),
}


@pytest.mark.parametrize("name", PROBES)
def test_awkward_steps_with_state_graphed_equal_looped(name):
    client, nets, more = PROBES[name]
    world = World(client(), nets)
    extra = {key: world.nets[key].init for key in more.get("extra", ())}
    assert compared(world, rounds=2, extra=extra).replayed > 5


def test_pseudo_labels_are_those_of_looped():
    world = World(build(CASES["paper"]))
    request = world.request()
    _, marks = graphed(world, request, Lane(TapeRecorder()))
    kept = 0
    for k in range(len(SIZES)):
        cohort = world.cohort([k], False, 1, None)
        world.client.fit(cohort, request)
        assert rows_of(marks[k]) == rows_of(cohort.pseudo_labels)
        kept += sum(int(m.keep.sum()) for m in marks[k])
    assert kept > 0


def rows_of(marks: Sequence[PseudoLabels]) -> list[tuple[Any, ...]]:
    rows = []
    for m in marks:
        columns = (m.sample, m.label, m.keep, m.expert, *m.candidates.values())
        rows += list(zip(*(c.tolist() for c in columns), strict=True))
    return sorted(rows)


def test_more_steps_than_are_kept_lose_no_pseudo_label():
    settings = {**CASES["paper"], "steps": 1, "steps_unlabeled": KEPT_STEPS + 3}
    world = World(build(settings))
    world.shards = world.shards[:1]
    made, marks = graphed(world, world.request(), Lane(TapeRecorder()))
    assert sum(len(m.sample) for m in marks[0]) == 5 * (KEPT_STEPS + 3)
    assert made[0].metrics["pass_rate"].count == 5 * (KEPT_STEPS + 3)


@dataclass(frozen=True)
class Swapping(Client):
    """Changes places in its carry, and hands out what it was given."""

    def fit(self, cohort, request):
        def step(carry, fixed, batch):
            left, right = carry["left"], carry["right"]
            one = left["v"] + batch.n
            return {
                "left": {"v": right["v"], "w": left["w"].t(), "x": fixed["own"]["v"]},
                "right": {"v": one, "w": left["w"], "x": batch.y.sum()},
            }, {"left": left["v"], "twice": (left["v"], right["v"])[0] * 2}

        count = cohort.samples("labeled").count
        matrix = cohort.map(lambda n: torch.arange(4).reshape(2, 2) + n, count)
        carry = {
            "left": {"v": cohort.map(lambda n: 0 * n, count), "w": matrix, "x": count},
            "right": {"v": cohort.map(lambda n: n + 7, count), "w": cohort.map(torch.clone, matrix),
                      "x": cohort.map(lambda n: n + 1, count)},
        }  # fmt: skip
        batches = cohort.batches(cohort.samples("labeled"), size=2, epochs=2)
        carry, sums = cohort.scan(step, carry, batches, own={"own": {"v": count}})
        return FitResult({"a": Term(carry["left"]), "b": Term(carry["right"]), "s": Term(
            {k: sums[k] for k in ("left", "twice")})})  # fmt: skip


def test_a_carry_whose_entries_change_places():
    assert compared(World(Swapping()), rounds=2).replayed > 10


# ---- what may be replayed for whom


@dataclass(frozen=True)
class Plain(Client):
    """SGD with a rate that follows the round, and a closure over whatever ``held`` makes."""

    lr: float = 0.1
    decay: bool = False
    tensor: bool = False

    def fit(self, cohort, request):
        factor = torch.tensor(float(request.round)) if self.tensor else 1.0
        optimizer = SGD(self.lr / request.round if self.decay else self.lr)

        def loss(net, batch, fixed):
            values = factor * torch.nn.functional.cross_entropy(
                net(batch.x), batch.y, reduction="none"
            )
            return batch.mean(values), {"loss": batch.sum(values)}

        batches = cohort.batches(cohort.samples("labeled"), size=3, steps=4)
        tree, sums = cohort.sgd(cohort.start(request.shared["model"]), loss, batches, optimizer)
        one = cohort.map(lambda n: n * 0 + 1, cohort.samples("labeled").count)
        return FitResult({"model": Term(tree)}, {"loss": Ratio(sums["loss"], one)})


@pytest.mark.parametrize(
    ("client", "times"), [(Plain(), 1), (Plain(decay=True), 3), (Plain(tensor=True), 3)]
)
def test_a_recording_lives_as_long_as_what_its_closure_holds(client, times):
    world = World(client)
    alone = compared(World(client)).recorded
    assert compared(world, rounds=3).recorded == times * alone


def test_recordings_that_a_range_did_not_use_are_dropped():
    lane = Lane(TapeRecorder())
    lane.begin()
    lane.recall("a", list).append(1)
    lane.begin()
    assert lane.recall("a", list) == [1]
    lane.begin()
    lane.recall("b", list)
    lane.begin()
    assert lane.recall("a", list) == []


def test_constants_tell_closures_apart():
    def closure(value: Any) -> Any:
        return lambda x: x * value

    same = [1, 2.0, "a", None, (1, (2.0,)), {"a": [1]}, SGD(0.1), Plain(), frozenset({1}), len]
    for value in same:
        assert constants(closure(value)) == constants(closure(value))
        assert constants(closure(value)) is not None
    values = [1, 1.0, True, 0.0, -0.0, "1", SGD(0.1), SGD(0.2), Plain(), Plain(decay=True), (1,)]
    assert len({constants(closure(v)) for v in values}) == len(values)
    assert constants(partial(closure, 1)) != constants(partial(closure, 2))
    assert constants(Plain(0.1).fit) != constants(Plain(0.2).fit)
    assert constants(lambda x=1: x) != constants(lambda x=2: x)
    for unknown in (torch.ones(1), object(), [torch.ones(1)], closure(torch.ones(1))):
        assert constants(closure(unknown)) is None

    def loop(n: int) -> int:
        return n and loop(n - 1)

    assert constants(loop) == constants(loop)


# ---- what cannot be recorded


@dataclass(frozen=True)
class Peeking(Plain):
    """Asks for a value within its step."""

    stackable = False

    def fit(self, cohort, request):
        def step(carry, fixed, batch):
            return {"n": {"n": carry["n"]["n"] + int(batch.n.item())}}, {}

        carry = {"n": {"n": cohort.map(lambda n: 0 * n, cohort.samples("labeled").count)}}
        batches = cohort.batches(cohort.samples("labeled"), size=3, steps=4)
        carry, _ = cohort.scan(step, carry, batches)
        return FitResult({"n": Term(carry["n"])})


@dataclass(frozen=True)
class Choosing(Plain):
    """Takes as many rows as a mask has."""

    def fit(self, cohort, request):
        def step(carry, fixed, batch):
            return carry, {"n": batch.y[batch.y > 1].sum()}

        batches = cohort.batches(cohort.samples("labeled"), size=3, steps=4)
        return FitResult({"n": Term({"n": cohort.scan(step, {}, batches)[1]["n"]})})


@dataclass(frozen=True)
class Drawing(Plain):
    """Draws from torch's generator, not the batch's."""

    def fit(self, cohort, request):
        def step(carry, fixed, batch):
            return carry, {"n": torch.rand(())}

        batches = cohort.batches(cohort.samples("labeled"), size=3, steps=4)
        return FitResult({"n": Term({"n": cohort.scan(step, {}, batches)[1]["n"]})})


@dataclass(frozen=True)
class Growing(Plain):
    """Changes the type of its carry, which only looped execution can follow."""

    def fit(self, cohort, request):
        def step(carry, fixed, batch):
            return {"n": {"n": carry["n"]["n"] + 0.5}}, {}

        carry = {"n": {"n": cohort.map(lambda n: 0 * n, cohort.samples("labeled").count)}}
        batches = cohort.batches(cohort.samples("labeled"), size=3, steps=4)
        return FitResult({"n": Term(cohort.scan(step, carry, batches)[0]["n"])})


@pytest.mark.parametrize(
    ("client", "text"),
    [
        (Peeking(), "asks the device for a value"),
        (Choosing(), "asks the device for a value"),
        (Drawing(), "draws from its generator"),
        (Growing(), "names, shapes and types"),
    ],
)
def test_what_cannot_be_recorded_says_so(client, text):
    world = World(client)
    with pytest.raises(RecordError, match=text):
        graphed(world, world.request(), Lane(TapeRecorder()))


def test_a_cpu_has_no_graphs():
    with pytest.raises(ConfigError, match=r"execution=graphed.*'cpu' does not have"):
        make_lanes(CPU, 2)


# ---- the engine


def engine_of(world: World, lanes: int = 3) -> Engine:
    return Engine(
        world.client, world.nets, world.source, SPEC, 5, lanes,
        make=lambda device, count: [Lane(TapeRecorder()) for _ in range(count)],
    )  # fmt: skip


def test_the_engine_runs_clients_in_every_execution():
    world = World(build(CASES["fedprox"]))
    request, engine = world.request(), engine_of(world)
    members = [Member(shard) for shard in world.shards]
    looped = [engine.looped(request, member) for member in members]
    stacked = engine.stacked(request, members)
    engine.begin()
    replayed = engine.graphed(request, members)
    assert all(isinstance(made, Made) for made in replayed)
    assert gap([m.result for m in replayed], [m.result for m in looped]) <= 1e-12
    for alone, together in zip(looped, stacked, strict=True):
        for name, value in alone.result.terms["model"].value.items():
            there = together.take(together.result.terms["model"].value[name])
            torch.testing.assert_close(there, value, rtol=0, atol=1e-9)


def test_who_raises_in_a_lane_does_not_harm_the_others():
    world = World(build(CASES["fedavg"]))
    request, engine = world.request(), engine_of(world, lanes=2)
    fit, bad = type(world.client).fit, world.shards[3]

    def spoilt(self, cohort, request):
        if cohort._shards[0] is bad:
            raise ArithmeticError("no luck")
        return fit(self, cohort, request)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(world.client), "fit", spoilt)
        made = engine.graphed(request, [Member(shard) for shard in world.shards])
    assert isinstance(made[3], ArithmeticError)
    good = [m.result for k, m in enumerate(made) if k != 3]
    looped = world.looped("train", request, None)
    assert gap(good, looped[:3] + looped[4:]) <= 1e-12


def test_a_graphed_cohort_is_a_looped_one_outside_of_scans():
    assert GraphedCohort.grad is LoopedCohort.grad
    assert GraphedCohort.map is LoopedCohort.map
