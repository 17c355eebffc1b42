"""The loss in three terms."""

import numpy as np
import pytest

from fedlabels.aggregation import decompose, decompose_by
from fedlabels.seeds import generator


def test_terms_add_up_and_follow_their_definition():
    draws = generator(0, "losses")
    matrix, new, n = draws.random((4, 4)), draws.random(4), np.array([10, 0, 30, 60])
    terms = decompose(matrix, new, n)
    assert terms.local + terms.shift + terms.aggregation == pytest.approx(terms.total, abs=1e-12)
    p = n / 100
    everywhere = [sum(p[j] * matrix[i, j] for j in range(4)) for i in range(4)]
    assert terms.local == pytest.approx(sum(p[i] * matrix[i, i] for i in range(4)))
    assert terms.shift == pytest.approx(
        sum(p[i] * (everywhere[i] - matrix[i, i]) for i in range(4))
    )
    assert terms.total == pytest.approx(p @ new)


def test_one_client_that_is_the_new_model():
    terms = decompose([[0.7]], [0.7], [12])
    assert (terms.local, terms.shift, terms.aggregation) == (0.7, 0.0, 0.0)


def test_the_whole_may_be_measured_elsewhere():
    terms = decompose_by([0.2, 0.4], [0.5, 0.9], 0.6, [1, 3])
    assert terms.local == pytest.approx(0.35)
    assert terms.shift == pytest.approx(0.45)
    assert terms.aggregation == pytest.approx(-0.2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0.1]], [0.1], [0]), "nobody has samples"),
        (([[0.1, 0.2]], [0.1], [1]), "1 clients"),
        (([[0.1]], [0.1, 0.2], [1]), "1 clients"),
    ],
)
def test_bad_shapes(arguments, message):
    with pytest.raises(ValueError, match=message):
        decompose(*arguments)
