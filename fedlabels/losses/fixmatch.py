"""Single-teacher consistency losses: FixMatch, UDA and UDA's training signal annealing.

Sohn et al.: FixMatch, NeurIPS 2020, arXiv 2001.07685 (B1). Xie et al.: UDA, NeurIPS 2020,
arXiv 1904.12848 (B2, B3). Equation numbers as in docs/methods/baselines.md. The divisor is
the whole unlabeled batch, not the passing samples.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fedlabels.errors import ConfigError
from fedlabels.losses.base import (
    check_option,
    cross_entropy,
    entropy,
    hard_labels,
    mean_loss,
    row_weights,
    safe_ratio,
    soft_cross_entropy,
    soft_labels,
)

Schedule = Literal["linear", "log", "exp"]

SHARPNESS = 5.0  # exponent of the log and exp schedules, UDA section 4


class FixMatchLoss(NamedTuple):
    """Loss of one unlabeled batch.

    Parameters
    ----------
    total : Tensor, shape ()
        What is minimized; 0 when nothing passes.
    n_pass : Tensor, shape ()
        Kept samples, in the dtype of the logits.
    pseudo_label : Tensor, shape (batch,)
        Most likely class of the weak view.
    keep : Tensor, shape (batch,)
        Bool: confident enough, and a real row.
    """

    total: Tensor
    n_pass: Tensor
    pseudo_label: Tensor
    keep: Tensor


class UdaLoss(NamedTuple):
    """Loss of one unlabeled batch; both forms have the same gradient.

    Parameters
    ----------
    total : Tensor, shape ()
        Cross-entropy form, that of the paper; 0 when nothing passes.
    kl : Tensor, shape ()
        Divergence form: the entropy of the targets is taken off.
    n_pass : Tensor, shape ()
        Kept samples, in the dtype of the logits.
    pseudo_label : Tensor, shape (batch,)
        Most likely class of the weak view, for metrics.
    keep : Tensor, shape (batch,)
        Bool: confident enough before sharpening, and a real row.
    target : Tensor, shape (batch, classes)
        Sharpened probabilities.
    """

    total: Tensor
    kl: Tensor
    n_pass: Tensor
    pseudo_label: Tensor
    keep: Tensor
    target: Tensor


class TsaLoss(NamedTuple):
    """Supervised loss under training signal annealing.

    Parameters
    ----------
    total : Tensor, shape ()
        Mean cross-entropy of the kept samples, 0 if there is none.
    n_kept : Tensor, shape ()
        Kept samples, in the dtype of the logits.
    keep : Tensor, shape (batch,)
        Bool: not yet learned too well, and a real row.
    """

    total: Tensor
    n_kept: Tensor
    keep: Tensor


def fixmatch_loss(
    logits_weak: Tensor,
    logits_strong: Tensor,
    *,
    threshold: float | Tensor,
    threshold_inclusive: bool = True,
    rows: Tensor | None = None,
) -> FixMatchLoss:
    """FixMatch: the weak view labels, the strong view learns (B1).

    Parameters
    ----------
    logits_weak : Tensor, shape (batch, classes)
        The teacher (the same model, or the received one) on the weak view; constant.
    logits_strong : Tensor, shape (batch, classes)
        The student on the strong view.
    threshold : float or Tensor, shape () or (classes,)
        Least confidence tau in [0, 1], also per class of the pseudo-label.
    threshold_inclusive : bool
        Whether a confidence equal to the threshold passes.
    rows : Tensor or None, shape (batch,)
        Real rows; only they count in the divisor.

    Returns
    -------
    FixMatchLoss

    Notes
    -----
    ``(1/batch) sum_i 1[max q_i >= tau] CE(argmax q_i, s_i)`` with the teacher's output q and the
    student's s.
    """
    hard = hard_labels(
        soft_labels(logits_weak), threshold=threshold, inclusive=threshold_inclusive, rows=rows
    )
    losses = hard.keep * cross_entropy(logits_strong, hard.label)  # (batch,)
    n_pass = (row_weights(rows, losses) * hard.keep).sum(dim=-1)
    return FixMatchLoss(mean_loss(losses, rows), n_pass, hard.label, hard.keep)


def uda_loss(
    logits_weak: Tensor,
    logits_strong: Tensor,
    *,
    threshold: float | Tensor,
    temperature: float | Tensor = 0.4,
    threshold_inclusive: bool = False,
    rows: Tensor | None = None,
) -> UdaLoss:
    """UDA: the sharpened output on the weak view is the target of the strong view (B2).

    Parameters
    ----------
    logits_weak : Tensor, shape (batch, classes)
        The teacher on the weak view; constant.
    logits_strong : Tensor, shape (batch, classes)
        The student on the strong view.
    threshold : float or Tensor, shape () or (classes,)
        Least confidence beta in [0, 1] of the output before sharpening.
    temperature : float or Tensor
        Divisor of the teacher's logits in the target, > 0.
    threshold_inclusive : bool
        Whether a confidence equal to the threshold passes.
    rows : Tensor or None, shape (batch,)
        Real rows; only they count in the divisor.

    Returns
    -------
    UdaLoss

    Notes
    -----
    ``(1/batch) sum_i 1[max q_i > beta] CE(t_i, s_i)`` with the teacher's output q, the target
    ``t = softmax(z / temperature)`` of its logits z and the student's output s.
    """
    hard = hard_labels(
        soft_labels(logits_weak), threshold=threshold, inclusive=threshold_inclusive, rows=rows
    )
    target = soft_labels(logits_weak, temperature=temperature)
    losses = hard.keep * soft_cross_entropy(target, logits_strong)  # (batch,)
    total = mean_loss(losses, rows)
    n_pass = (row_weights(rows, losses) * hard.keep).sum(dim=-1)
    divergence = total - mean_loss(hard.keep * entropy(target), rows)
    return UdaLoss(total, divergence, n_pass, hard.label, hard.keep, target)


def tsa_threshold(
    step: float | Tensor, *, total: int, num_classes: int, schedule: Schedule = "linear"
) -> Tensor:
    """Largest probability of the true class that still trains (eta_t of B3).

    Parameters
    ----------
    step : float or Tensor
        Steps made so far over the whole run; beyond ``total`` it counts as ``total``.
    total : int
        Steps planned, > 0.
    num_classes : int
        Number of classes, >= 2.
    schedule : {"linear", "log", "exp"}
        ``log`` releases the labels early, ``exp`` late.

    Returns
    -------
    Tensor, shape of ``step``
        float64, in [1/classes, 1].

    Raises
    ------
    ConfigError
        If an argument is out of range or the schedule unknown.

    Notes
    -----
    ``a_t (1 - 1/C) + 1/C`` with the progress p = step/total and ``a_t = p`` (linear),
    ``1 - exp(-5 p)`` (log) or ``exp(5 (p - 1))`` (exp).

    Examples
    --------
    >>> float(tsa_threshold(50, total=100, num_classes=4))
    0.625
    """
    check_option("schedule", schedule, Schedule)
    if total <= 0 or num_classes < 2:
        raise ConfigError(
            f"total must be > 0 and num_classes >= 2; got total={total}, num_classes={num_classes}"
        )
    # a number is filled in where new tensors are made, which a GPU does without waiting
    made = step.double() if isinstance(step, Tensor) else torch.full((), step, dtype=torch.float64)
    progress = (made / total).clamp(0.0, 1.0)
    if schedule == "linear":
        share = progress
    elif schedule == "log":
        share = -torch.expm1(-SHARPNESS * progress)
    else:
        share = torch.exp(SHARPNESS * (progress - 1.0))
    return share * (1.0 - 1.0 / num_classes) + 1.0 / num_classes


def tsa_loss(
    logits: Tensor, labels: Tensor, *, eta: float | Tensor, rows: Tensor | None = None
) -> TsaLoss:
    """Cross-entropy over the labeled samples that are not yet learned too well (B3).

    Parameters
    ----------
    logits : Tensor, shape (batch, classes)
    labels : Tensor, shape (batch,)
        Class indices; -1 (padding) is never kept.
    eta : float or Tensor, shape ()
        Samples whose true class has a larger probability are dropped, see `tsa_threshold`.
    rows : Tensor or None, shape (batch,)
        Real rows.

    Returns
    -------
    TsaLoss
    """
    losses = cross_entropy(logits, labels)  # (batch,)
    keep = (torch.exp(-losses.detach()) <= eta) & (labels >= 0)
    weights = row_weights(rows, losses) * keep
    n_kept = weights.sum(dim=-1)
    keep = keep if rows is None else keep & (rows > 0)
    return TsaLoss(safe_ratio((weights * losses).sum(dim=-1), n_kept), n_kept, keep)
