import pytest
import torch
from torch import Tensor
from torch.func import vmap

from fedlabels import losses
from fedlabels.errors import ConfigError
from tests.losses.helpers import probs


@pytest.mark.parametrize("curve", ["linear", "convex"])
@pytest.mark.parametrize("warmup", [True, False])
def test_equally_learned_classes_have_the_fixed_threshold(
    curve: losses.Curve, warmup: bool
) -> None:
    counts = torch.full((4,), 25.0, dtype=torch.float64)
    result = losses.flexmatch_threshold(
        counts, tau=0.9, num_unlabeled=100, warmup=warmup, curve=curve
    )
    assert result.threshold.tolist() == pytest.approx([0.9] * 4)


@pytest.mark.parametrize("warmup", [True, False])
def test_without_confident_samples_everything_passes(warmup: bool) -> None:
    result = losses.flexmatch_threshold(
        torch.zeros(3), tau=0.9, num_unlabeled=0 if not warmup else 10, warmup=warmup
    )
    assert result.beta.tolist() == [0, 0, 0]
    assert result.threshold.tolist() == [0, 0, 0]


def test_counts_are_those_of_confident_labels() -> None:
    p = probs(40, 3)
    rows = torch.tensor([1] * 30 + [0] * 10)
    counts = losses.flexmatch_counts(p, threshold=0.7, rows=rows)
    kept = p[:30].amax(-1) > 0.7
    assert counts.equal(torch.bincount(p[:30].argmax(-1)[kept], minlength=3).double())


def test_freematch_without_memory_is_the_mean_of_the_pass() -> None:
    p = probs(20, 4)
    state = losses.freematch_update(losses.freematch_init(4, dtype=p.dtype), p, momentum=0.0)
    torch.testing.assert_close(state.global_t, p.amax(-1).mean())
    torch.testing.assert_close(state.local_p, p.mean(0))
    torch.testing.assert_close(losses.freematch_threshold(state).max(), state.global_t)


def test_freematch_leaves_padding_out_and_survives_an_empty_batch() -> None:
    p = probs(20, 4)
    start = losses.freematch_init(4, dtype=p.dtype)
    rows = torch.tensor([1] * 12 + [0] * 8)
    padded = losses.freematch_update(start, p, momentum=0.9, rows=rows)
    torch.testing.assert_close(padded, losses.freematch_update(start, p[:12], momentum=0.9))
    empty = losses.freematch_update(start, p, momentum=0.9, rows=torch.zeros(20))
    torch.testing.assert_close(empty, start)


def test_uniform_start_gives_one_threshold_for_all() -> None:
    threshold = losses.freematch_threshold(losses.freematch_init(5))
    assert threshold.tolist() == pytest.approx([0.2] * 5)


def test_vmap_equals_loop() -> None:
    p = probs(3, 9, 4)
    rows = torch.tensor([[1] * n + [0] * (9 - n) for n in (9, 4, 0)])
    start = losses.freematch_init(4, dtype=p.dtype)

    def one(q: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        counts = losses.flexmatch_counts(q, threshold=0.5, rows=r)
        flex = losses.flexmatch_threshold(counts, tau=0.9, num_unlabeled=r.sum())
        free = losses.freematch_update(start, q, momentum=0.5, rows=r)
        return flex.threshold, losses.freematch_threshold(free)

    stacked = vmap(one)(p, rows)
    for k in range(3):
        for got, expected in zip(stacked, one(p[k], rows[k]), strict=True):
            torch.testing.assert_close(got[k], expected)


def test_unknown_curve_is_refused() -> None:
    with pytest.raises(ConfigError, match="linear, convex"):
        losses.flexmatch_threshold(torch.ones(2), tau=1.0, num_unlabeled=2, curve="concave")  # type: ignore[arg-type]
