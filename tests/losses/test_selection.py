import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import vmap

from fedlabels import losses
from fedlabels.errors import ConfigError
from tests.losses.helpers import probs

SCORES: tuple[losses.Score, ...] = ("variance", "inverse_entropy", "max_prob")


def row(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_variance_of_one_hot_is_one_over_classes_and_of_uniform_zero() -> None:
    for classes in (2, 5, 10):
        one_hot = torch.eye(classes, dtype=torch.float64)[:1]
        assert losses.confidence(one_hot).item() == pytest.approx(1 / classes)
        uniform = torch.full((1, classes), 1 / classes, dtype=torch.float64)
        assert losses.confidence(uniform).item() == 0.0


def test_variance_is_the_centred_second_moment() -> None:
    """Since probabilities sum to 1: variance = (sum p^2 - 1/C) / (C - 1)."""
    p = probs(20, 7)
    expected = (p.square().sum(-1) - 1 / 7) / 6
    torch.testing.assert_close(losses.confidence(p), expected)
    torch.testing.assert_close(losses.confidence(p), p.var(-1))


def test_with_two_classes_all_scores_choose_the_same_expert() -> None:
    outer, inner = probs(200, 2, seed=1), probs(200, 2, seed=2)
    experts = [losses.choose_expert(outer, inner, score=score).expert for score in SCORES]
    assert experts[0].equal(experts[1])
    assert experts[0].equal(experts[2])
    assert 0 < experts[0].sum() < 200


def test_with_three_classes_scores_may_disagree() -> None:
    """p = (.6, .2, .2): variance .05333, entropy .9503; q = (.55, .45, 0): .08583, .6881."""
    p, q = row(0.6, 0.2, 0.2), row(0.55, 0.45, 0.0)
    assert losses.confidence(p).item() == pytest.approx(0.05333, abs=5e-6)
    assert losses.confidence(q).item() == pytest.approx(0.08583, abs=5e-6)
    assert losses.entropy(p).item() == pytest.approx(0.9503, abs=5e-5)
    assert losses.entropy(q).item() == pytest.approx(0.6881, abs=5e-5)
    chosen = [losses.choose_expert(p, q, score=score).expert.item() for score in SCORES]
    assert chosen == [1, 1, 0]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), classes=st.integers(2, 12), score=st.sampled_from(SCORES))
def test_ratio_is_in_the_unit_interval(seed: int, classes: int, score: losses.Score) -> None:
    outer, inner = probs(8, classes, seed=seed), probs(8, classes, seed=seed + 1)
    ratio = losses.choose_expert(outer, inner, score=score).ratio
    assert ((ratio >= 0) & (ratio < 1)).all()  # random scores never tie


@pytest.mark.parametrize("score", SCORES)
def test_identical_experts_tie_to_global_with_ratio_one(score: losses.Score) -> None:
    p = probs(30, 5)
    selection = losses.select(p, p.clone(), threshold=0.4, score=score)
    assert (selection.expert == 0).all()
    assert (selection.ratio == 1).all()
    assert selection.agree.equal(selection.keep)
    assert 0 < selection.keep.sum() < 30


def test_equal_scores_of_different_rows_tie_to_global() -> None:
    """Two classes and dyadic numbers: the variances are equal whatever the order of the sum."""
    selection = losses.select(row(0.25, 0.75), row(0.75, 0.25), threshold=0.0)
    assert selection.expert.item() == 0
    assert selection.ratio.item() == 1.0
    assert not selection.agree.item()


def test_two_uniform_experts_have_ratio_zero() -> None:
    p = torch.full((1, 4), 0.25, dtype=torch.float64)
    selection = losses.select(p, p, threshold=0.0)
    assert selection.expert.item() == 0
    assert selection.ratio.item() == 0.0


@pytest.mark.parametrize("allowed", [False, torch.tensor(False), torch.zeros(9, dtype=torch.bool)])
def test_without_a_local_expert_the_global_one_stands_for_both(allowed: bool) -> None:
    outer, inner = probs(9, 4, seed=1), probs(9, 4, seed=2)
    selection = losses.select(outer, inner, threshold=0.5, local_allowed=allowed)
    assert (selection.expert == 0).all()
    assert (selection.ratio == 1).all()
    assert selection.agree.equal(selection.keep)
    assert selection.selected.equal(outer)
    assert selection.discarded.equal(outer)


def test_local_expert_may_be_allowed_per_sample() -> None:
    outer = row(0.5, 0.5).expand(2, 2)
    inner = row(0.1, 0.9).expand(2, 2)
    choice = losses.choose_expert(outer, inner, local_allowed=torch.tensor([True, False]))
    assert choice.expert.tolist() == [1, 0]


def test_forced_experts_write_all_labels() -> None:
    outer, inner = probs(50, 4, seed=1), probs(50, 4, seed=2)
    forced = losses.select(outer, inner, threshold=0.0, expert="global")
    assert forced.pseudo_label.equal(outer.argmax(-1))
    forced = losses.select(outer, inner, threshold=0.0, expert="local")
    assert forced.pseudo_label.equal(inner.argmax(-1))
    assert (forced.expert == 1).all()
    assert forced.ratio.max() == 1.0  # cut: the discarded model may be the more confident one
    free = losses.select(outer, inner, threshold=0.0)
    assert 0 < free.expert.sum() < 50


def test_nothing_passes_a_threshold_of_one() -> None:
    selection = losses.select(row(1.0, 0.0), row(0.5, 0.5), threshold=1.0)
    assert not selection.keep.any()


def test_counts_leave_padding_out() -> None:
    outer, inner = probs(6, 3, seed=1), probs(6, 3, seed=2)
    rows = torch.tensor([1, 1, 1, 1, 0, 0])
    padded = losses.select(outer, inner, threshold=0.6, rows=rows)
    short = losses.select(outer[:4], inner[:4], threshold=0.6)
    got, expected = losses.selection_counts(padded, rows), losses.selection_counts(short)
    assert got.rows == 4
    assert got.n_pass > 0
    torch.testing.assert_close(got, expected)


def test_local_share_of_nothing_is_zero() -> None:
    selection = losses.select(probs(4, 3, seed=1), probs(4, 3, seed=2), threshold=1.0)
    assert losses.selection_counts(selection).local_share == 0


def test_vmap_equals_loop() -> None:
    outer, inner = probs(3, 8, 5, seed=1), probs(3, 8, 5, seed=2)
    bars = torch.tensor([0.3, 0.5, 0.7], dtype=torch.float64)
    allowed = torch.tensor([True, False, True])

    def one(p: torch.Tensor, q: torch.Tensor, bar: torch.Tensor, local: torch.Tensor):  # type: ignore[no-untyped-def]
        return losses.select(p, q, threshold=bar, score="inverse_entropy", local_allowed=local)

    stacked = vmap(one)(outer, inner, bars, allowed)
    for k in range(3):
        looped = one(outer[k], inner[k], bars[k], allowed[k])
        for got, expected in zip(stacked, looped, strict=True):
            torch.testing.assert_close(got[k], expected)


def test_unknown_expert_is_refused() -> None:
    with pytest.raises(ConfigError, match="confident, global, local"):
        losses.choose_expert(probs(2, 3), probs(2, 3), expert="server")  # type: ignore[arg-type]
