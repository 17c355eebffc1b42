from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from fedlabels import losses
from fedlabels.errors import ConfigError
from tests.losses.helpers import logits

SHARED = logits(12, 5, seed=1)
EXPERTS = SHARED, SHARED + logits(12, 5, seed=2, scale=1.5)  # agree on some samples
STUDENT = logits(12, 5, seed=3)
WEAK = logits(12, 5, seed=4)


def paper(
    z_global: Tensor,
    z_local: Tensor,
    student: Tensor,
    *,
    threshold: float = 0.5,
    rows: Tensor | None = None,
    lambda0: float = 0.7,
    expert: losses.Expert = "confident",
    **options: Any,
) -> losses.UnlabeledLoss:
    selection = losses.select(
        losses.soft_labels(z_global),
        losses.soft_labels(z_local),
        threshold=threshold,
        expert=expert,
        rows=rows,
    )
    return losses.unlabeled_loss_paper(selection, student, lambda0=lambda0, rows=rows, **options)


def flute(
    z_global: Tensor, z_local: Tensor, strong: Tensor, weak: Tensor, **options: Any
) -> losses.UnlabeledLoss:
    selection = losses.select(
        losses.soft_labels(z_global), losses.soft_labels(z_local), threshold=0.5
    )
    return losses.unlabeled_loss_flute(selection, strong, weak, lambda0=0.7, **options)


def test_forced_global_expert_without_consistency_is_fixmatch_times_batch_over_pass() -> None:
    loss = paper(*EXPERTS, STUDENT, lambda0=0.0, expert="global")
    reference = losses.fixmatch_loss(EXPERTS[0], STUDENT, threshold=0.5, threshold_inclusive=False)
    assert 0 < loss.n_pass < 12
    torch.testing.assert_close(loss.total, reference.total * 12 / loss.n_pass)
    batch = paper(*EXPERTS, STUDENT, lambda0=0.0, expert="global", unlabeled_divisor="batch")
    torch.testing.assert_close(batch.total, reference.total)


def test_consistency_norm_divides_by_pass_or_agree() -> None:
    by_pass = paper(*EXPERTS, STUDENT, consistency_norm="pass")
    by_agree = paper(*EXPERTS, STUDENT, consistency_norm="agree")
    assert 0 < by_pass.n_agree < by_pass.n_pass
    torch.testing.assert_close(
        by_pass.consistency * by_pass.n_pass, by_agree.consistency * by_agree.n_agree
    )


def test_divisor_batch_rescales_both_terms() -> None:
    by_pass = paper(*EXPERTS, STUDENT)
    by_batch = paper(*EXPERTS, STUDENT, unlabeled_divisor="batch")
    torch.testing.assert_close(by_batch.total * 12, by_pass.total * by_pass.n_pass)


def test_teacher_local_equals_discarded_when_the_expert_is_global() -> None:
    discarded = paper(*EXPERTS, STUDENT, expert="global")
    local = paper(*EXPERTS, STUDENT, expert="global", consistency_teacher="local")
    torch.testing.assert_close(discarded, local)
    discarded = paper(*EXPERTS, STUDENT, expert="local")
    local = paper(*EXPERTS, STUDENT, expert="local", consistency_teacher="local")
    assert discarded.consistency != local.consistency


def test_variants_meet_when_their_options_are_equal() -> None:
    as_flute = paper(
        *EXPERTS,
        STUDENT,
        logits_consistency=WEAK,
        consistency_norm="agree",
        consistency_teacher="local",
    )
    torch.testing.assert_close(as_flute.total, flute(*EXPERTS, STUDENT, WEAK).total)


def test_lambda_u_scales_the_cross_entropy_only() -> None:
    for one, two in (
        (paper(*EXPERTS, STUDENT), paper(*EXPERTS, STUDENT, lambda_u=2.0)),
        (flute(*EXPERTS, STUDENT, WEAK), flute(*EXPERTS, STUDENT, WEAK, lambda_u=2.0)),
    ):
        assert two.ce == one.ce
        torch.testing.assert_close(two.total - one.total, one.ce)


@pytest.mark.parametrize("options", [{}, {"consistency_norm": "agree", "threshold": 0.6}])
def test_loss_ignores_row_constants_class_names_and_order(options: dict[str, Any]) -> None:
    base = paper(*EXPERTS, STUDENT, **options).total
    shift = logits(12, 1, seed=9)
    classes, order = torch.tensor([3, 0, 4, 1, 2]), torch.arange(11, -1, -1)
    shifted = paper(EXPERTS[0] + shift, EXPERTS[1] - shift, STUDENT + 5, **options)
    renamed = paper(*(z[:, classes] for z in (*EXPERTS, STUDENT)), **options)
    reordered = paper(*(z[order] for z in (*EXPERTS, STUDENT)), **options)
    for other in (shifted, renamed, reordered):
        assert abs(other.total - base) < 1e-12


def test_no_gradient_reaches_the_experts() -> None:
    for expert in (0, 1):

        def loss(z: Tensor, which: int = expert) -> Tensor:
            both = list(EXPERTS)
            both[which] = z
            return paper(both[0], both[1], STUDENT).total

        assert (grad(loss)(EXPERTS[expert]) == 0).all()
    z = EXPERTS[0].clone().requires_grad_()
    student = STUDENT.clone().requires_grad_()
    (through_student,) = torch.autograd.grad(paper(z, EXPERTS[1], student).total, student)
    assert through_student.abs().max() > 0
    through_expert = torch.autograd.grad(
        paper(z, EXPERTS[1], student).total, z, allow_unused=True, materialize_grads=True
    )
    assert (through_expert[0] == 0).all()


@pytest.mark.parametrize("divisor", ["pass", "batch"])
def test_nothing_passing_gives_zero_loss_and_zero_gradient(divisor: str) -> None:
    loss = paper(*EXPERTS, STUDENT, threshold=1.0, unlabeled_divisor=divisor)
    assert loss.n_pass == 0
    assert loss.total == 0
    gradient = grad(lambda z: paper(*EXPERTS, z, threshold=1.0, unlabeled_divisor=divisor).total)(
        STUDENT
    )
    assert (gradient == 0).all()


def test_temperature_reaches_the_distillation_only() -> None:
    hot, cold = paper(*EXPERTS, STUDENT, temperature=3.0), paper(*EXPERTS, STUDENT)
    assert hot.ce == cold.ce
    assert hot.consistency != cold.consistency


@pytest.mark.parametrize("divisor", ["pass", "batch"])
def test_padding_rows_change_nothing(divisor: str) -> None:
    rows = torch.tensor([True] * 9 + [False] * 3)
    padded = paper(*EXPERTS, STUDENT, rows=rows, unlabeled_divisor=divisor)
    short = paper(*(z[:9] for z in (*EXPERTS, STUDENT)), unlabeled_divisor=divisor)
    torch.testing.assert_close(padded, short)
    gradient = grad(lambda z: paper(*EXPERTS, z, rows=rows, unlabeled_divisor=divisor).total)(
        STUDENT
    )
    assert (gradient[9:] == 0).all()
    assert gradient[:9].abs().max() > 0


def test_vmap_of_grad_equals_loop() -> None:
    outer, inner, student = (logits(4, 7, 5, seed=s) for s in (1, 2, 3))
    rows = torch.tensor([[1] * n + [0] * (7 - n) for n in (7, 5, 1, 0)])
    bars = torch.tensor([[0.2, 0.3, 0.4, 0.5, 0.6]] * 4, dtype=torch.float64)

    def one(z: Tensor, g: Tensor, q: Tensor, r: Tensor, bar: Tensor) -> tuple[Tensor, Any]:
        chosen = losses.select(g.softmax(-1), q.softmax(-1), threshold=bar, rows=r)
        loss = losses.unlabeled_loss_paper(chosen, z, lambda0=0.5, rows=r)
        return loss.total, loss

    step = grad(one, has_aux=True)
    stacked = vmap(step)(student, outer, inner, rows, bars)
    for k in range(4):
        gradient, loss = step(student[k], outer[k], inner[k], rows[k], bars[k])
        torch.testing.assert_close(stacked[0][k], gradient, rtol=0, atol=1e-12)
        for got, expected in zip(stacked[1], loss, strict=True):
            torch.testing.assert_close(got[k], expected, rtol=0, atol=1e-12)


def test_float32_stays_float32() -> None:
    loss = paper(*(z.float() for z in (*EXPERTS, STUDENT)))
    assert {part.dtype for part in loss} == {torch.float32}
    assert loss.total.item() == pytest.approx(paper(*EXPERTS, STUDENT).total.item(), rel=1e-5)


def test_anchor_is_a_sum_of_means_and_pulls_back() -> None:
    tree = {"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([[2.0]]), "mean": torch.ones(1)}
    reference = {name: torch.zeros_like(part) for name, part in tree.items()}
    assert losses.anchor_penalty(tree, reference, ["a", "b"]) == 5.0 + 4.0
    assert losses.anchor_penalty(tree, reference) == 5.0 + 4.0 + 1.0
    assert losses.anchor_penalty(tree, tree) == 0.0
    gradient = grad(lambda t: losses.anchor_penalty(t, reference))(tree)
    assert gradient["a"].tolist() == [1.0, 3.0]


@pytest.mark.parametrize("option", ["consistency_norm", "consistency_teacher", "unlabeled_divisor"])
def test_unknown_options_are_refused(option: str) -> None:
    with pytest.raises(ConfigError, match=option):
        paper(*EXPERTS, STUDENT, **dict[str, Any]({option: "nobody"}))
