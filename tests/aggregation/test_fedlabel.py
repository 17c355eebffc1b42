import numpy as np
import pytest

from fedlabels import aggregation

RANDOM = np.random.default_rng(1)
SERVER = RANDOM.normal(size=(2, 3))
LOCAL = RANDOM.normal(size=(4, 2, 3))
STUDENT = RANDOM.normal(size=(4, 2, 3))
MODELS = LOCAL + (STUDENT - SERVER)


def test_paper_adds_the_weighted_mean_of_the_changes() -> None:
    r = aggregation.client_weights_paper([3, 0, 8, 1], [10, 2, 0, 5])
    assert r.tolist() == [13, 2, 8, 6]
    changes = (LOCAL - SERVER) + (STUDENT - SERVER)
    expected = SERVER + np.tensordot(r / r.sum(), changes, axes=1)
    np.testing.assert_allclose(aggregation.merge_paper(SERVER, MODELS, r), expected, rtol=1e-12)


def test_paper_with_identical_clients_equals_one_client() -> None:
    same = np.broadcast_to(MODELS[0], (5, 2, 3))
    merged = aggregation.merge_paper(SERVER, same, [1, 2, 3, 4, 5])
    np.testing.assert_allclose(merged, MODELS[0], rtol=1e-14)
    np.testing.assert_array_equal(aggregation.merge_paper(SERVER, MODELS[:1], [9]), MODELS[0])


def test_paper_ignores_the_scale_of_the_weights() -> None:
    base = aggregation.merge_paper(SERVER, MODELS, [3, 1, 4, 1])
    scaled = aggregation.merge_paper(SERVER, MODELS, [6, 2, 8, 2])
    np.testing.assert_allclose(scaled, base, rtol=1e-14)


@pytest.mark.parametrize("clients", [0, 4])
def test_paper_keeps_the_server_when_nobody_has_weight(clients: int) -> None:
    merged = aggregation.merge_paper(SERVER, MODELS[:clients], np.zeros(clients))
    np.testing.assert_array_equal(merged, SERVER)
    assert merged is not SERVER


def test_paper_without_unlabeled_steps_is_fedavg_bit_for_bit() -> None:
    labels = np.array([3, 0, 8, 1])
    weights = aggregation.client_weights_paper(labels, np.zeros(4))
    np.testing.assert_array_equal(
        aggregation.merge_paper(SERVER, LOCAL, weights), aggregation.weighted_mean(LOCAL, labels)
    )


def test_flute_weights_count_zero_as_one() -> None:
    assert aggregation.flute_weights([0, 6, 312]).tolist() == [1, 6, 312]


def test_flute_takes_half_of_each_mean() -> None:
    local, student = LOCAL.mean(0), aggregation.weighted_mean(STUDENT, [1, 6, 3, 2])
    expected = SERVER + 0.5 * (local - SERVER) + 0.5 * (student - SERVER)
    merged = aggregation.merge_flute(SERVER, local, student)
    np.testing.assert_allclose(merged, expected, rtol=1e-12)


def test_flute_moves_half_way_during_burn_in() -> None:
    """With theta = w the step is half the plain mean of Delta_L, whatever the label counts are."""
    local = aggregation.weighted_mean(LOCAL, np.ones(4))
    absent = aggregation.merge_flute(SERVER, local, None)
    np.testing.assert_allclose(absent, SERVER + 0.5 * (LOCAL - SERVER).mean(0), rtol=1e-12)
    np.testing.assert_array_equal(absent, aggregation.merge_flute(SERVER, local, SERVER))


def test_flute_without_answers_keeps_the_server() -> None:
    np.testing.assert_array_equal(aggregation.merge_flute(SERVER, None, None), SERVER)


def test_negative_counts_are_refused() -> None:
    with pytest.raises(ValueError, match=">= 0"):
        aggregation.client_weights_paper([1, 2], [3, -5])
    with pytest.raises(ValueError, match=">= 0"):
        aggregation.flute_weights([-1])
