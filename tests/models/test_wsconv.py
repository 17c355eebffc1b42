"""Scaled weight standardization: W1 and its properties, conversion, folding; no statistics."""

import math
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from fedlabels.cohort import DataSpec
from fedlabels.errors import ConfigError
from fedlabels.models import (
    BatchNorm,
    WSConv1d,
    WSConv2d,
    WSLinear,
    build,
    fold,
    relu_gain,
    standardize_weight,
    to_wsconv,
)
from fedlabels.models.convert import norms_of
from fedlabels.models.nf import NFBlock, SkipInit
from fedlabels.models.recipe import Recipe, make_norm
from tests.cohort.harness import check
from tests.models.harness import train, world

IMAGES = ("alexnet", "cnn_pfl", "digits_cnn", "lenet", "mobilenet", "resnet8")
SMALL: dict[str, dict[str, Any]] = {
    "alexnet": {"width": 4, "hidden": 16},
    "digits_cnn": {"width": 4, "hidden": (16, 8)},
    "mobilenet": {"width": 0.25},
}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def model(name: str, shape: tuple[int, ...] = (3, 16, 16), **settings: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(name, DataSpec(shape, 5), **{**SMALL.get(name, {}), **settings})


class TestStandardizedWeight:
    def test_scale_and_shift_of_the_raw_weight_do_not_count(self) -> None:
        weight = random(4, 3, 3, 3)
        plain = standardize_weight(weight)
        torch.testing.assert_close(standardize_weight(2.5 * weight - 0.7), plain)
        torch.testing.assert_close(standardize_weight(-3 * weight + 1), -plain)

    @pytest.mark.parametrize("unbiased", [False, True])
    def test_mean_zero_and_norm_of_the_gain(self, unbiased: bool) -> None:
        weight, gain = random(4, 3, 3, 3), torch.tensor([1.0, 2.0, -0.5, 0.0]).double()
        made = standardize_weight(weight, gain, gamma=1.5, unbiased=unbiased).flatten(1)
        torch.testing.assert_close(made.mean(1), torch.zeros(4).double(), atol=1e-15, rtol=0)
        ratio = math.sqrt(26 / 27) if unbiased else 1.0
        torch.testing.assert_close(made.norm(dim=1), 1.5 * gain.abs() * ratio)

    def test_two_inputs_by_hand(self) -> None:
        made = standardize_weight(torch.tensor([1.0, -1.0]).view(1, 2, 1, 1))
        torch.testing.assert_close(made.flatten(), torch.tensor([0.70710678, -0.70710678]))

    def test_constant_and_tiny_units(self) -> None:
        constant, tiny = torch.full((1, 8), 0.3).double(), 1e-5 * random(1, 8)
        assert (standardize_weight(constant) == 0).all()
        torch.testing.assert_close(standardize_weight(tiny), (tiny - tiny.mean()) * 100)

    def test_gradient_is_orthogonal_to_ones_and_to_the_weight(self) -> None:
        weight = random(4, 3, 3, 3).requires_grad_()
        (got,) = torch.autograd.grad(
            (standardize_weight(weight) * random(4, 3, 3, 3, seed=1)).sum(), weight
        )
        assert got.abs().max() > 0.01
        assert got.flatten(1).sum(1).abs().max() < 1e-12
        assert (got * weight).flatten(1).sum(1).abs().max() < 1e-12

    def test_below_eps_the_gradient_is_that_of_a_constant_scale(self) -> None:
        weight, up = (1e-5 * random(1, 8)).requires_grad_(), random(1, 8, seed=1)
        (got,) = torch.autograd.grad((standardize_weight(weight) * up).sum(), weight)
        torch.testing.assert_close(got, 100 * (up - up.mean()))

    def test_memory_stays_channels_last(self) -> None:
        weight = random(8, 4, 3, 3).contiguous(memory_format=torch.channels_last)
        assert standardize_weight(weight).is_contiguous(memory_format=torch.channels_last)

    def test_is_computed_in_float32_whatever_the_weights_are(self) -> None:
        # bfloat16 has 8 bits: a sum of squares kept in it would be off by far more than its end
        weight = (3 + 0.02 * random(2, 4000)).bfloat16()
        exact = standardize_weight(weight.double())
        made = standardize_weight(weight)
        assert made.dtype == torch.bfloat16
        torch.testing.assert_close(made.double(), exact, rtol=2**-8, atol=1e-7)
        layer = WSLinear(64, 8)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(layer.standardized(), standardize_weight(layer.weight, layer.gain))

    def test_gain_of_a_relu_keeps_the_variance(self) -> None:
        weight, x = random(400, 300), random(200, 300, seed=1).relu()
        made = x @ standardize_weight(weight, gamma=relu_gain()).t()
        assert float(made.var()) == pytest.approx(1.0, abs=0.02)
        plain = x @ standardize_weight(weight).t()
        assert float(plain.var()) == pytest.approx((1 - 1 / math.pi) / 2, abs=0.01)


class TestLayers:
    def test_start(self) -> None:
        layer = WSConv2d(3, 4, 3)
        assert torch.equal(layer.gain, torch.ones(4))
        assert layer.bias is not None
        assert torch.equal(layer.bias, torch.zeros(4))
        assert sorted(layer.state_dict()) == ["bias", "gain", "weight"]  # nothing of the samples

    def test_constant_unit_gives_its_bias(self) -> None:
        layer = WSConv2d(3, 1, 3)
        with torch.no_grad():
            layer.weight.fill_(0.5)
            layer.bias.fill_(0.25)
        torch.testing.assert_close(layer(torch.rand(2, 3, 5, 5)), torch.full((2, 1, 3, 3), 0.25))

    def test_shapes_of_all_kinds(self) -> None:
        assert WSConv2d(4, 8, 3, 2, 1, groups=4)(torch.rand(2, 4, 9, 9)).shape == (2, 8, 5, 5)
        assert WSConv1d(4, 8, 5, padding=2, bias=False)(torch.rand(2, 4, 9)).shape == (2, 8, 9)
        assert WSLinear(4, 8)(torch.rand(2, 4)).shape == (2, 8)

    @pytest.mark.parametrize("shape", [(1, 4, 1), (4, 4, 1, 1, 0, 1, 4)])
    def test_one_input_a_unit_is_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="one input cannot be standardized"):
            WSConv2d(*shape)

    def test_vmap_over_weights_equals_loop(self) -> None:
        net, x = WSConv2d(2, 4, 3, padding=1).double(), random(3, 2, 2, 6, 6)
        trees = {
            k: torch.stack([v.detach() + s * random(*v.shape, seed=s) for s in range(3)])
            for k, v in net.named_parameters()
        }

        def loss(tree: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = functional_call(net, tree, (x,))
            return (out * out.sin()).sum()

        together = vmap(grad(loss))(trees, x)
        for k in range(3):
            alone = grad(loss)({n: v[k] for n, v in trees.items()}, x[k])
            for name, value in alone.items():
                torch.testing.assert_close(together[name][k], value, rtol=0, atol=1e-10)


class TestRecipe:
    def test_normalizations(self) -> None:
        kinds = {"none": nn.Identity, "ws": nn.Identity, "batch": BatchNorm}
        assert all(type(make_norm(k, 8)) is kind for k, kind in kinds.items())  # type: ignore[arg-type]
        groups = [make_norm("group", c).num_groups for c in (4, 16, 128, 144, 512)]
        assert groups == [1, 4, 32, 24, 32]
        assert make_norm("layer", 7).num_groups == 1

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"norm": "wsconv"}, "norm must be one of none, batch, group, layer, ws, ws_group"),
            ({"norm": "ws", "nonlinearity_gain": "relu"}, "nonlinearity_gain must be one of"),
            ({"norm": "batch", "ws_linear": True}, "settings of model.norm=ws"),
            (
                {"ws_unbiased": True},
                "settings of model.norm=ws and model.norm=ws_group; got model.norm=batch",
            ),
        ],
    )
    def test_wrong_words_are_refused(self, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            model("resnet8", **settings)

    def test_options_reach_the_layers(self) -> None:
        net = model("digits_cnn", norm="ws", ws_unbiased=True, nonlinearity_gain="relu_weight")
        made = [m for m in net.modules() if isinstance(m, WSConv2d)]
        assert [m.unbiased for m in made] == [True] * 3
        # the first one sees the image, not a ReLU
        assert [m.gamma for m in made] == [1.0, relu_gain(), relu_gain()]
        assert not [m for m in net.modules() if isinstance(m, WSLinear)]
        dense = model("digits_cnn", norm="ws", ws_linear=True)
        assert len([m for m in dense.modules() if isinstance(m, WSLinear)]) == 2
        assert type(dense.head) is nn.Linear

    def test_gain_in_the_activation_is_the_gain_in_the_weights(self) -> None:
        nets = [
            model("lenet", norm="ws", ws_linear=True, nonlinearity_gain=gain).double()
            for gain in ("relu_weight", "relu_activation")
        ]
        with torch.no_grad():
            nets[1].head.weight /= relu_gain()  # the last ReLU has a factor, the head has none
            x = random(3, 3, 16, 16)
            torch.testing.assert_close(nets[0](x), nets[1](x))

    def test_one_input_stays_plain(self) -> None:
        assert type(Recipe("ws").convolution(1, 4, 1)) is not WSConv2d
        assert type(Recipe("ws").convolution(8, 8, 3, groups=8)) is WSConv2d


@pytest.mark.parametrize("name", [*IMAGES, "cnn1d", "mlp"])
class TestModels:
    def net(self, name: str, norm: str) -> tuple[nn.Module, torch.Tensor]:
        shape = (3, 16) if name == "cnn1d" else (3, 16, 16)
        return model(name, shape, norm=norm).double(), random(6, *shape)

    @pytest.mark.parametrize("norm", ["ws", "ws_group", "layer", "group"])
    def test_a_batch_is_its_samples_one_by_one(self, name: str, norm: str) -> None:
        net, x = self.net(name, norm)
        for part in net.modules():
            part.p = 0.0  # dropout
        net.train()
        alone = torch.cat([net(row[None]) for row in x])
        torch.testing.assert_close(net(x), alone, rtol=0, atol=1e-9)
        assert not [k for k in net.state_dict() if "running" in k]

    def test_with_batch_normalization_it_is_not(self, name: str) -> None:
        net, x = self.net(name, "batch")
        for part in net.modules():
            part.p = 0.0
        net.train()
        assert (net(x)[:1] - net(x[:1])).abs().max() > 1e-6

    @pytest.mark.parametrize("norm", ["ws", "ws_group"])
    def test_folded_is_plain_and_the_same(self, name: str, norm: str) -> None:
        net, x = self.net(name, norm)
        net = net.float().eval()
        with torch.no_grad():
            for part in net.parameters():
                part.add_(0.1 * random(*part.shape).float())
        folded = fold(net)
        torch.testing.assert_close(folded(x.float()), net(x.float()), rtol=1e-6, atol=1e-6)
        assert not [m for m in folded.modules() if hasattr(m, "gain")]
        assert any(hasattr(m, "gain") for m in net.modules()) == (name != "mlp")

    def test_converted_from_batch_normalization(self, name: str) -> None:
        plain, x = self.net(name, "batch")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            net = to_wsconv(plain)
        assert not norms_of(net)
        assert norms_of(plain)  # the argument is as it was
        assert torch.isfinite(net.eval()(x)).all()
        convolutions = [m for m in net.modules() if isinstance(m, nn.Conv1d | nn.Conv2d)]
        assert all(hasattr(m, "gain") and m.bias is not None for m in convolutions)

    def test_group_normalization_left_by_the_conversion_is_told(self, name: str) -> None:
        with pytest.warns(UserWarning, match="normalization is left"):
            to_wsconv(self.net(name, "group")[0])


def test_conversion_keeps_weights_and_shapes() -> None:
    plain = nn.Sequential(
        nn.Conv2d(2, 4, 3, 2, 1, dilation=2, padding_mode="reflect", bias=False),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 1, groups=4),
        nn.Linear(3, 2),
    ).double()
    net = to_wsconv(plain, gamma=2.0, linear=True)
    first = net[0]
    assert torch.equal(first.weight, plain[0].weight)
    assert (first.stride, first.dilation, first.padding_mode) == ((2, 2), (2, 2), "reflect")
    assert first.gamma == 2.0
    assert type(net[2]) is nn.Conv2d  # one input a unit
    assert isinstance(net[3], WSLinear)
    assert torch.equal(net[3].bias, plain[3].bias)
    back = fold(net)[0]
    assert type(back) is nn.Conv2d
    x = random(1, 2, 9, 9)
    torch.testing.assert_close(back(x), first(x))
    with pytest.raises(ValueError, match="one input"):
        to_wsconv(plain, skip_fan_in_1=False)


def test_a_model_that_ignores_its_norm_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from fedlabels.models import registry

    class Stubborn(registry.MODELS["lenet"]):  # type: ignore[misc, name-defined]
        def __init__(self, spec: DataSpec, *, norm: str = "ws") -> None:
            super().__init__(spec, norm="group")

    monkeypatch.setitem(registry.MODELS, "lenet", Stubborn)
    with pytest.warns(UserWarning, match=r"normalization is left.*body\.1"):
        model("lenet", norm="ws")


def test_normalizer_free_blocks() -> None:
    net = model("resnet8", norm="ws")
    blocks = [m for m in net.modules() if isinstance(m, NFBlock)]
    assert [b.beta for b in blocks] == pytest.approx(
        [1.0, 1 / math.sqrt(1.04), 1 / math.sqrt(1.04)]
    )
    assert all(b.alpha == 0.2 for b in blocks)
    assert all(m.gamma == relu_gain() for b in blocks for m in b.modules() if hasattr(m, "gain"))
    x = random(2, 16, 6, 6)
    block, scaled = blocks[1].double(), blocks[1].beta * x.relu()
    assert block.shortcut is not None
    torch.testing.assert_close(block(x), block.shortcut(scaled) + 0.2 * block.branch(scaled))
    first = blocks[0].double()
    torch.testing.assert_close(first(x), x + 0.2 * first.branch(x.relu()))


def test_styles_of_residual_networks() -> None:
    plain = model("resnet8", norm="ws", nf_style="plain")
    assert not [m for m in plain.modules() if isinstance(m, NFBlock | SkipInit)]
    assert all(hasattr(m, "gain") for m in plain.modules() if isinstance(m, nn.Conv2d))
    held = model("resnet8", norm="ws", skip_init=True).double()
    blocks = [m for m in held.modules() if isinstance(m, NFBlock)]
    x = random(2, 16, 6, 6)
    assert torch.equal(blocks[0](x), x)
    grouped = model("resnet8", norm="ws_group")
    kinds = [type(m).__name__ for m in grouped.modules()]
    assert (kinds.count("GroupNorm"), kinds.count("WSConv2d")) == (9, 9)
    with pytest.raises(ConfigError, match="nf_style must be one of"):
        model("resnet8", norm="ws", nf_style="free")


def test_signals_of_a_deep_network_stay_alive() -> None:
    """With gains for ReLUs; without them they die out, which is why deep networks have them."""
    spreads = {}
    for gain in ("relu_weight", "none"):
        net = model("resnet18", norm="ws", nf_style="plain", nonlinearity_gain=gain)
        spreads[gain] = float(net.features(torch.rand(8, 3, 16, 16)).detach().std())
    assert spreads["relu_weight"] > 3 * spreads["none"]


@pytest.mark.parametrize("name", ["resnet8", "mobilenet", "digits_cnn"])
def test_learns_a_few_images_by_heart(name: str) -> None:
    net = model(name, norm="ws", nonlinearity_gain="relu_weight")
    x = 4 * torch.rand(10, 3, 16, 16, generator=torch.Generator().manual_seed(0)) - 2
    assert train(net, x, torch.arange(10) % 5, steps=40, lr=0.05) < 0.2


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("resnet8", "ws"),
        ("lenet", "layer"),
        ("lenet", "ws_group"),
        ("digits_cnn", "ws"),
        ("alexnet", "ws"),
        ("mobilenet", "ws"),
        ("mobilenet", "batch"),
    ],
)
def test_looped_equals_stacked(name: str, norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedlabels.models import mobilenet

    # all kinds of its blocks; double precision is slow, and the whole network has 52 layers
    monkeypatch.setattr(mobilenet, "STAGES", ((1, 8, 1, 1), (2, 8, 2, 2)))
    monkeypatch.setattr(mobilenet, "LAST", 16)
    shape = (1, 16, 16) if name == "alexnet" else (1, 8, 8)
    settings = SMALL.get(name, {})
    check(world(lambda spec: build(name, spec, norm=norm, **settings), shape), rounds=1)


@pytest.mark.parametrize(
    ("name", "shape", "settings", "count"),
    [
        ("digits_cnn", (3, 28, 28), {}, 14_219_210),
        ("digits_cnn", (3, 28, 28), {"norm": "ws"}, 14_213_834),
        ("alexnet", (3, 256, 256), {}, 57_063_498),
        ("alexnet", (3, 256, 256), {"norm": "ws"}, 57_045_962),
        ("mobilenet", (3, 32, 32), {}, 2_236_682),
    ],
)
def test_number_of_parameters(
    name: str, shape: tuple[int, ...], settings: dict[str, Any], count: int
) -> None:
    with torch.device("meta"):
        net = build(name, DataSpec(shape, 10), **settings)
    assert sum(p.numel() for p in net.parameters()) == count


@pytest.mark.parametrize(
    ("name", "shape", "settings", "message"),
    [
        ("alexnet", (3, 15, 32), {}, "sides >= 16"),
        ("alexnet", (3, 32, 32), {"stem": "large"}, "sides >= 63"),
        ("alexnet", (6, 32), {}, "channels, height, width"),
        ("alexnet", (3, 32, 32), {"stem": "big"}, "auto, large, small"),
        ("digits_cnn", (1, 3, 8), {}, "sides >= 4"),
        ("digits_cnn", (1, 8, 8), {"hidden": (0,)}, "must be >= 1"),
        ("mobilenet", (3, 7, 8), {}, "sides >= 8"),
        ("mobilenet", (3, 8, 8), {"width": 0.0}, "width must be > 0"),
    ],
)
def test_bad_requests_are_refused(
    name: str, shape: tuple[int, ...], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build(name, DataSpec(shape, 10), **settings)


@pytest.mark.parametrize("side", [16, 32, 64, 128, 160])
def test_alexnet_takes_small_and_large_images(side: int) -> None:
    net = model("alexnet", (3, side, side), norm="ws")
    assert net(torch.rand(1, 3, side, side)).shape == (1, 5)
    first = next(m for m in net.modules() if isinstance(m, WSConv2d))
    assert first.kernel_size == ((11, 11) if side >= 128 else (5, 5))
