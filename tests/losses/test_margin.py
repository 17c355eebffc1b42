"""FedLD's margin term: values, gradients, padding."""

import math

import pytest
import torch
from torch.func import grad, vmap

from fedlabels.errors import ConfigError
from fedlabels.losses import cross_entropy, margin_loss, margin_term

FORMS = ["softmax_batch", "logits"]


def logits(rows=4, classes=3, scale=2.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(rows, classes, generator=generator, dtype=torch.float64)


def gradient(values, **options):
    return grad(lambda z: margin_term(z, **options))(values)


@pytest.mark.parametrize(("rows", "classes"), [(1, 2), (5, 10)])
def test_uniform_predictions_have_a_known_value_and_no_gradient(rows, classes):
    zero = torch.zeros(rows, classes, dtype=torch.float64)
    assert float(margin_term(zero)) == pytest.approx(math.log(1 + rows / classes), abs=1e-15)
    assert gradient(zero).abs().max() < 1e-16


def test_value_of_one_sample_of_two_classes():
    value = margin_term(torch.zeros(1, 2, dtype=torch.float64))
    assert float(value) == pytest.approx(0.4054651081, abs=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_gradient_against_differences(form):
    z, step = logits(), 1e-6
    found = gradient(z, form=form)
    for b in range(z.shape[0]):
        for c in range(z.shape[1]):
            move = torch.zeros_like(z)
            move[b, c] = step
            ends = [margin_term(z + sign * move, form=form) for sign in (1, -1)]
            assert float((ends[0] - ends[1]) / (2 * step) - found[b, c]) == pytest.approx(
                0, abs=1e-8
            )


def test_only_the_probabilities_of_m1_count():
    z, constant = logits(), torch.tensor([[3.0], [-1.0], [0.5], [9.0]], dtype=torch.float64)
    assert gradient(z).sum(1).abs().max() < 1e-15
    assert torch.allclose(margin_term(z + constant), margin_term(z), rtol=0, atol=1e-14)
    assert gradient(z, form="logits").sum(1).abs().max() > 1e-3
    assert abs(margin_term(z + constant, form="logits") - margin_term(z, form="logits")) > 0.1


def test_m1_is_one_number_of_the_batch_and_m2_a_mean():
    z = logits()
    twice = torch.cat([z, z])
    squares = z.softmax(1).square().sum()
    assert float(margin_term(twice)) == pytest.approx(float(torch.log1p(2 * squares)))
    assert float(margin_term(twice, form="logits")) == pytest.approx(
        float(margin_term(z, form="logits"))
    )


def test_huge_logits_stay_finite():
    z = torch.tensor([[1000.0, -1000.0, 0.0], [0.0, 0.0, 1000.0]])
    assert float(margin_term(z)) == pytest.approx(math.log(3))  # saturated: S is the batch size
    assert gradient(z).abs().max() == 0
    assert math.isfinite(float(margin_term(z, form="logits")))


@pytest.mark.parametrize("form", FORMS)
def test_padding_does_not_count_under_vmap(form):
    z = torch.stack([logits(seed=1), logits(seed=2), logits(seed=3)])
    labels = torch.tensor([[0, 1, 2, 1]] * 3)
    rows = torch.arange(4) < torch.tensor([4, 2, 0])[:, None]

    def total(z, labels, rows):
        return margin_loss(z, labels, margin_lambda=0.3, form=form, rows=rows).total

    found = vmap(grad(total))(z, labels, rows)
    values = vmap(total)(z, labels, rows)
    for k, n in enumerate((4, 2)):
        alone = margin_loss(z[k, :n], labels[k, :n], margin_lambda=0.3, form=form)
        assert float(values[k]) == pytest.approx(float(alone.total), abs=1e-14)
        assert torch.all(found[k, n:] == 0)
        mine = grad(lambda z, k=k, n=n: total(z, labels[k, :n], rows[k, :n]))(z[k, :n])
        assert torch.allclose(found[k, :n], mine, rtol=0, atol=1e-15)
    assert values[2] == 0
    assert torch.all(found[2] == 0)


def test_the_parts_add_up():
    z, labels = logits(), torch.tensor([0, 2, 1, 1])
    made = margin_loss(z, labels, margin_lambda=0.25)
    assert float(made.cross_entropy) == pytest.approx(float(cross_entropy(z, labels).mean()))
    assert float(made.margin) == float(margin_term(z))
    assert float(made.total) == pytest.approx(float(made.cross_entropy + 0.25 * made.margin))


def test_unknown_form():
    with pytest.raises(ConfigError, match="softmax_batch, logits; got 'other'"):
        margin_term(logits(), form="other")
