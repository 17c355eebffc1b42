"""Confidence thresholds per class that follow the learning: FlexMatch and FreeMatch.

Zhang et al.: FlexMatch, NeurIPS 2021, arXiv 2110.08263 (H1). Wang et al.: FreeMatch, ICLR 2023,
arXiv 2205.07246 (H2). Equation numbers as in docs/methods/baselines.md. The results go into the
``threshold`` argument of the losses, which look them up by the pseudo-label.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fedlabels.losses.base import check_option, hard_labels, row_weights, safe_ratio

Curve = Literal["linear", "convex"]


class FlexMatchThreshold(NamedTuple):
    """Thresholds of FlexMatch.

    Parameters
    ----------
    beta : Tensor, shape (classes,)
        How well each class is learned, in [0, 1].
    threshold : Tensor, shape (classes,)
        Least confidence of each class, in [0, tau].
    """

    beta: Tensor
    threshold: Tensor


class FreeMatchState(NamedTuple):
    """Running means of FreeMatch.

    Parameters
    ----------
    global_t : Tensor, shape ()
        Mean of the largest probability.
    local_p : Tensor, shape (classes,)
        Mean probability of each class.
    """

    global_t: Tensor
    local_p: Tensor


def flexmatch_counts(
    probs: Tensor, *, threshold: float | Tensor, rows: Tensor | None = None
) -> Tensor:
    """Count the confident predictions of each class (sigma of H1).

    Parameters
    ----------
    probs : Tensor, shape (samples, classes)
        Latest output for every unlabeled sample of the client.
    threshold : float or Tensor, shape ()
        The fixed threshold tau, in [0, 1]; a confidence must exceed it.
    rows : Tensor or None, shape (samples,)
        Real rows.

    Returns
    -------
    Tensor, shape (classes,)
        In the dtype of the probabilities.
    """
    hard = hard_labels(probs, threshold=threshold, rows=rows)
    classes = torch.arange(probs.shape[-1], device=probs.device)
    hits = (hard.label.unsqueeze(-1) == classes) & hard.keep.unsqueeze(-1)  # (samples, classes)
    return hits.to(probs.dtype).sum(dim=-2)


def flexmatch_threshold(
    counts: Tensor,
    *,
    tau: float | Tensor,
    num_unlabeled: int | Tensor,
    warmup: bool = True,
    curve: Curve = "convex",
) -> FlexMatchThreshold:
    """Lower the threshold of classes that have few confident predictions (H1).

    Parameters
    ----------
    counts : Tensor, shape (classes,)
        Confident samples of each class, floating point, see `flexmatch_counts`.
    tau : float or Tensor
        Threshold of the best learned class, in [0, 1].
    num_unlabeled : int or Tensor
        Unlabeled samples of the client; the rest of them is not yet confident.
    warmup : bool
        Whether the divisor is at least the number of samples that are not yet confident.
    curve : {"linear", "convex"}
        M(x) = x, or x / (2 - x).

    Returns
    -------
    FlexMatchThreshold
        All 0 when nothing is confident: then everything passes.

    Raises
    ------
    ConfigError
        If the curve is unknown.

    Notes
    -----
    ``threshold_c = M(counts_c / max counts) tau``; with warm-up the divisor is
    ``max(max counts, num_unlabeled - sum counts)``.
    """
    check_option("curve", curve, Curve)
    most = counts.amax(dim=-1, keepdim=True)
    if warmup:
        most = torch.maximum(most, num_unlabeled - counts.sum(dim=-1, keepdim=True))
    beta = safe_ratio(counts, most)
    share = beta / (2.0 - beta) if curve == "convex" else beta
    return FlexMatchThreshold(beta, share * tau)


def freematch_init(
    num_classes: int, *, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> FreeMatchState:
    """Start FreeMatch's running means at 1/classes (H2).

    Parameters
    ----------
    num_classes : int
        Number of classes, >= 2.
    dtype : torch.dtype
    device : torch.device or None

    Returns
    -------
    FreeMatchState
    """
    uniform = torch.full((num_classes,), 1.0 / num_classes, dtype=dtype, device=device)
    return FreeMatchState(uniform[0], uniform)


def freematch_update(
    state: FreeMatchState,
    probs: Tensor,
    *,
    momentum: float | Tensor = 0.999,
    rows: Tensor | None = None,
) -> FreeMatchState:
    """Move the running means toward a batch, before it is masked (H2).

    Parameters
    ----------
    state : FreeMatchState
    probs : Tensor, shape (batch, classes)
        Teacher's output on the weak view; constant.
    momentum : float or Tensor
        Weight m of the old means, in [0, 1]. With 0 the means are those of the batch, which for a
        pass over the whole shard is the start of a client that keeps no state.
    rows : Tensor or None, shape (batch,)
        Real rows; a batch without any changes nothing.

    Returns
    -------
    FreeMatchState
    """
    probs = probs.detach()
    weights = row_weights(rows, probs[..., 0])  # (batch,)
    count = weights.sum(dim=-1)
    top = safe_ratio((weights * probs.amax(dim=-1)).sum(dim=-1), count)
    share = safe_ratio((weights.unsqueeze(-1) * probs).sum(dim=-2), count.unsqueeze(-1))
    seen = count > 0
    global_t = momentum * state.global_t + (1.0 - momentum) * top
    local_p = momentum * state.local_p + (1.0 - momentum) * share
    return FreeMatchState(
        torch.where(seen, global_t, state.global_t),
        torch.where(seen.unsqueeze(-1), local_p, state.local_p),
    )


def freematch_threshold(state: FreeMatchState) -> Tensor:
    """Threshold of each class, ``t p_c / max p`` (H2); a confidence equal to it passes.

    Parameters
    ----------
    state : FreeMatchState

    Returns
    -------
    Tensor, shape (classes,)
        In [0, t].
    """
    return state.global_t.unsqueeze(-1) * state.local_p / state.local_p.amax(dim=-1, keepdim=True)
