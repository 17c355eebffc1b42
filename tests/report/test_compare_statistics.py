"""Statistics against tables, against sums worked out by hand, and against brute force."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlabels.report.comparison.statistics import (
    paired,
    ranks,
    sign_flip,
    smallest_p,
    student_quantile,
    summarize,
)

NUMBERS = st.lists(st.integers(-9, 9).map(float), min_size=1, max_size=9)


@pytest.mark.parametrize(
    ("probability", "degrees", "expected"),
    [  # NIST/SEMATECH e-Handbook 1.3.6.7.2, with the digits of R's qt
        (0.975, 1, 12.706204736432095),
        (0.975, 2, 4.302652729911275),
        (0.975, 3, 3.182446305284263),
        (0.975, 4, 2.776445105197799),
        (0.975, 5, 2.570581835636314),
        (0.975, 9, 2.262157162740992),
        (0.975, 10, 2.228138851964939),
        (0.975, 30, 2.042272456301238),
        (0.975, 100, 1.983971518523552),
        (0.95, 1, 6.313751514675043),
        (0.95, 7, 1.894578605061305),
        (0.995, 2, 9.924843200918294),
        (0.995, 6, 3.707428021324907),
        (0.5, 4, 0.0),
    ],
)
def test_student_quantiles_are_those_of_the_tables(
    probability: float, degrees: int, expected: float
) -> None:
    assert student_quantile(probability, degrees) == pytest.approx(expected, abs=1e-8)


def test_student_approaches_the_normal_distribution() -> None:
    assert student_quantile(0.975, 100_000) == pytest.approx(1.959963984540054, abs=3e-5)


@pytest.mark.parametrize(("probability", "degrees"), [(0.4, 3), (1.0, 3), (0.9, 0)])
def test_student_refuses_what_it_cannot_do(probability: float, degrees: int) -> None:
    with pytest.raises(ValueError, match="degrees >= 1"):
        student_quantile(probability, degrees)


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([0.3], 1.0),
        ([1.0, 2.0, 3.0], 2 / 8),  # the observed signs and their mirror image
        ([1.0, -2.0, 3.0], 6 / 8),  # |sums| 6, 4, 2, 0, each twice; observed 2
        ([1.0, 2.0, 3.0, 4.0], 2 / 16),
        ([0.0, 0.0], 1.0),
        ([0.03, 0.02, 0.04, -0.01, 0.01, 0.0], 12 / 64),  # see test_compare.py
        ([0.1, 0.2, 0.3, 0.1, 0.2, 0.3], 2 / 64),  # sums that rounding alone tells apart
    ],
)
def test_sign_flips_by_hand(differences: list[float], expected: float) -> None:
    assert sign_flip(differences) == expected


@given(NUMBERS)
def test_sign_flips_are_those_of_brute_force(values: list[float]) -> None:
    signs = itertools.product((1, -1), repeat=len(values))
    sums = [sum(s * v for s, v in zip(sign, values, strict=True)) for sign in signs]
    expected = sum(abs(one) >= abs(sum(values)) for one in sums) / len(sums)
    assert sign_flip(values) == expected
    assert sign_flip([-value for value in values]) == expected
    assert sign_flip(values) >= smallest_p(len(values))


def test_many_pairs_are_drawn_repeatably_and_never_give_zero() -> None:
    same_sign = [1.0 + index / 100 for index in range(17)]
    assert sign_flip(same_sign) == pytest.approx(1 / 10_001, rel=2.1)
    mixed = np.random.default_rng(5).normal(0.2, 1, 40).tolist()
    assert sign_flip(mixed) == sign_flip(mixed)
    exact = np.random.default_rng(5).normal(0.4, 1, 16).tolist()
    # 17 pairs of which one is 0 have the p of the other 16, but for the draw
    assert sign_flip([*exact, 0.0]) == pytest.approx(sign_flip(exact), abs=0.02)


def test_smallest_p() -> None:
    assert [smallest_p(n) for n in (1, 2, 3, 5, 6)] == [1, 0.5, 0.25, 0.0625, 0.03125]
    assert smallest_p(17) == 1 / 10_001


def test_paired_by_hand() -> None:
    # mean 0.03, deviation 0.01, t(2) = 4.302653: 0.03 -+ 4.302653 * 0.01 / sqrt(3)
    result = paired([0.03, 0.02, 0.04])
    assert result.pairs == 3
    assert result.mean == pytest.approx(0.03)
    assert result.low == pytest.approx(0.0051586, abs=1e-7)
    assert result.high == pytest.approx(0.0548414, abs=1e-7)
    assert result.p_value == 0.25


def test_one_pair_has_no_interval_and_none_has_nothing() -> None:
    one, none = paired([0.5]), paired([])
    assert (one.mean, one.p_value) == (0.5, 1.0)
    assert math.isnan(one.low)
    assert all(math.isnan(v) for v in (none.mean, none.low, none.high, none.p_value))


def test_deviation_is_that_of_a_sample() -> None:
    assert summarize([0.7, 0.72, 0.74]) == pytest.approx((0.72, 0.02))
    assert math.isnan(summarize([0.7])[1])
    assert math.isnan(summarize([])[0])


def test_ranks_by_hand() -> None:
    assert ranks([0.9, 0.8, 0.9, 0.1], lower_is_better=False) == [1.5, 3, 1.5, 4]
    assert ranks([0.9, 0.8, 0.9, 0.1], lower_is_better=True) == [3.5, 2, 3.5, 1]
    assert ranks([0.1 + 0.2, 0.3], lower_is_better=True) == [1.5, 1.5]


@given(NUMBERS)
def test_ranks_sum_to_the_same(values: list[float]) -> None:
    count = len(values)
    assert sum(ranks(values, lower_is_better=False)) == count * (count + 1) / 2
