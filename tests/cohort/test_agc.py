"""Adaptive gradient clipping: units, limits, order of operations, the head."""

import pytest
import torch

from fedlabels.clients import build
from fedlabels.cohort import SGD, FitRequest, Layout
from fedlabels.cohort.optimizers import clip_adaptive, clip_units
from fedlabels.models import build as build_model
from tests.cohort.harness import SPEC, World

WEIGHT, GRAD = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.6, 0.8]])


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_by_hand():
    kept, clipped = clip_units(WEIGHT, GRAD, 0.2)
    assert torch.equal(kept, GRAD)
    assert not clipped.any()
    halved, clipped = clip_units(WEIGHT, GRAD, 0.1)
    torch.testing.assert_close(halved, GRAD / 2)
    assert clipped.all()
    assert torch.equal(clip_units(WEIGHT, 1e6 * GRAD, 1e9)[0], 1e6 * GRAD)


def test_zero_weights_count_with_the_floor():
    made, _ = clip_units(torch.zeros(2, 3), torch.ones(2, 3), 0.5)
    torch.testing.assert_close(made.norm(dim=1), torch.full((2,), 0.5e-3))


def test_scaling_both_scales_the_result():
    weight, grad = random(4, 3, 2, 2), random(4, 3, 2, 2, seed=1)
    torch.testing.assert_close(
        clip_units(7 * weight, 7 * grad, 0.1)[0], 7 * clip_units(weight, grad, 0.1)[0]
    )


@pytest.mark.parametrize(
    ("shape", "units"),
    [((4, 3, 2, 2), 4), ((4, 1, 3, 3), 4), ((5, 7), 5), ((4, 3, 5), 4), ((6,), 1), ((), 1),
     ((6, 1, 1, 1), 1), ((6, 1), 1), ((1, 7), 1)],
)  # fmt: skip
def test_units_are_filters_rows_and_whole_vectors(shape, units):
    weight, grad = random(*shape), 100 * random(*shape, seed=1)
    made, clipped = clip_units(weight, grad, 0.3)
    assert clipped.numel() == units
    assert clipped.all()
    norms = made.reshape(units, -1).norm(dim=1)
    torch.testing.assert_close(norms, 0.3 * weight.reshape(units, -1).norm(dim=1))


def test_named_tensors_are_left_alone():
    tree = {"a": WEIGHT, "head.weight": WEIGHT}
    made = clip_adaptive(tree, dict.fromkeys(tree, 100 * GRAD), 0.1, skip={"head.weight"})
    assert torch.equal(made["head.weight"], 100 * GRAD)
    assert made["a"].norm() == pytest.approx(0.5)


def test_comes_before_decay_and_momentum():
    tree = {"w": WEIGHT.clone()}
    optimizer = SGD(0.1, momentum=0.9, weight_decay=0.5, agc=0.1)
    state = {"momentum": {"w": torch.ones(1, 2)}}
    moved, state = optimizer.step(tree, {"w": GRAD}, state)
    velocity = 0.9 + GRAD / 2 + 0.5 * WEIGHT
    torch.testing.assert_close(state["momentum"]["w"], velocity)
    torch.testing.assert_close(moved["w"], WEIGHT - 0.1 * velocity)


def test_layout_knows_the_head():
    assert Layout(build_model("lenet", SPEC)).head == {"head.weight", "head.bias"}
    assert Layout(torch.nn.Linear(2, 2)).head == frozenset()


@pytest.mark.parametrize("name", ["fedavg", "fedprox", "fixmatch", "fedbn"])
def test_clients_leave_the_head_unclipped(name):
    """With a ratio of almost 0 nothing moves but the last layer."""
    moved = {}
    for agc in (1e-9, None):
        world = World(build({"name": name, "batch_size": 4, "steps": 2, "agc": agc}))
        result = world.client.fit(world.cohort([0], False, 1, None), world.request())
        moved[agc] = {
            k: float((v - world.nets["model"].init[k]).abs().max())
            for k, v in result.terms["model"].value.items()
            if k in world.nets["model"].parameters
        }
    heads = {k for k in moved[None] if k.startswith("head.")}
    assert all(v > 1e-4 for k, v in moved[None].items() if k.endswith("weight"))
    assert all(v < 1e-8 for k, v in moved[1e-9].items() if k not in heads)
    assert all(moved[1e-9][k] > 1e-4 for k in heads)


def test_decay_can_leave_biases_and_gains_out():
    net = build_model("lenet", SPEC, norm="ws")
    request = FitRequest("train", 1, 1)
    some, every = (
        build({"name": "fedavg", "weight_decay": 0.1, "decay_biases": b}).make_optimizer(
            request, Layout(net)
        )
        for b in (False, True)
    )
    assert every.decay_skip == frozenset()
    assert {"body.0.gain", "body.0.bias", "head.bias"} <= some.decay_skip
    assert "body.0.weight" not in some.decay_skip
    tree = {k: v.detach().clone() + 1 for k, v in net.named_parameters()}
    before = {k: v.clone() for k, v in tree.items()}
    moved, _ = some.step(tree, {k: torch.zeros_like(v) for k, v in tree.items()}, {})
    for name, value in before.items():
        assert torch.equal(moved[name], value) == (name in some.decay_skip)
