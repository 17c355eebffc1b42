"""Two ways to convolve for many clients: the same numbers, and a choice by measurement."""

import itertools

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from fedlabels.cohort.context import primitive
from fedlabels.models import build, convolution
from fedlabels.models.convolution import PATCHES, PLAIN, Conv2d, by_patches, forced
from tests.cohort.harness import SPEC, World, check

CASES = list(itertools.product((1, 2), (0, 1, 2), (True, False), (1, 3, 5)))


def clients(net: nn.Module, count: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        k: v + 0.3 * torch.randn(count, *v.shape, generator=generator, dtype=v.dtype)
        for k, v in net.state_dict().items()
    }


def results(net: nn.Module, weights, x, lowering: str):
    def loss(weights, x):
        out = functional_call(net, weights, (x,))
        return (out * out.sin()).sum(), out

    with forced(lowering), primitive(donate=False, clients=len(x)):
        return vmap(grad(loss, argnums=(0, 1), has_aux=True))(weights, x)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize(("stride", "padding", "bias", "kernel"), CASES)
def test_both_ways_agree_in_values_and_gradients(dtype, tolerance, stride, padding, bias, kernel):
    net = Conv2d(3, 4, kernel, stride, padding, bias=bias).to(dtype)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(5, 2, 3, 9, 7, generator=generator, dtype=dtype)
    weights = clients(net, 5)
    (left, left_x), left_out = results(net, weights, x, PLAIN)
    (right, right_x), right_out = results(net, weights, x, PATCHES)
    pairs = [(left_x, right_x), (left_out, right_out), *((left[k], right[k]) for k in left)]
    for a, b in pairs:
        scale = float(a.abs().max())
        assert scale > 0
        assert float((a - b).abs().max()) <= tolerance * max(scale, 1.0)


def test_patches_have_second_derivatives():
    generator = torch.Generator().manual_seed(0)
    x, weight = (
        torch.randn(*s, generator=generator, dtype=torch.float64, requires_grad=True)
        for s in ((2, 2, 5, 4), (3, 2, 3, 2))
    )
    assert torch.autograd.gradgradcheck(
        lambda x, w: by_patches(x, w, None, (2, 1), (1, 0)), (x, weight)
    )


def test_a_single_client_is_computed_as_ever():
    net = Conv2d(2, 3, 3)
    x = torch.rand(4, 2, 6, 6)
    with forced(PATCHES):
        assert torch.equal(net(x), nn.functional.conv2d(x, net.weight, net.bias))


@pytest.mark.parametrize("options", [{"groups": 2}, {"dilation": 2}, {"padding": "same"}])
def test_what_patches_cannot_do_stays_plain(options):
    net = Conv2d(2, 4, 3, **options)
    weights, x = clients(net, 3), torch.rand(3, 2, 2, 8, 8)
    with forced(PATCHES), primitive(donate=False, clients=3):
        out = vmap(lambda w, x: functional_call(net, w, (x,)))(weights, x)
    one = functional_call(net, {k: v[1] for k, v in weights.items()}, (x[1],))
    torch.testing.assert_close(out[1], one)


@pytest.mark.parametrize("name", ["lenet", "cnn_pfl", "resnet8"])
def test_models_are_made_of_it(name):
    shape = type(SPEC)((1, 8, 8), 3)
    kinds = {type(m) for m in build(name, shape).modules() if isinstance(m, nn.Conv2d)}
    assert kinds == {Conv2d}


def test_a_round_of_stacked_clients_by_patches_equals_looped():
    from fedlabels.clients import build as client
    from fedlabels.models import LeNet

    world = World(
        client({"name": "fedavg", "batch_size": 4, "steps": 3}),
        lambda: {"model": LeNet(SPEC, norm="batch")},
    )
    with forced(PATCHES):
        check(world)


def test_the_faster_way_is_taken_and_asked_for_once(monkeypatch):
    asked = []

    def measured(function, device):
        function()  # it runs, whatever it takes
        asked.append(device)
        return [2.0, 1.0][len(asked) - 1]

    monkeypatch.setattr(convolution, "seconds", measured)
    shape = convolution.Shape(
        3, (2, 1, 6, 6), (4, 1, 3, 3), 1, 1, 1, 1, torch.float32, torch.device("cpu"), False, True
    )
    try:
        assert [convolution.chosen(shape) for _ in range(3)] == [PATCHES] * 3
        assert len(asked) == 2
        # inside vmap, where a layer asks
        asked.clear()
        other = shape._replace(clients=2)
        vmap(lambda x: x * (convolution.chosen(other) == PATCHES))(torch.ones(3))
        assert convolution.chosen(other) == PATCHES
    finally:
        convolution.chosen.cache_clear()
