"""FedLD's server rule: equal to its literal definition, its invariances, its edges."""

import numpy as np
import pytest

from fedlabels.aggregation import (
    PrincipalRule,
    advanced_history,
    aggregate_tensor,
    combined,
    gram_matrix,
    is_open,
    principal_figures,
    principal_gradient,
    recombine,
)
from fedlabels.errors import ConfigError
from fedlabels.seeds import generator


def draw(m=5, d=8, seed=0):
    return generator(seed, "updates").normal(size=(m, d))


def update(g, weights=None, **rule):
    return aggregate_tensor(g, has_history=True, rule=PrincipalRule(**rule), weights=weights)[0]


def literal(g, kappa, weights=None):
    """S1 to S5 as they are written: loops over clients and directions, vectors of length d."""
    m = len(g)
    p = np.full(m, 1 / m) if weights is None else np.asarray(weights) / np.sum(weights)
    h = sum(p[i] * np.outer(g[i], g[i]) for i in range(m))  # d x d: the same eigenvalues
    values, vectors = np.linalg.eigh(h)
    order = np.argsort(values)[::-1][: max(1, int(m * kappa))]
    out = np.zeros(g.shape[1])
    for i in range(m):
        for j in order:
            u = vectors[:, j]
            share = values[j] / values.sum()
            out += p[i] * np.linalg.norm(g[i]) * share * np.sign(g[i] @ u) * u
    return out


@pytest.mark.parametrize("kappa", [0.2, 0.6, 0.8, 1.0])
@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 3.0, 4.0, 5.0]])
def test_the_gram_form_is_the_literal_one(kappa, weights):
    g = draw()
    found = update(g, weights, k_proportion=kappa)
    np.testing.assert_allclose(found, literal(g, kappa, weights), rtol=0, atol=1e-12)


def test_long_tensors_are_taken_in_pieces(monkeypatch):
    g = draw(d=50)
    whole = update(g)
    monkeypatch.setattr(principal_gradient, "_COLUMNS", 7)
    np.testing.assert_allclose(update(g), whole, rtol=0, atol=1e-13)
    np.testing.assert_allclose(gram_matrix(g), g @ g.T, rtol=0, atol=1e-12)


def test_two_clients_by_hand():
    found, made = aggregate_tensor(np.array([[2.0, 1.0], [1.0, 2.0]]), has_history=True)
    np.testing.assert_allclose(found, [1.4230249471, 1.4230249471], atol=1e-10)
    np.testing.assert_allclose(made.eigenvalues, [4.5, 0.5], atol=1e-14)
    assert made.k == 1


@pytest.mark.parametrize("factors", [[1, 1, 1, 1], [1, 2, -0.5, 3], [0, 0, 1, 0]])
def test_parallel_updates_give_the_mean(factors):
    g = draw(m=1)[0] * np.array(factors, dtype=float)[:, None]
    np.testing.assert_allclose(update(g), g.mean(0), rtol=0, atol=1e-12)


def test_order_scale_and_rotation():
    g, rng = draw(), generator(1, "rotation")
    found = update(g)
    np.testing.assert_allclose(update(g[[3, 1, 4, 0, 2]]), found, rtol=0, atol=1e-13)
    for factor in (3.0, -0.7):
        np.testing.assert_allclose(update(factor * g), factor * found, rtol=0, atol=1e-12)
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    np.testing.assert_allclose(update(g @ turn), found @ turn, rtol=0, atol=1e-12)


def test_revised_updates_have_the_length_of_the_note():
    g = draw()
    _, made = aggregate_tensor(g, has_history=True)
    part = made.eigenvalues / made.eigenvalues.sum()
    lengths = np.linalg.norm(combined(g, made.mixing), axis=1)
    expected = np.linalg.norm(g, axis=1) * np.sqrt((part[: made.k] ** 2).sum())
    np.testing.assert_allclose(lengths, expected, rtol=1e-12)
    assert (lengths <= np.linalg.norm(g, axis=1)).all()
    # all directions kept is not the plain mean
    assert np.abs(update(g, k_proportion=1.0) - g.mean(0)).max() > 1e-2


def test_norm_restore_keeps_the_direction_and_the_length_of_the_mean():
    g = draw()
    plain, restored = update(g), update(g, norm_restore=True)
    assert np.linalg.norm(restored) == pytest.approx(np.linalg.norm(g.mean(0)), rel=1e-12)
    cosine = plain @ restored / np.linalg.norm(plain) / np.linalg.norm(restored)
    assert cosine == pytest.approx(1, abs=1e-12)


def test_vote_gives_all_clients_one_sign():
    g = draw()
    _, made = aggregate_tensor(g, has_history=True, rule=PrincipalRule(calibration="vote"))
    rows = combined(g, made.mixing)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(unit, np.broadcast_to(unit[0], unit.shape), atol=1e-12)
    assert np.linalg.norm(update(g, calibration="vote")) > np.linalg.norm(update(g))


def test_a_tie_is_decided_by_the_sum():
    g = np.array([[3.0, 0.1], [-1.0, 0.1]])  # one vote each along the first axis
    assert update(g, calibration="vote")[0] > 0
    assert update(-g, calibration="vote")[0] < 0


class TestEdges:
    def test_one_client_keeps_its_own(self):
        g = draw(m=1)
        for kappa in (0.2, 1.0):
            np.testing.assert_array_equal(update(g, k_proportion=kappa), g[0])

    def test_zero_updates(self):
        g = draw()
        g[2] = 0
        found, made = aggregate_tensor(g, has_history=True)
        assert np.isfinite(found).all()
        assert (made.mixing[2] == 0).all()
        others = np.delete(g, 2, axis=0)
        # it counts in 1/m: the directions are those of the others, kept as many as m allows
        assert made.k == 4
        np.testing.assert_allclose(found, 4 / 5 * update(others, k_proportion=1.0), atol=1e-12)
        assert (update(np.zeros((3, 4))) == 0).all()

    def test_fewer_directions_than_clients(self):
        g = np.repeat(draw(m=2), 3, axis=0)  # rank 2 of 6
        found, made = aggregate_tensor(g, has_history=True, rule=PrincipalRule(1.0))
        np.testing.assert_allclose(found, literal(g, 1 / 3), atol=1e-12)
        assert made.k == 6
        assert made.dropped == 4
        assert made.effective_rank <= 2

    def test_an_orthogonal_client_is_not_pushed_along(self):
        g = np.array([[2.0, 0, 0], [0, 1.0, 0], [1e-9, 1.0, 0]])
        _, made = aggregate_tensor(g, has_history=True, rule=PrincipalRule(1.0))
        rows = combined(g, made.mixing)
        assert rows[1, 0] == pytest.approx(0, abs=1e-9)
        assert rows[2, 0] == pytest.approx(0, abs=1e-9)  # cosine 1e-9 is noise
        strict = aggregate_tensor(g, has_history=True, rule=PrincipalRule(1.0, cos_tol=0.0))[1]
        assert abs(combined(g, strict.mixing)[2, 0]) > 0.1

    def test_without_history_and_with_one_entry_it_is_the_mean(self):
        g = draw()
        found, made = aggregate_tensor(g, has_history=False)
        np.testing.assert_allclose(found, g.mean(0), atol=1e-15)
        assert made is None
        found, made = aggregate_tensor(g[:, :1], has_history=True)
        np.testing.assert_allclose(found, g[:, :1].mean(0), atol=1e-15)
        weighed, _ = aggregate_tensor(g, has_history=False, weights=[1, 0.5, 1, 1, 0.5])
        np.testing.assert_allclose(weighed, np.average(g, 0, [1, 0.5, 1, 1, 0.5]), atol=1e-15)

    def test_history(self):
        assert not is_open(None)
        assert not is_open(advanced_history(None, np.zeros(3)))
        assert is_open(advanced_history(np.zeros(3), np.ones(3)))

    def test_nobody_and_bad_weights(self):
        with pytest.raises(ValueError, match="no client"):
            update(np.zeros((0, 3)))
        with pytest.raises(ValueError, match="one weight > 0 for each of 2"):
            update(np.ones((2, 3)), [1.0, 0.0])

    @pytest.mark.parametrize(
        ("name", "value"),
        [("k_proportion", 0.0), ("k_proportion", 1.5), ("calibration", "x"), ("cos_tol", -1.0)],
    )
    def test_settings_are_checked(self, name, value):
        with pytest.raises(ConfigError, match=name):
            PrincipalRule(**{name: value})


def test_figures_are_those_of_the_whole_update():
    parts = [draw(seed=1), draw(d=20, seed=2)]
    made, updates = [], []
    for g in parts:
        one, how = aggregate_tensor(g, has_history=True)
        made.append(how)
        updates.append(one)
    whole, mean = np.concatenate(updates), np.concatenate([g.mean(0) for g in parts])
    found = principal_figures(made)
    assert found["pg_norm_ratio"] == pytest.approx(np.linalg.norm(whole) / np.linalg.norm(mean))
    cosine = whole @ mean / np.linalg.norm(whole) / np.linalg.norm(mean)
    assert found["pg_cosine"] == pytest.approx(cosine)
    part = made[0].eigenvalues / made[0].eigenvalues.sum()
    assert made[0].effective_rank == pytest.approx(np.exp(-(part * np.log(part)).sum()))
    assert 0 < found["pg_gap"] <= min(1 - m.eigenvalues[1] / m.eigenvalues[0] for m in made)
    assert found["pg_dropped"] == 0
    assert principal_figures([]) == {}
    assert "pg_gap" not in principal_figures([recombine(np.ones((1, 1)))])
