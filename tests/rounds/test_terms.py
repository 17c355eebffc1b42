"""What a worker asks of a client's terms."""

import pytest
import torch

from fedlabels.cohort import Term
from fedlabels.rounds.terms import finite, misfit, size, weight_of

LIKE = {"w": torch.Size([2, 3]), "b": torch.Size([2])}


def term(weight=None, **shapes):
    return Term({k: torch.zeros(v) for k, v in shapes.items()}, weight)


def test_a_term_that_fits():
    assert misfit(term(w=(2, 3), b=(2,)), LIKE, whole=True) is None
    assert misfit(term(b=(2,)), LIKE, whole=False) is None


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (term(w=(3, 2), b=(2,)), r"'w' has shape \(3, 2\), expected is \(2, 3\)"),
        (term(v=(2,)), "'v' is not known; expected are: w, b"),
        (term(w=(2, 3)), "missing: b"),
    ],
)
def test_a_term_that_does_not_fit_is_explained(bad, text):
    with pytest.raises(AssertionError, match=text):
        raise AssertionError(misfit(bad, LIKE, whole=True))


def test_finite_looks_at_values_and_weights():
    assert finite(term(torch.tensor(2), w=(2,)))
    assert not finite(term(torch.tensor(float("nan")), w=(2,)))
    assert not finite(Term({"w": torch.tensor([1.0, float("inf")])}))
    assert finite(Term({"n": torch.tensor([2**62])}))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_finite_reads_every_layout(value):
    filters = torch.ones(4, 3, 5, 5).to(memory_format=torch.channels_last)
    strided = torch.ones(6, 4)[:, ::2]
    for tensor in (filters, strided, torch.ones(2, 3).t(), torch.ones(())):
        assert finite(Term({"w": tensor}))
        tensor[(-1,) * tensor.dim()] = value
        assert not finite(Term({"w": tensor}))


def test_numbers_whose_squares_float32_cannot_hold_are_refused():
    assert finite(Term({"w": torch.tensor([1e18, -1e6])}))
    assert finite(Term({"w": torch.full((1000,), -9e17)}))  # the sum of squares is too large
    assert finite(Term({"w": torch.full((8,), 6e4, dtype=torch.float16)}))
    assert not finite(Term({"w": torch.tensor([1.0, -3e38])}))
    assert not finite(Term({"w": torch.tensor([1e30], dtype=torch.float64)}))
    assert not finite(Term({"w": torch.tensor([1e30, float("nan")])}))
    assert not finite(Term({"w": torch.ones(1)}, torch.tensor(float("inf"))))


def test_weight_is_the_models():
    terms = {"model": term(torch.tensor(3), w=(1,)), "other": term(torch.tensor(9), w=(1,))}
    assert weight_of(terms) == 3
    assert weight_of({"other": terms["other"]}) == 9
    assert weight_of({"model": term(w=(1,))}) == 1
    assert weight_of({}) == 0
    assert size(terms["model"]) == 4
