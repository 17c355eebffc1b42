"""FedLabel's choice per sample: which of two experts writes the pseudo-label.

Cho, Joshi, Dimitriadis, ICCV 2023, arXiv 2307.08809. The experts are the received global model and
the local model, which has made a few labeled steps. Equations as in docs/methods/fedlabel.md:
F3 confidence, F4 expert, F5 pseudo-label, F6 agreement, F7 ratio.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fedlabels.losses.base import check_option, entropy, hard_labels, row_weights, safe_ratio

Score = Literal["variance", "inverse_entropy", "max_prob"]
Expert = Literal["confident", "global", "local"]

ENTROPY_OFFSET = 1e-5  # of the official code: keeps the score of a one-hot row finite
SCORE_FLOOR = 1e-12  # denominator of the ratio when both experts are exactly uniform


class Choice(NamedTuple):
    """Which expert speaks for each sample (F4, F7).

    Parameters
    ----------
    expert : Tensor, shape (batch,)
        int64: 0 the global model, 1 the local one.
    selected, discarded : Tensor, shape (batch, classes)
        Probabilities of the expert and of the other model.
    ratio : Tensor, shape (batch,)
        Score of the discarded model over the score of the expert, in [0, 1].
    """

    expert: Tensor
    selected: Tensor
    discarded: Tensor
    ratio: Tensor


class Selection(NamedTuple):
    """Everything that one unlabeled batch learns from; all of it is constant for autograd.

    Parameters
    ----------
    expert : Tensor, shape (batch,)
        int64: 0 the global model, 1 the local one.
    pseudo_label : Tensor, shape (batch,)
        Most likely class of the expert.
    keep : Tensor, shape (batch,)
        Bool: the expert's confidence passes the threshold, and the row is real.
    agree : Tensor, shape (batch,)
        Bool: kept, and the discarded model names the same class.
    ratio : Tensor, shape (batch,)
        Score of the discarded model over the score of the expert, in [0, 1], for every sample.
    selected, discarded : Tensor, shape (batch, classes)
        Probabilities of the expert and of the other model.
    confidence : Tensor, shape (batch,)
        The expert's largest probability.
    """

    expert: Tensor
    pseudo_label: Tensor
    keep: Tensor
    agree: Tensor
    ratio: Tensor
    selected: Tensor
    discarded: Tensor
    confidence: Tensor


class SelectionCounts(NamedTuple):
    """Sums over one batch, in the dtype of the probabilities; they add up over batches.

    Parameters
    ----------
    rows : Tensor, shape ()
        Real samples.
    n_pass : Tensor, shape ()
        Kept samples.
    n_local : Tensor, shape ()
        Kept samples whose expert is the local model.
    n_agree : Tensor, shape ()
        Kept samples where both models name the same class.
    ratio : Tensor, shape ()
        Sum of the ratios of the kept samples.
    local_share : Tensor, shape ()
        ``n_local / n_pass``, 0 when nothing passes.
    """

    rows: Tensor
    n_pass: Tensor
    n_local: Tensor
    n_agree: Tensor
    ratio: Tensor
    local_share: Tensor


def confidence(probs: Tensor, score: Score = "variance") -> Tensor:
    """Confidence score h of every row (F3).

    Parameters
    ----------
    probs : Tensor, shape (batch, classes)
        Softmax rows, not logits.
    score : {"variance", "inverse_entropy", "max_prob"}
        ``variance`` is the unbiased variance over the classes, in [0, 1/classes];
        ``inverse_entropy`` is 1 / (entropy in nats + 1e-5); ``max_prob`` the largest probability.

    Returns
    -------
    Tensor, shape (batch,)

    Raises
    ------
    ConfigError
        If the score is unknown.
    """
    check_option("score", score, Score)
    if score == "variance":
        classes = probs.shape[-1]
        return (probs - 1.0 / classes).square().sum(dim=-1) / (classes - 1)
    if score == "inverse_entropy":
        return 1.0 / (entropy(probs) + ENTROPY_OFFSET)
    return probs.amax(dim=-1)


def choose_expert(
    probs_global: Tensor,
    probs_local: Tensor,
    *,
    score: Score = "variance",
    expert: Expert = "confident",
    local_allowed: bool | Tensor = True,
) -> Choice:
    """Choose, per sample, the model that writes the pseudo-label (F4, F7).

    Parameters
    ----------
    probs_global : Tensor, shape (batch, classes)
        Softmax of the received model.
    probs_local : Tensor, shape (batch, classes)
        Softmax of the locally trained model.
    score : {"variance", "inverse_entropy", "max_prob"}
    expert : {"confident", "global", "local"}
        Ablation: ``global`` or ``local`` forces one model; the ratio is then cut at 1.
    local_allowed : bool or Tensor, shape () or (batch,)
        False where the client has no local expert because it has no labels. Both models are then
        taken as one: the expert is global and the ratio 1. A mask decides this, because two
        evaluations of equal weights may differ in the last bit.

    Returns
    -------
    Choice

    Raises
    ------
    ConfigError
        If ``score`` or ``expert`` is unknown.

    Notes
    -----
    A tie goes to the global model. Two exactly uniform outputs have the score 0: their ratio is 0.
    """
    check_option("expert", expert, Expert)
    allowed = _as_mask(local_allowed, probs_global)
    outer = probs_global.detach()
    inner = torch.where(allowed.unsqueeze(-1), probs_local.detach(), outer)
    score_global, score_local = confidence(outer, score), confidence(inner, score)
    if expert == "confident":
        local = score_local > score_global  # (batch,)
    else:
        local = (allowed if expert == "local" else torch.zeros_like(allowed)).expand_as(score_local)
    best = torch.where(local, score_local, score_global)
    rest = torch.where(local, score_global, score_local)
    ratio = (rest / best.clamp_min(SCORE_FLOOR)).clamp_max(1.0)
    pick = local.unsqueeze(-1)  # (batch, 1)
    selected, discarded = torch.where(pick, inner, outer), torch.where(pick, outer, inner)
    return Choice(local.long(), selected, discarded, ratio)


def select(
    probs_global: Tensor,
    probs_local: Tensor,
    *,
    threshold: float | Tensor,
    score: Score = "variance",
    expert: Expert = "confident",
    threshold_inclusive: bool = False,
    local_allowed: bool | Tensor = True,
    rows: Tensor | None = None,
) -> Selection:
    """Choose experts, write pseudo-labels, test confidence and agreement (F3 to F7).

    Parameters
    ----------
    probs_global : Tensor, shape (batch, classes)
        Softmax of the received model on the weak view.
    probs_local : Tensor, shape (batch, classes)
        Softmax of the locally trained model on the same view.
    threshold : float or Tensor, shape () or (classes,)
        Least largest probability beta in [0, 1], also per class of the pseudo-label.
    score : {"variance", "inverse_entropy", "max_prob"}
    expert : {"confident", "global", "local"}
    threshold_inclusive : bool
        Whether a probability equal to the threshold passes.
    local_allowed : bool or Tensor, shape () or (batch,)
        False where there is no local expert, see `choose_expert`.
    rows : Tensor or None, shape (batch,)
        Real rows; padding is never kept.

    Returns
    -------
    Selection

    Raises
    ------
    ConfigError
        If ``score`` or ``expert`` is unknown.
    """
    choice = choose_expert(
        probs_global, probs_local, score=score, expert=expert, local_allowed=local_allowed
    )
    hard = hard_labels(
        choice.selected, threshold=threshold, inclusive=threshold_inclusive, rows=rows
    )
    return Selection(
        expert=choice.expert,
        pseudo_label=hard.label,
        keep=hard.keep,
        agree=hard.keep & (choice.discarded.argmax(dim=-1) == hard.label),
        ratio=choice.ratio,
        selected=choice.selected,
        discarded=choice.discarded,
        confidence=hard.confidence,
    )


def selection_counts(selection: Selection, rows: Tensor | None = None) -> SelectionCounts:
    """Sum up a selection for metrics.

    Parameters
    ----------
    selection : Selection
    rows : Tensor or None, shape (batch,)
        Real rows.

    Returns
    -------
    SelectionCounts
    """
    real = row_weights(rows, selection.ratio)
    kept = real * selection.keep
    n_pass, n_local = kept.sum(dim=-1), (kept * selection.expert).sum(dim=-1)
    return SelectionCounts(
        rows=real.sum(dim=-1),
        n_pass=n_pass,
        n_local=n_local,
        n_agree=(real * selection.agree).sum(dim=-1),
        ratio=(kept * selection.ratio).sum(dim=-1),
        local_share=safe_ratio(n_local, n_pass),
    )


def _as_mask(allowed: bool | Tensor, like: Tensor) -> Tensor:
    """Make a bool tensor where ``like`` is; filled there, as a copy would end a graph capture."""
    if isinstance(allowed, Tensor):
        return allowed
    return torch.full((), allowed, dtype=torch.bool, device=like.device)
