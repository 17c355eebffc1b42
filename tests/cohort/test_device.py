"""Every client's round on another device than the CPU: nothing is left behind, nobody waits."""

from typing import Any

import pytest
import torch

from fedlabels.clients import build
from fedlabels.cohort import FitRequest, FitResult, Nets, TensorSource, tree_map
from fedlabels.cohort import device as devices
from fedlabels.cohort.device import CPU, choose_device, numbers, scope, tune, upload
from fedlabels.data import make_views
from fedlabels.errors import ConfigError
from tests.clients.test_equivalence import CASES
from tests.cohort import test_probes as probes
from tests.cohort.elsewhere import ELSEWHERE, Mixed, WatchedLooped, WatchedStacked, watched
from tests.cohort.harness import SIZES, SPEC, Noise, Probe, World

AWKWARD = [0, 2, 3]  # both parts, no labels, no unlabeled samples


def away(world: World, views: Any = None, shape: tuple[int, ...] = (1, 6, 6)) -> World:
    """Move a world to the other device."""
    client = world.client
    x = torch.rand(sum(map(sum, SIZES)), *shape, device=ELSEWHERE)
    half = torch.tensor(0.5, device=ELSEWHERE)
    world.source = TensorSource(x, half, half, views or {"weak": Noise(0.1), "strong": Noise(0.8)})
    world.nets = Nets(lambda: client.nets(Probe(), SPEC), 3, torch.float32, device=ELSEWHERE)
    return world


def run(world: World, ids: list[int], stacked: bool, watch: Any) -> FitResult:
    kind = WatchedStacked if stacked else WatchedLooped
    cohort = kind(
        spec=SPEC, nets=world.nets, source=world.source, seed=5, round_index=1,
        shards=[world.shards[k] for k in ids],
    )  # fmt: skip
    cohort.watch = watch
    asked = FitRequest("train", 1, 2, {}, {"model": world.nets["model"].init}, {})
    return world.client.fit(cohort, asked)


def places(result: FitResult) -> set[str]:
    """Return the devices of everything that comes out."""
    found: set[str] = set()

    def look(value: torch.Tensor) -> torch.Tensor:
        found.add(value.device.type)
        return value

    for term in result.terms.values():
        tree_map(look, (term.value, {} if term.weight is None else term.weight))
    tree_map(look, {k: (v.sum, v.count) for k, v in result.metrics.items()})
    tree_map(look, dict(result.state))
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.replace(" ", "-"))
def test_a_round_stays_on_the_device_and_its_steps_ask_nothing_of_the_host(case):
    world = away(World(build(CASES[case])))
    with watched() as watch:
        for ids, stacked in (*(([k], False) for k in AWKWARD), (AWKWARD, True)):
            assert places(run(world, ids, stacked, watch)) == {ELSEWHERE.type}
    assert watch.steps > 3
    assert watch.in_scan == []
    assert watch.in_step == []
    assert watch.waits == []


@pytest.mark.parametrize("preset", ["digits", "natural"])
def test_views_ask_nothing_of_the_host(preset):
    client = build({**CASES["fixmatch"], "steps": 1})
    world = away(World(client), make_views(preset))
    with watched() as watch:
        for ids, stacked in (([0], False), ([0, 1], True)):
            run(world, ids, stacked, watch)
    assert watch.waits == watch.in_step == []


def test_views_of_series_ask_nothing_of_the_host():
    view = make_views("timeseries")["strong"]
    with watched() as watch:
        out = view(torch.rand(5, 3, 16, device=ELSEWHERE), torch.rand(5, view.columns))
        assert out.device == ELSEWHERE
    assert watch.waits == []


@pytest.mark.parametrize("preset", ["digits", "fashion", "natural"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_strong_view_computed_everywhere_is_the_same(preset, dtype):
    view = make_views(preset)["strong"]
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(200, 3, 9, 8, generator=generator, dtype=dtype)
    choice, strength = torch.rand(2, 200, view.num_ops, generator=generator, dtype=dtype)
    out, drawn = x, (choice * len(view.ops)).long()
    for slot in range(view.num_ops):
        out = view._everywhere(out, drawn[:, slot], strength[:, slot])
    assert torch.equal(out, view._augmented(x, choice, strength))


# ---- the watch itself must see what it is for


class Wrong(probes.Plain):
    """Does one thing in its step that a GPU would not, or not in time, put up with."""

    def fit(self, cohort, request):
        model = request.shared["model"]

        def step(carry, fixed, batch):
            return carry, {"n": self.wrong(batch)}

        batches = cohort.batches(cohort.samples("labeled"), size=4, steps=2)
        cohort.scan(step, {}, batches, shared={"model": model})
        return FitResult()


def wrong(what: Any, stacked: bool = False) -> Any:
    kind = type("Some", (Wrong,), {"wrong": staticmethod(what)})
    with watched() as watch:
        run(away(World(kind())), [0], stacked, watch)
    return watch


@pytest.mark.parametrize(
    "what",
    [
        lambda batch: batch.x.flatten(1).sum(1) @ torch.ones(4, device=CPU),
        lambda batch: torch.ones(9, device=CPU)[batch.y].sum(),
        lambda batch: (batch.y + torch.ones(4, dtype=torch.int64, device=CPU)).sum(),
    ],
)
@pytest.mark.parametrize("stacked", [False, True])
def test_tensors_of_two_devices_are_seen(what, stacked):
    with pytest.raises(Mixed):
        wrong(what, stacked)


@pytest.mark.parametrize(
    "what",
    [
        lambda batch: batch.y.sum().item() * batch.n,
        lambda batch: batch.n if batch.y.sum() > 0 else batch.n + 1,
        lambda batch: batch.y[batch.y > 0].sum(),
    ],
)
def test_questions_to_the_device_are_seen(what):
    with pytest.raises((RuntimeError, NotImplementedError)):
        wrong(what)


@pytest.mark.parametrize(
    "what",
    [
        lambda batch: batch.n * torch.tensor(2),
        lambda batch: batch.n + torch.arange(3, device=CPU).to(ELSEWHERE).sum(),
        lambda batch: batch.n * batch.x.new_tensor(2.0),
    ],
)
def test_copies_that_wait_are_seen(what):
    watch = wrong(what)
    assert watch.in_scan
    assert watch.in_step
    assert not wrong(lambda batch: batch.n * 2).in_step


def test_a_copy_that_nobody_waits_for_is_none_of_a_scan_but_of_a_step():
    watch = wrong(lambda batch: batch.n + upload(torch.ones((), device=CPU), ELSEWHERE))
    assert watch.in_step
    assert not watch.in_scan


# ---- the choice


def test_auto_is_the_cpu_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == CPU


def test_auto_and_cuda_are_the_first_gpu_that_is_seen(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda", 0)
    assert choose_device("cpu") == CPU


def test_cuda_without_a_gpu_is_one_clear_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"device=cuda was asked for.* use device=auto"):
        choose_device("cuda")
    with pytest.raises(ConfigError, match="device must be one of auto, cpu, cuda, got 'tpu'"):
        choose_device("tpu")


def test_tf32_is_set_for_a_gpu_and_put_back():
    def now() -> tuple[bool, bool]:
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    before = now()
    try:
        for tf32 in (True, False):
            restore = tune(torch.device("cuda"), tf32=tf32)
            assert now() == (tf32, tf32)
            restore()
            assert now() == before
        tune(CPU, tf32=not before[0])()
        assert now() == before
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def test_new_tensors_go_to_the_device_within_its_scope():
    with scope(ELSEWHERE):
        assert torch.arange(3).device == ELSEWHERE
    with scope(CPU):
        assert torch.arange(3).device == CPU


def test_weights_are_drawn_on_the_cpu_within_a_scope_too():
    usual = Nets(lambda: {"model": Probe()}, 3)
    state = torch.get_rng_state()
    with scope(ELSEWHERE):
        inside = Nets(lambda: {"model": Probe()}, 3)
        fresh = inside.fresh("model", 7)
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in usual["model"].init.items():
        assert torch.equal(inside["model"].init[name], value)
        assert torch.equal(fresh[name], usual.fresh("model", 7)[name])


def test_numbers_are_read_as_they_are():
    values = [torch.tensor(3), torch.tensor(0.1), torch.tensor([[2.5]]), torch.tensor(True)]
    assert numbers(values) == [3.0, float(torch.tensor(0.1)), 2.5, 1.0]
    assert devices._in_one(values) == numbers(values)
    assert numbers([]) == []


def test_an_upload_to_the_cpu_is_the_tensor_itself():
    value = torch.rand(3, 2).t()
    assert upload(value, devices.CPU) is value
    there = upload(value, ELSEWHERE)
    assert there.device == ELSEWHERE
    assert there.stride() == value.stride()
