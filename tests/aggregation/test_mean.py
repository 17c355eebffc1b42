import numpy as np
import pytest

from fedlabels import aggregation

RANDOM = np.random.default_rng(0)
VALUES = RANDOM.normal(size=(4, 3, 2))
WEIGHTS = np.array([5.0, 0.0, 2.0, 13.0])


def test_mean_is_weighted_by_samples() -> None:
    expected = np.average(VALUES, axis=0, weights=WEIGHTS)
    np.testing.assert_allclose(aggregation.weighted_mean(VALUES, WEIGHTS), expected, rtol=1e-14)


def test_scaling_all_weights_changes_nothing() -> None:
    base = aggregation.weighted_mean(VALUES, WEIGHTS)
    np.testing.assert_allclose(aggregation.weighted_mean(VALUES, 7 * WEIGHTS), base, rtol=1e-14)


def test_equal_values_stay_and_one_client_is_itself() -> None:
    same = np.broadcast_to(VALUES[0], (3, 3, 2))
    np.testing.assert_allclose(aggregation.weighted_mean(same, [1, 2, 3]), VALUES[0], rtol=1e-14)
    np.testing.assert_array_equal(aggregation.weighted_mean(VALUES[:1], [7]), VALUES[0])


def test_order_of_clients_does_not_matter() -> None:
    order = [2, 0, 3, 1]
    np.testing.assert_allclose(
        aggregation.weighted_mean(VALUES[order], WEIGHTS[order]),
        aggregation.weighted_mean(VALUES, WEIGHTS),
        rtol=1e-14,
    )


def test_client_with_weight_zero_is_left_out_whatever_it_sends() -> None:
    broken = VALUES.copy()
    broken[1] = np.nan
    np.testing.assert_array_equal(
        aggregation.weighted_mean(broken, WEIGHTS), aggregation.weighted_mean(VALUES, WEIGHTS)
    )


def test_sum_is_made_in_float64() -> None:
    values = np.full((1000, 1), 0.1, dtype=np.float32)
    mean = aggregation.weighted_mean(values, np.ones(1000))
    assert mean.dtype == np.float64
    assert mean[0] == pytest.approx(float(np.float32(0.1)), rel=1e-14)


def test_scalars_per_client_are_averaged() -> None:
    assert aggregation.weighted_mean(np.array([1.0, 3.0]), [1, 1]) == 2.0


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, -1, 1, 1], "finite and >= 0"),
        ([1, np.nan, 1, 1], "finite and >= 0"),
        ([1, np.inf, 1, 1], "finite and >= 0"),
        ([0, 0, 0, 0], "all weights are 0"),
        ([1, 1], "4 values but 2 weights"),
        ([[1, 1, 1, 1]], "shape"),
    ],
)
def test_bad_weights_are_refused(weights: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        aggregation.weighted_mean(VALUES, weights)


def test_shares_sum_to_one_or_to_zero() -> None:
    np.testing.assert_allclose(aggregation.shares(WEIGHTS), WEIGHTS / 20)
    np.testing.assert_array_equal(aggregation.shares([0, 0]), [0, 0])
    assert aggregation.shares([]).shape == (0,)
