"""The network for time series: shapes, limits, learning, looped == stacked, BatchNorm over time."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from fedlabels.cohort import Net
from fedlabels.cohort.types import DataSpec
from fedlabels.errors import ConfigError
from fedlabels.models import BatchNorm, Classifier, build
from tests.cohort.harness import check
from tests.models.harness import train, world
from tests.models.test_layers import run

NORMS = ("batch", "group", "none")


def model(shape: tuple[int, ...] = (6, 128), classes: int = 7, **settings: Any) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build("cnn1d", DataSpec(shape, classes), **settings)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_number_of_parameters() -> None:
    layers = (6 * 32 + 32 * 64 + 64 * 64) * 5 + 3 * (32 + 64 + 64)
    assert sum(p.numel() for p in model().parameters()) == layers + 64 * 7 + 7 == 32_615


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [(1, 8), (6, 128), (3, 9), (2, 301)])
def test_any_length_gives_finite_logits_of_features(norm: str, shape: tuple[int, ...]) -> None:
    net, x = model(shape, norm=norm).double().eval(), random(3, *shape)
    assert net.features(x).shape == (3, 64)
    torch.testing.assert_close(net(x), net.head(net.features(x)))
    assert torch.isfinite(net(x)).all()


def test_weights_do_not_depend_on_the_length() -> None:
    short, long = model((6, 8)), model((6, 500))
    for first, second in zip(short.parameters(), long.parameters(), strict=True):
        assert first.equal(second)


def test_width_and_kernel_reach_the_layers() -> None:
    convolutions = [m for m in model(width=8, kernel=3).modules() if isinstance(m, nn.Conv1d)]
    assert [m.out_channels for m in convolutions] == [8, 16, 16]
    assert all(m.kernel_size == (3,) for m in convolutions)
    assert model(width=8).head.in_features == 16


def test_a_shift_in_time_does_not_change_the_features() -> None:
    net = model((1, 128), norm="none").double().eval()
    x = torch.zeros(2, 1, 128, dtype=torch.float64)
    x[0, 0, 40:44], x[1, 0, 72:76] = 1, 1  # a multiple of four apart: pooling sees the same
    first, second = net.features(x)
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("norm", NORMS)
def test_learns_to_tell_fast_from_slow(norm: str) -> None:
    noise, phase = random(120, 3, 64), random(120, 3, 1, seed=1)
    y = torch.arange(120) % 2
    speed = torch.where(y == 0, 2.0, 6.0).view(-1, 1, 1)
    turns = speed * torch.arange(64) / 64 + phase
    x = (torch.sin(2 * math.pi * turns) + 0.3 * noise).float()
    net = model((3, 64), 2, norm=norm, width=8)
    train(net, x[:60], y[:60], steps=60, lr=0.05)
    right = (net.eval()(x[60:]).argmax(1) == y[60:]).float().mean()
    assert right >= 0.95


def test_vmap_over_weights_equals_loop() -> None:
    net, x = model((2, 11), norm="group", width=4).double().eval(), random(3, 4, 2, 11)
    base = {k: v.detach() for k, v in net.named_parameters()}
    trees = [{k: v * scale for k, v in base.items()} for scale in (1.0, 0.5, 1.5)]

    def loss(tree: dict[str, torch.Tensor], batch: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = functional_call(net, tree, (batch,))
        return logits.logsumexp(dim=-1).sum()

    stacked = {k: torch.stack([tree[k] for tree in trees]) for k in base}
    gradients = vmap(grad(loss))(stacked, x)
    for k, tree in enumerate(trees):
        for part, expected in grad(loss)(tree, x[k]).items():
            torch.testing.assert_close(gradients[part][k], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("norm", NORMS)
def test_looped_equals_stacked_through_the_views_of_series(norm: str) -> None:
    check(world(lambda s: build("cnn1d", s, norm=norm, width=8, kernel=3), (3, 11), "timeseries"))


def test_batch_norm_over_time_equals_torchs() -> None:
    reference, net = nn.BatchNorm1d(4).double(), Net("n", BatchNorm(4).double())
    tree = dict(net.init)
    for seed in range(3):
        x = 2 + 3 * random(5, 4, 9, seed=seed)
        torch.testing.assert_close(run(net, tree, x), reference(x), rtol=1e-12, atol=1e-12)
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(tree[name], value, rtol=1e-12, atol=1e-12)


def test_batch_norm_over_time_ignores_padding() -> None:
    net, x = Net("n", BatchNorm(4).double()), random(8, 4, 9)
    rows = torch.arange(8) < 3
    plain, padded = dict(net.init), dict(net.init)
    first, second = run(net, plain, x[:3]), run(net, padded, x, rows)
    torch.testing.assert_close(first, second[:3], rtol=1e-12, atol=1e-12)
    for name, value in plain.items():
        torch.testing.assert_close(padded[name], value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ((6, 7), {}, r"\(channels, time\) with time >= 8, got \(6, 7\)"),
        ((1, 28, 28), {}, "channels, time"),
        ((6, 128), {"width": 0}, "width must be >= 1, got 0"),
        ((6, 128), {"kernel": 4}, "kernel must be odd and >= 1, got 4"),
        ((6, 128), {"width": 6, "norm": "group"}, "multiples of 4, got 6"),
        ((6, 128), {"norm": "instance"}, "none, batch, group"),
        ((6, 128), {"depth": 3}, "no setting depth; known: norm, width, kernel"),
    ],
)
def test_bad_requests_are_refused(
    shape: tuple[int, ...], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        model(shape, **settings)
