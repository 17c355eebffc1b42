"""Counter-based draws: values depend on who, what for and when, on nothing else."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedlabels.cohort import Draws

IDS = torch.tensor([3, 8, 1, 100_000])


def test_one_client_draws_what_it_draws_in_a_cohort():
    many = Draws.root(7, "train", 2, IDS).fold(5)
    for k, client in enumerate(IDS):
        alone = Draws.root(7, "train", 2, client).fold(5)
        assert torch.equal(alone.uniform(4, 3), many.uniform(4, 3)[k])
        assert torch.equal(alone.permutation(11), many.permutation(11)[k])


def test_the_same_bits_under_vmap():
    draws = Draws.root(7, "train", 2, IDS)
    rows = torch.func.vmap(lambda key: Draws(key).fold(3).normal(6, dtype=torch.float64))(draws.key)
    assert torch.equal(rows, draws.fold(3).normal(6, dtype=torch.float64))


@given(st.integers(1, 40), st.integers(1, 40))
def test_a_longer_draw_begins_with_the_shorter_one(short, long):
    short, long = sorted((short, long))
    draws = Draws.root(0, "x", 0, torch.tensor(1))
    assert torch.equal(draws.uniform(long, 3)[:short], draws.uniform(short, 3))


@pytest.mark.parametrize(
    "other",
    [
        Draws.root(1, "a", 0, IDS),
        Draws.root(0, "b", 0, IDS),
        Draws.root(0, "a", 1, IDS),
        Draws.root(0, "a", 0, IDS + 1),
        Draws.root(0, "a", 0, IDS).fold(0),
    ],
)
def test_every_part_of_the_key_matters(other):
    base = Draws.root(0, "a", 0, IDS)
    assert not torch.isin(base.bits(64), other.bits(64)).any()


def test_uniform_numbers_are_equal_in_both_precisions_and_in_range():
    draws = Draws.root(0, "u", 0, torch.tensor(0))
    single, double = (draws.uniform(200_000, dtype=d) for d in (torch.float32, torch.float64))
    assert torch.equal(single.double(), double)
    assert double.min() >= 0
    assert double.max() < 1
    assert abs(double.mean() - 0.5) < 2e-3
    assert abs(double.var() - 1 / 12) < 1e-3


def test_normal_numbers_have_mean_zero_and_variance_one():
    values = Draws.root(0, "n", 0, torch.tensor(0)).normal(200_000, dtype=torch.float64)
    assert abs(values.mean()) < 1e-2
    assert abs(values.var() - 1) < 2e-2
    assert torch.isfinite(values).all()


def test_integers_and_permutations():
    draws = Draws.root(0, "i", 0, torch.tensor(0))
    counts = torch.bincount(draws.integers(10, 100_000), minlength=10)
    assert (counts - 10_000).abs().max() < 500
    assert sorted(draws.permutation(50).tolist()) == list(range(50))
    assert draws.permutation(50).tolist() != list(range(50))


def test_global_random_state_is_left_alone():
    before = torch.random.get_rng_state()
    Draws.root(0, "g", 0, IDS).normal(10)
    assert torch.equal(before, torch.random.get_rng_state())
