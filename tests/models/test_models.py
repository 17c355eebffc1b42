from typing import Any

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from fedlabels.cohort.types import DataSpec
from fedlabels.errors import ConfigError
from fedlabels.models import MODELS, BatchNorm, Classifier, Dropout, build

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32)]
CASES = [
    ("mlp", {}),
    ("lenet", {}),
    ("lenet", {"norm": "group"}),
    ("lenet", {"norm": "batch"}),
    ("cnn_pfl", {}),
]


def model(name: str, shape: tuple[int, ...], **settings: Any) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(name, DataSpec(shape, 10), **settings).double().eval()


def images(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [
        ("mlp", (1, 28, 28), 784 * 200 + 200 + 200 * 200 + 200 + 200 * 10 + 10),
        ("lenet", (1, 28, 28), 79_754),
        ("cnn_pfl", (3, 32, 32), 1_626_442),
    ],
)
def test_number_of_parameters(name: str, shape: tuple[int, ...], count: int) -> None:
    assert sum(part.numel() for part in model(name, shape).parameters()) == count


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_logits_are_the_head_of_the_features(
    name: str, settings: dict[str, Any], shape: tuple[int, ...]
) -> None:
    net, x = model(name, shape, **settings), images(3, *shape)
    features = net.features(x)
    assert features.shape == (3, net.head.in_features)
    assert net(x).shape == (3, 10)
    torch.testing.assert_close(net(x), net.head(features))


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_vmap_over_weights_equals_loop(name: str, settings: dict[str, Any]) -> None:
    net, x = model(name, (1, 8, 8), **settings), images(3, 4, 1, 8, 8)
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


def test_digits_keep_a_four_by_four_map() -> None:
    widths = [
        m.in_features for m in model("lenet", (1, 8, 8)).modules() if isinstance(m, nn.Linear)
    ]
    assert widths == [16 * 4 * 4, 96]


def test_lenet_takes_odd_and_oblong_images() -> None:
    for shape in ((1, 4, 4), (2, 9, 13), (1, 20, 5)):
        assert model("lenet", shape)(images(2, *shape)).shape == (2, 10)


def test_norms_are_those_asked_for() -> None:
    def kinds(norm: str) -> list[type[nn.Module]]:
        net = model("lenet", (1, 28, 28), norm=norm)
        return [type(m) for m in net.modules() if isinstance(m, BatchNorm | nn.GroupNorm)]

    assert kinds("none") == []
    assert kinds("batch") == [BatchNorm] * 2
    assert kinds("group") == [nn.GroupNorm] * 2


def test_cnn_pfl_drops_out_as_the_benchmark_does() -> None:
    net = model("cnn_pfl", (3, 32, 32))
    assert [m.p for m in net.modules() if isinstance(m, Dropout)] == [0.25, 0.5]


def test_cnn_pfl_starts_xavier_uniform_with_zero_biases() -> None:
    for module in model("cnn_pfl", (3, 32, 32)).modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            fan_out = module.weight.shape[0] * module.weight[0, 0].numel()
            bound = (6 / (fan_in + fan_out)) ** 0.5
            assert 0.9 * bound < module.weight.abs().max() <= bound
            assert module.bias is not None
            assert (module.bias == 0).all()


@pytest.mark.parametrize("name", sorted(MODELS))
def test_same_seed_gives_the_same_weights(name: str) -> None:
    shape = {"cnn1d": (1, 8), "alexnet": (1, 16, 16)}.get(name, (1, 8, 8))
    for first, second in zip(
        model(name, shape).parameters(), model(name, shape).parameters(), strict=True
    ):
        assert first.equal(second)


@pytest.mark.parametrize(
    ("name", "shape", "settings", "message"),
    [
        (
            "resnet",
            (1, 8, 8),
            {},
            "model=resnet is not known .did you mean resnet8.*; allowed: alexnet, cnn1d",
        ),
        ("mlp", (1, 8, 8), {"depth": 2}, "mlp has no setting depth; known: hidden, norm"),
        ("mlp", (1, 8, 8), {"hidden": ()}, "at least one width"),
        ("lenet", (1, 8, 8), {"norm": "instance"}, "none, batch, group"),
        ("lenet", (64,), {}, "channels, height, width"),
        ("cnn_pfl", (3, 5, 9), {}, "sides >= 6"),
    ],
)
def test_bad_requests_are_refused(
    name: str, shape: tuple[int, ...], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build(name, DataSpec(shape, 10), **settings)
