"""Residual networks: sizes of the literature, trainable under every norm, looped == stacked."""

from typing import Any

import pytest
import torch
from torch import nn

from fedlabels.cohort.types import DataSpec
from fedlabels.errors import ConfigError
from fedlabels.models import BatchNorm, Classifier, build
from fedlabels.models.resnet import ResidualBlock, ResNet
from tests.cohort.harness import check
from tests.models.harness import train, world

NORMS = ("batch", "group", "none")


def model(name: str, shape: tuple[int, ...] = (3, 8, 8), **settings: Any) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(name, DataSpec(shape, 10), **settings)


def small(shape: tuple[int, ...], norm: str, widths: tuple[int, ...] = (4, 8, 12)) -> ResNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ResNet(DataSpec(shape, 5), widths=widths, blocks=2, norm=norm)


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def expected(channels: int, widths: tuple[int, ...], blocks: int, classes: int) -> int:
    """Count weights by hand: k*k*in*out a convolution, two numbers a channel a normalization."""

    def conv(size: int, channels_in: int, channels_out: int) -> int:
        return size * size * channels_in * channels_out + 2 * channels_out

    total = conv(3, channels, widths[0])
    before = widths[0]
    for stage, width in enumerate(widths):
        total += conv(3, before, width) + (2 * blocks - 1) * conv(3, width, width)
        total += conv(1, before, width) if stage else 0
        before = width
    return total + before * classes + classes


def test_resnet18_has_the_size_of_the_literature() -> None:
    assert count(model("resnet18", (3, 32, 32))) == 11_173_962
    assert expected(3, (64, 128, 256, 512), 2, 10) == 11_173_962


@pytest.mark.parametrize("channels", [1, 3])
def test_resnet8_has_the_size_that_its_layers_make(channels: int) -> None:
    net = model("resnet8", (channels, 32, 32))
    assert count(net) == expected(channels, (16, 32, 64), 1, 10)
    assert count(model("resnet8", (3, 32, 32))) == 78_042


@pytest.mark.parametrize(("name", "layers"), [("resnet8", 8), ("resnet18", 18)])
def test_depth_counts_the_layers_with_weights(name: str, layers: int) -> None:
    kinds = [m for m in model(name).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len([m for m in kinds if getattr(m, "kernel_size", 0) != (1, 1)]) == layers


def test_norms_are_those_asked_for() -> None:
    def kinds(norm: str) -> dict[str, int]:
        names = [type(m).__name__ for m in model("resnet8", norm=norm).modules()]
        return {k: names.count(k) for k in ("BatchNorm", "GroupNorm", "SkipInit") if k in names}

    assert kinds("batch") == {"BatchNorm": 9}
    assert kinds("group") == {"GroupNorm": 9}
    assert kinds("none") == {"SkipInit": 3}


@pytest.mark.parametrize("norm", NORMS)
def test_convolutions_have_a_bias_only_where_nothing_else_shifts(norm: str) -> None:
    for module in model("resnet8", norm=norm).modules():
        if isinstance(module, nn.Conv2d):
            assert (module.bias is not None) == (norm == "none")


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (1, 28, 28), (2, 9, 15)])
def test_any_small_image_gives_finite_logits_of_features(norm: str, shape: tuple[int, ...]) -> None:
    net = model("resnet8", shape, norm=norm).eval()
    x = images(3, *shape)
    assert net.features(x).shape == (3, 64)
    torch.testing.assert_close(net(x), net.head(net.features(x)))
    assert torch.isfinite(net(x)).all()


def test_resnet18_takes_the_smallest_image() -> None:
    net = model("resnet18", (1, 8, 8)).eval()
    assert net.features(images(2, 1, 8, 8)).shape == (2, 512)
    assert net(images(2, 1, 8, 8)).shape == (2, 10)


def test_stages_halve_the_sides_and_keep_the_pooling_to_the_end() -> None:
    net, sides = small((3, 16, 16), "batch"), []
    for module in net.modules():
        if isinstance(module, ResidualBlock):
            module.register_forward_hook(lambda m, x, out: sides.append(tuple(out.shape[1:])))
    net(images(2, 3, 16, 16))
    assert sides == [(4, 16, 16)] * 2 + [(8, 8, 8)] * 2 + [(12, 4, 4)] * 2


@pytest.mark.parametrize("norm", NORMS)
def test_a_block_adds_its_shortcut(norm: str) -> None:
    block = ResidualBlock(4, 4, stride=1, norm=norm).eval()
    x = images(2, 4, 6, 6)
    with torch.no_grad():
        for parameter in block.branch[-1].parameters():
            parameter.zero_()
    torch.testing.assert_close(block(x), x)  # x >= 0 passes the ReLU


def test_without_norm_every_block_starts_as_its_shortcut() -> None:
    block = ResidualBlock(4, 4, stride=1, norm="none")
    x = images(2, 4, 6, 6)
    assert torch.equal(block(x), x)
    with torch.no_grad():
        block.branch[-1].factor.fill_(0.5)
    assert not torch.equal(block(x), x)


@pytest.mark.parametrize("norm", NORMS)
def test_signals_keep_their_size_through_a_fresh_network(norm: str) -> None:
    net = model("resnet18", (3, 8, 8), norm=norm).train()
    spread = net.features(images(16, 3, 8, 8)).std()
    assert 0.05 < spread < 5


@pytest.mark.parametrize("norm", NORMS)
def test_every_norm_learns_a_few_images_by_heart(norm: str) -> None:
    net = small((3, 8, 8), norm)
    x, y = 4 * images(20, 3, 8, 8) - 2, torch.arange(20) % 5
    before = {k: v.detach().clone() for k, v in net.named_parameters()}
    assert train(net, x, y, steps=60, lr=0.05) < 0.05
    moved = [(v - before[k]).abs().max() > 0 for k, v in net.named_parameters()]
    assert all(moved)


@pytest.mark.parametrize("norm", NORMS)
def test_looped_equals_stacked(norm: str) -> None:
    check(world(lambda spec: build("resnet8", spec, norm=norm), (3, 8, 8)))


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_looped_equals_stacked_with_two_blocks_and_odd_sides(norm: str) -> None:
    check(
        world(lambda s: ResNet(s, widths=(4, 4, 8, 8), blocks=2, norm=norm), (1, 9, 8), "digits"),
        rounds=1,
    )


def test_statistics_of_batch_norm_move_only_in_training() -> None:
    net = model("resnet8")
    norms = [m for m in net.modules() if isinstance(m, BatchNorm)]
    net.eval()(images(4, 3, 8, 8))
    assert all((m.running_mean == 0).all() for m in norms)
    net.train()(images(4, 3, 8, 8))
    assert all((m.running_mean != 0).any() and m.num_batches_tracked == 1 for m in norms)


@pytest.mark.parametrize(
    ("name", "shape", "settings", "message"),
    [
        ("resnet8", (3, 7, 32), {}, r"sides >= 8, got \(3, 7, 32\)"),
        ("resnet18", (6, 128), {}, "channels, height, width"),
        ("resnet8", (3, 32, 32), {"norm": "x"}, "none, batch, group, layer, ws, ws_group; got 'x'"),
        ("resnet18", (3, 32, 32), {"width": 8}, "has no setting width; known: norm"),
    ],
)
def test_bad_requests_are_refused(
    name: str, shape: tuple[int, ...], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build(name, DataSpec(shape, 10), **settings)


@pytest.mark.parametrize("settings", [{"widths": (), "blocks": 1}, {"widths": (8,), "blocks": 0}])
def test_a_network_without_blocks_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="at least one width"):
        ResNet(DataSpec((3, 8, 8), 10), **settings)
