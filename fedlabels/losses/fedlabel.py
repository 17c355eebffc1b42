"""FedLabel's loss of one unlabeled batch, in two variants.

Cho, Joshi, Dimitriadis: "Local or Global: Selective Knowledge Assimilation for Federated Learning
with Limited Labels", ICCV 2023, arXiv 2307.08809. Equations as in docs/methods/fedlabel.md: F8a the
loss of the paper, F8b the loss of the official code (variant ``flute``).
"""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fedlabels.losses.base import check_option, cross_entropy, kl, row_weights, safe_ratio
from fedlabels.losses.selection import Selection

ConsistencyNorm = Literal["pass", "agree"]
ConsistencyTeacher = Literal["discarded", "local"]
UnlabeledDivisor = Literal["pass", "batch"]


class UnlabeledLoss(NamedTuple):
    """Loss of one unlabeled batch and its parts.

    Parameters
    ----------
    ce : Tensor, shape ()
        Cross-entropy against the pseudo-labels, without its coefficient.
    consistency : Tensor, shape ()
        Distillation term. Variant ``paper``: with ``lambda0`` inside; ``flute``: without.
    total : Tensor, shape ()
        What is minimized.
    n_pass, n_agree : Tensor, shape ()
        Kept and agreeing samples, in the dtype of the logits. With ``n_pass`` 0 the loss is 0
        and the step must be skipped.
    """

    ce: Tensor
    consistency: Tensor
    total: Tensor
    n_pass: Tensor
    n_agree: Tensor


def unlabeled_loss_paper(
    selection: Selection,
    logits_strong: Tensor,
    *,
    lambda0: float | Tensor,
    lambda_u: float | Tensor = 1.0,
    logits_consistency: Tensor | None = None,
    consistency_norm: ConsistencyNorm = "pass",
    consistency_teacher: ConsistencyTeacher = "discarded",
    unlabeled_divisor: UnlabeledDivisor = "pass",
    temperature: float | Tensor = 1.0,
    rows: Tensor | None = None,
) -> UnlabeledLoss:
    """Loss of one unlabeled batch, variant ``paper`` (F8a).

    Parameters
    ----------
    selection : Selection
        Constants: no gradient flows into them.
    logits_strong : Tensor, shape (batch, classes)
        The student on the strong view.
    lambda0 : float or Tensor
        Upper bound of the weight of the distillation, >= 0.
    lambda_u : float or Tensor
        Coefficient of the cross-entropy, >= 0.
    logits_consistency : Tensor or None, shape (batch, classes)
        The student on the view that is distilled into; None is the strong view.
    consistency_norm : {"pass", "agree"}
        Divide the distillation by the kept or by the agreeing samples.
    consistency_teacher : {"discarded", "local"}
        Whose soft output is distilled.
    unlabeled_divisor : {"pass", "batch"}
        Divide by the kept samples, or by the real rows of the batch. The second keeps the gradient
        small when few samples pass; ``consistency_norm="agree"`` is not touched by it.
    temperature : float or Tensor
        Divisor of the student's logits in the distillation, > 0; the same as the experts'.
    rows : Tensor or None, shape (batch,)
        Real rows.

    Returns
    -------
    UnlabeledLoss
        ``consistency`` has ``lambda0`` inside; ``total = lambda_u * ce + consistency``.

    Raises
    ------
    ConfigError
        If an option is unknown.

    Notes
    -----
    ``(1/n) sum_i m_i CE(y_i, q_i) + (1/n) sum_i a_i lambda0 rho_i KL(s-_i || q_i)`` with the kept
    samples m, their number n, the agreeing samples a, the ratio rho and the student's output q.
    """
    view = logits_strong if logits_consistency is None else logits_consistency
    parts = _parts(
        selection,
        logits_strong,
        view,
        (consistency_norm, consistency_teacher, unlabeled_divisor),
        temperature,
        rows,
    )
    consistency = lambda0 * parts.consistency
    return parts._replace(consistency=consistency, total=lambda_u * parts.ce + consistency)


def unlabeled_loss_flute(
    selection: Selection,
    logits_strong: Tensor,
    logits_weak: Tensor,
    *,
    lambda0: float | Tensor,
    lambda_u: float | Tensor = 1.0,
    consistency_norm: ConsistencyNorm = "agree",
    consistency_teacher: ConsistencyTeacher = "local",
    unlabeled_divisor: UnlabeledDivisor = "pass",
    temperature: float | Tensor = 1.0,
    rows: Tensor | None = None,
) -> UnlabeledLoss:
    """Loss of one unlabeled batch, variant ``flute`` without its anchor term (F8b).

    Parameters
    ----------
    selection : Selection
    logits_strong, logits_weak : Tensor, shape (batch, classes)
        The student on the strong and on the weak view; the weak one is distilled into.
    lambda0, lambda_u : float or Tensor
        Coefficients of the distillation and of the cross-entropy, >= 0.
    consistency_norm, consistency_teacher, unlabeled_divisor, temperature, rows
        As in `unlabeled_loss_paper`.

    Returns
    -------
    UnlabeledLoss
        ``consistency`` is without ``lambda0``; ``total = lambda_u * ce + lambda0 * consistency``.

    Raises
    ------
    ConfigError
        If an option is unknown.
    """
    parts = _parts(
        selection,
        logits_strong,
        logits_weak,
        (consistency_norm, consistency_teacher, unlabeled_divisor),
        temperature,
        rows,
    )
    return parts._replace(total=lambda_u * parts.ce + lambda0 * parts.consistency)


def anchor_penalty(
    tree: Mapping[str, Tensor], reference: Mapping[str, Tensor], names: Iterable[str] | None = None
) -> Tensor:
    """Sum over tensors of the mean squared distance to the received ones (last term of F8b).

    Parameters
    ----------
    tree : mapping of str to Tensor
        Weights of the student.
    reference : mapping of str to Tensor
        Received weights, constant.
    names : iterable of str or None
        Trainable tensors; None takes all of ``tree``, which then must hold no buffers.

    Returns
    -------
    Tensor, shape ()
        Without the coefficient lambda_2.
    """
    keys = list(tree if names is None else names)
    return torch.stack([(tree[k] - reference[k].detach()).square().mean() for k in keys]).sum()


def _parts(
    selection: Selection,
    logits_strong: Tensor,
    logits_consistency: Tensor,
    options: tuple[ConsistencyNorm, ConsistencyTeacher, UnlabeledDivisor],
    temperature: float | Tensor,
    rows: Tensor | None,
) -> UnlabeledLoss:
    """Compute both terms without coefficients; ``total`` is their plain sum."""
    norm, teacher, divisor = options
    check_option("consistency_norm", norm, ConsistencyNorm)
    check_option("consistency_teacher", teacher, ConsistencyTeacher)
    check_option("unlabeled_divisor", divisor, UnlabeledDivisor)
    losses = cross_entropy(logits_strong, selection.pseudo_label)  # (batch,)
    real = row_weights(rows, losses)
    kept, agreeing = real * selection.keep, real * selection.agree
    n_pass, n_agree = kept.sum(dim=-1), agreeing.sum(dim=-1)
    count = n_pass if divisor == "pass" else real.sum(dim=-1)
    distances = kl(_teacher(selection, teacher), logits_consistency, temperature=temperature)
    weighted = (agreeing * selection.ratio.detach() * distances).sum(dim=-1)
    ce = safe_ratio((kept * losses).sum(dim=-1), count)
    consistency = safe_ratio(weighted, n_agree if norm == "agree" else count)
    return UnlabeledLoss(ce, consistency, ce + consistency, n_pass, n_agree)


def _teacher(selection: Selection, teacher: ConsistencyTeacher) -> Tensor:
    """Pick the probabilities that are distilled, shape (batch, classes)."""
    if teacher == "discarded":
        return selection.discarded
    return torch.where(selection.expert.unsqueeze(-1) == 1, selection.selected, selection.discarded)
