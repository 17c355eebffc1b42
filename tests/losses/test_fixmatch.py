import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from fedlabels import losses
from fedlabels.errors import ConfigError
from tests.losses.helpers import logits

WEAK, STRONG = logits(10, 4, seed=1), logits(10, 4, seed=2)
ROWS = torch.tensor([1] * 7 + [0] * 3)


def test_uda_with_a_tiny_temperature_is_fixmatch() -> None:
    fixmatch = losses.fixmatch_loss(WEAK, STRONG, threshold=0.6)
    uda = losses.uda_loss(WEAK, STRONG, threshold=0.6, temperature=1e-4)
    assert 0 < fixmatch.n_pass < 10
    assert uda.keep.equal(fixmatch.keep)
    torch.testing.assert_close(uda.total, fixmatch.total)


def test_uda_forms_differ_by_the_entropy_of_the_targets_alone() -> None:
    def form(name: str) -> Tensor:
        def loss(z: Tensor) -> Tensor:
            part: Tensor = getattr(losses.uda_loss(WEAK, z, threshold=0.5), name)
            return part

        gradient: Tensor = grad(loss)(STRONG)
        return gradient

    torch.testing.assert_close(form("total"), form("kl"))
    result = losses.uda_loss(WEAK, STRONG, threshold=0.5)
    expected = (losses.entropy(result.target) * result.keep).sum() / 10
    torch.testing.assert_close(result.total - result.kl, expected)


@pytest.mark.parametrize("name", ["fixmatch_loss", "uda_loss"])
def test_no_gradient_reaches_the_weak_view(name: str) -> None:
    function = getattr(losses, name)
    gradient = grad(lambda z: function(z, STRONG, threshold=0.5).total)(WEAK)
    assert (gradient == 0).all()


@pytest.mark.parametrize("name", ["fixmatch_loss", "uda_loss"])
def test_divisor_is_the_whole_batch_of_real_rows(name: str) -> None:
    function = getattr(losses, name)
    padded = function(WEAK, STRONG, threshold=0.5, rows=ROWS)
    short = function(WEAK[:7], STRONG[:7], threshold=0.5)
    torch.testing.assert_close(padded.total, short.total)
    assert padded.n_pass == short.n_pass
    assert not padded.keep[7:].any()
    nothing = function(WEAK, STRONG, threshold=1.1)
    assert nothing.total == 0
    assert nothing.n_pass == 0


def test_fixmatch_threshold_is_inclusive_and_uda_strict() -> None:
    even = torch.zeros(1, 2, dtype=torch.float64)
    assert losses.fixmatch_loss(even, even, threshold=0.5).keep.item()
    assert not losses.uda_loss(even, even, threshold=0.5).keep.item()


@pytest.mark.parametrize("name", ["fixmatch_loss", "uda_loss"])
def test_vmap_of_grad_equals_loop(name: str) -> None:
    function: Any = getattr(losses, name)
    weak, strong = logits(3, 6, 4, seed=1), logits(3, 6, 4, seed=2)
    rows = torch.tensor([[1] * n + [0] * (6 - n) for n in (6, 3, 0)])

    def loss(z: Tensor, w: Tensor, r: Tensor) -> Tensor:
        total: Tensor = function(w, z, threshold=0.5, rows=r).total
        return total

    stacked = vmap(grad(loss))(strong, weak, rows)
    looped = torch.stack([grad(loss)(strong[k], weak[k], rows[k]) for k in range(3)])
    torch.testing.assert_close(stacked, looped, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("schedule", "start", "end"),
    [
        ("linear", 0.25, 1.0),
        ("log", 0.25, 1.0 - math.exp(-5) * 0.75),
        ("exp", math.exp(-5) * 0.75 + 0.25, 1.0),
    ],
)
def test_tsa_schedules_end_where_they_must(
    schedule: losses.Schedule, start: float, end: float
) -> None:
    steps = torch.tensor([0, 40, 80, 90])
    eta = losses.tsa_threshold(steps, total=80, num_classes=4, schedule=schedule)
    assert eta[0].item() == pytest.approx(start)
    assert eta[2].item() == pytest.approx(end)
    assert eta[3] == eta[2]
    assert (eta.diff() >= 0).all()


def test_tsa_keeps_what_is_not_learned_yet() -> None:
    z = torch.tensor([[0.9, 0.1], [0.3, 0.7], [0.5, 0.5]], dtype=torch.float64).log()
    y = torch.tensor([0, 0, losses.UNLABELED])
    result = losses.tsa_loss(z, y, eta=0.5)
    assert result.keep.tolist() == [False, True, False]
    assert result.total.item() == pytest.approx(-math.log(0.3))
    nothing = losses.tsa_loss(z, y, eta=0.1)
    assert nothing.total == 0
    assert nothing.n_kept == 0
    assert losses.tsa_loss(z, y, eta=1.0).n_kept == 2


def test_tsa_refuses_bad_arguments() -> None:
    with pytest.raises(ConfigError, match="total=0"):
        losses.tsa_threshold(1, total=0, num_classes=3)
    with pytest.raises(ConfigError, match="linear, log, exp"):
        losses.tsa_threshold(1, total=1, num_classes=3, schedule="cos")  # type: ignore[arg-type]
