import pytest
import torch
from torch.func import grad, vmap

from fedlabels import losses
from fedlabels.errors import ConfigError
from tests.losses.helpers import logits, probs


def test_cross_entropy_is_the_negative_log_probability_of_the_label() -> None:
    z, y = logits(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    expected = -z.log_softmax(-1)[torch.arange(6), y]
    torch.testing.assert_close(losses.cross_entropy(z, y), expected)


def test_cross_entropy_of_an_unlabeled_row_is_zero_with_zero_gradient() -> None:
    z = logits(2, 3)
    y = torch.tensor([1, losses.UNLABELED])
    assert losses.cross_entropy(z, y)[1] == 0
    assert (grad(lambda v: losses.cross_entropy(v, y).sum())(z)[1] == 0).all()


def test_kl_takes_the_teacher_first() -> None:
    """Teacher (.7, .3), student (.5, .5): sum t ln(t/q) = .08228; the wrong order gives .08718."""
    teacher = torch.tensor([[0.7, 0.3]], dtype=torch.float64)
    student = torch.zeros(1, 2, dtype=torch.float64)
    assert losses.kl(teacher, student).item() == pytest.approx(0.08228, abs=5e-6)
    swapped = losses.kl(student.softmax(-1), teacher.log())
    assert swapped.item() == pytest.approx(0.08718, abs=5e-6)


def test_kl_gradient_is_student_minus_teacher() -> None:
    teacher, student = probs(5, 4, seed=1), logits(5, 4, seed=2)
    gradient = grad(lambda z: losses.kl(teacher, z).sum())(student)
    torch.testing.assert_close(gradient, student.softmax(-1) - teacher)


def test_kl_treats_zero_log_zero_as_zero() -> None:
    teacher = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    student = logits(1, 3)
    torch.testing.assert_close(losses.kl(teacher, student), -student.log_softmax(-1)[:, 0])


def test_kl_of_equal_distributions_is_zero_at_every_temperature() -> None:
    z = logits(5, 4)
    for temperature in (0.5, 1.0, 3.0):
        teacher = losses.soft_labels(z, temperature=temperature)
        assert losses.kl(teacher, z, temperature=temperature).abs().max() < 1e-14


def test_soft_labels_pass_no_gradient() -> None:
    gradient = grad(lambda z: losses.soft_labels(z).square().sum())(logits(3, 4))
    assert (gradient == 0).all()


def test_threshold_may_differ_by_class() -> None:
    p = torch.tensor([[0.6, 0.4], [0.4, 0.6], [0.1, 0.9]], dtype=torch.float64)
    bar = torch.tensor([0.5, 0.8], dtype=torch.float64)
    assert losses.hard_labels(p, threshold=bar).keep.tolist() == [True, False, True]


@pytest.mark.parametrize(("inclusive", "expected"), [(False, False), (True, True)])
def test_threshold_is_strict_unless_told(inclusive: bool, expected: bool) -> None:
    p = torch.tensor([[0.75, 0.25]], dtype=torch.float64)
    assert losses.hard_labels(p, threshold=0.75, inclusive=inclusive).keep.item() is expected


def test_padding_is_never_kept() -> None:
    rows = torch.tensor([1, 0, 1])
    keep = losses.hard_labels(probs(3, 4), threshold=0.0, rows=rows).keep
    assert keep.tolist() == [True, False, True]


def test_mean_loss_counts_real_rows_only() -> None:
    values = torch.tensor([1.0, 3.0, 100.0])
    assert losses.mean_loss(values, torch.tensor([True, True, False])) == 2.0
    assert losses.mean_loss(values, torch.zeros(3)) == 0.0


def test_vmap_equals_loop() -> None:
    z, p = logits(3, 5, 4), probs(3, 5, 4, seed=1)
    y = torch.randint(-1, 4, (3, 5), generator=torch.Generator().manual_seed(0))
    bar = torch.rand(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    cross = vmap(losses.cross_entropy)(z, y)
    torch.testing.assert_close(
        cross, torch.stack([losses.cross_entropy(z[k], y[k]) for k in (0, 1, 2)])
    )
    distance = vmap(losses.kl)(p, z)
    torch.testing.assert_close(distance, torch.stack([losses.kl(p[k], z[k]) for k in (0, 1, 2)]))
    keep = vmap(lambda a, b: losses.hard_labels(a, threshold=b).keep)(p, bar)
    for k in range(3):
        assert keep[k].equal(losses.hard_labels(p[k], threshold=bar[k]).keep)


def test_unknown_option_names_the_allowed_ones() -> None:
    with pytest.raises(ConfigError, match="variance, inverse_entropy, max_prob"):
        losses.confidence(probs(2, 3), "margin")  # type: ignore[arg-type]
