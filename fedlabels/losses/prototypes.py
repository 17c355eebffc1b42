"""Prototypes and anchors: one vector a class, in the space of the features.

FedSA: Zhou et al., AAAI 2025, arXiv 2501.05496, S2 to S7 and S10 of docs/methods/fedsa.md.
FedProto: Tan et al., AAAI 2022, arXiv 2105.00243, P3 and P4 of docs/methods/fedproto.md.

*Convention*: tables have one row a class, shape (classes, width); ``present`` tells which rows mean
anything, the others must hold finite numbers. Tables are constants: no gradient flows into them.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from fedlabels.losses.base import check_option, cross_entropy, mean_loss

GapForm = Literal["nearest", "all_pairs"]
Mean = Callable[[Tensor], Tensor]
SQUARE_FLOOR = 1e-12  # below it a distance has gradient 0; the root's own would be infinite at 0


class Margin(NamedTuple):
    """How far apart classes should be (S3).

    Parameters
    ----------
    value : Tensor, shape ()
        d_k, the larger one of both gaps.
    local_gap : Tensor, shape ()
        Of the client's own prototypes: 0 without any round before, -inf with one class or none.
    anchor_gap : Tensor, shape ()
        Of the anchors.
    """

    value: Tensor
    local_gap: Tensor
    anchor_gap: Tensor


class FedSALoss(NamedTuple):
    """FedSA's objective and its terms, each a mean of shape () before its coefficient (S6)."""

    total: Tensor
    ce: Tensor
    reg: Tensor
    mcl: Tensor
    cc: Tensor


def squared_distances(features: Tensor, table: Tensor) -> Tensor:
    """Return ``||r_i - t_c||**2`` by differences, which do not cancel; shape (batch, classes).

    Parameters
    ----------
    features : Tensor, shape (batch, width)
    table : Tensor, shape (classes, width)
    """
    return (features.unsqueeze(-2) - table).square().sum(-1)


def nearest_gaps(table: Tensor, present: Tensor | None = None) -> Tensor:
    """Distance of every vector to the nearest other one.

    Parameters
    ----------
    table : Tensor, shape (classes, width)
    present : Tensor of bool or None, shape (classes,)
        Vectors that count; None is all.

    Returns
    -------
    Tensor, shape (classes,)
        inf where a vector is absent or there is no other one.
    """
    distance, pairs = _pairs(table, present)
    return torch.where(pairs, distance, torch.inf).amin(-1)


def gap(table: Tensor, present: Tensor | None = None, *, form: GapForm = "nearest") -> Tensor:
    """How far apart some vectors are (S3, S3b).

    Parameters
    ----------
    table : Tensor, shape (classes, width)
    present : Tensor of bool or None, shape (classes,)
        Vectors that count; None is all.
    form : {"nearest", "all_pairs"}
        Mean distance to the nearest other vector, or the sum over all ordered pairs divided by
        (n - 1)**2 for n vectors.

    Returns
    -------
    Tensor, shape ()
        -inf for fewer than two vectors.

    Examples
    --------
    >>> float(gap(torch.tensor([[0.0, 0.0], [3.0, 4.0]])))
    5.0
    """
    check_option("margin", form, GapForm)
    distance, pairs = _pairs(table, present)
    count = pairs.any(-1).sum(-1)  # vectors that have another one
    if form == "nearest":
        nearest = torch.where(pairs, distance, torch.inf).amin(-1)
        total = torch.where(pairs.any(-1), nearest, torch.zeros_like(nearest)).sum(-1)
        mean = total / count.clamp_min(1)
    else:
        total = torch.where(pairs, distance, torch.zeros_like(distance)).sum((-1, -2))
        mean = total / (count - 1).clamp_min(1).square()
    return torch.where(count > 1, mean, -torch.inf)


def _pairs(table: Tensor, present: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return distances between all vectors, and which pairs count; both (classes, classes)."""
    # row by row: all differences at once would take classes**2 * width numbers
    rows = [(table - one).square().sum(-1) for one in table.unbind(0)]
    distance = torch.stack(rows).sqrt()
    ones = torch.ones(len(rows), dtype=torch.bool, device=table.device)
    here = ones if present is None else present
    other = ~torch.eye(len(rows), dtype=torch.bool, device=table.device)
    return distance, here.unsqueeze(-1) & here & other


def anchor_margin(
    anchors: Tensor, local_gap: Tensor | None = None, *, form: GapForm = "nearest"
) -> Margin:
    """Compute the margin of a client for one round (S3).

    Parameters
    ----------
    anchors : Tensor, shape (classes, width)
    local_gap : Tensor or None, shape ()
        `gap` of the client's own prototypes of the round in which it took part last; None, if there
        was none, counts as 0.
    form : {"nearest", "all_pairs"}
        See `gap`.
    """
    between = gap(anchors, form=form)
    local = torch.zeros_like(between) if local_gap is None else local_gap
    return Margin(torch.maximum(local, between), local, between)


def prototype_pull(
    features: Tensor, labels: Tensor, table: Tensor, present: Tensor | None = None
) -> Tensor:
    """Squared distance of every feature to its class's vector, mean over coordinates (S2, P3).

    Parameters
    ----------
    features : Tensor, shape (batch, width)
    labels : Tensor of int64, shape (batch,)
    table : Tensor, shape (classes, width)
    present : Tensor of bool or None, shape (classes,)
        A sample whose class is absent gives 0 and no gradient; it still counts in a mean.

    Returns
    -------
    Tensor, shape (batch,)
    """
    labels = labels.clamp_min(0)
    values = (features - table.detach()[labels]).square().mean(-1)
    if present is None:
        return values
    return torch.where(present[labels], values, torch.zeros_like(values))


def margin_contrast(
    features: Tensor, labels: Tensor, table: Tensor, margin: float | Tensor
) -> Tensor:
    """Cross-entropy of a softmax over negative distances, made harder by a margin (S4, T3).

    Parameters
    ----------
    features : Tensor, shape (batch, width)
    labels : Tensor of int64, shape (batch,)
    table : Tensor, shape (classes, width)
        FedTGP differentiates it: it is not cut off here.
    margin : float or Tensor, shape ()
        Added to the distance of the true class, >= 0.

    Returns
    -------
    Tensor, shape (batch,)

    Notes
    -----
    ``-log exp(-(||r - t_y|| + d)) / (exp(-(||r - t_y|| + d)) + sum_{c != y} exp(-||r - t_c||))``.
    """
    distance = squared_distances(features, table).clamp_min(SQUARE_FLOOR).sqrt()
    classes = torch.arange(table.shape[0], device=table.device)
    true = (labels.unsqueeze(-1) == classes).to(distance.dtype)
    return cross_entropy(-(distance + margin * true), labels)


def calibration_loss(logits: Tensor) -> Tensor:
    """Cross-entropy of every anchor as a sample of its own class (S5).

    Parameters
    ----------
    logits : Tensor, shape (classes, classes)
        The head's output for the anchors, row c for anchor c.

    Returns
    -------
    Tensor, shape (classes,)
    """
    labels = torch.arange(logits.shape[-1], device=logits.device)
    return functional.cross_entropy(logits, labels, reduction="none")


def fedsa_loss(
    features: Tensor,
    logits: Tensor,
    labels: Tensor,
    anchors: Tensor,
    anchor_logits: Tensor,
    *,
    margin: float | Tensor,
    lambda_reg: float = 10.0,
    mu_mcl: float = 1.0,
    nu_cc: float = 1.0,
    mean: Mean = mean_loss,
) -> FedSALoss:
    """FedSA's objective on one batch (S6).

    Parameters
    ----------
    features : Tensor, shape (batch, width)
    logits : Tensor, shape (batch, classes)
        The head's output for the features.
    labels : Tensor of int64, shape (batch,)
    anchors : Tensor, shape (classes, width)
    anchor_logits : Tensor, shape (classes, classes)
        The head's output for the anchors.
    margin : float or Tensor, shape ()
        d_k.
    lambda_reg, mu_mcl, nu_cc : float
        Coefficients, >= 0. A term with coefficient 0 is not part of the total at all: with all
        three 0 the gradient is that of the cross-entropy, bit for bit.
    mean : callable
        Averages one value a sample over the real rows.
    """
    fixed = anchors.detach()
    ce = mean(cross_entropy(logits, labels))
    terms = {
        "reg": mean(prototype_pull(features, labels, fixed)),
        "mcl": mean(margin_contrast(features, labels, fixed, margin)),
        "cc": calibration_loss(anchor_logits).mean(-1),
    }
    total = ce
    for name, weight in (("reg", lambda_reg), ("mcl", mu_mcl), ("cc", nu_cc)):
        if weight:
            total = total + weight * terms[name]
    return FedSALoss(total, ce, **terms)


def class_sums(
    features: Tensor, labels: Tensor, *, num_classes: int, rows: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Add up the features of every class (S7).

    Parameters
    ----------
    features : Tensor, shape (batch, width)
    labels : Tensor of int64, shape (batch,)
        -1 belongs to no class.
    num_classes : int
    rows : Tensor or None, shape (batch,)
        Real rows.

    Returns
    -------
    sums : Tensor, shape (classes, width)
    counts : Tensor, shape (classes,)
        In the dtype of the features.
    """
    hits = labels.unsqueeze(-1) == torch.arange(num_classes, device=labels.device)
    if rows is not None:
        hits = hits & (rows > 0).unsqueeze(-1)
    share = hits.to(features.dtype)  # (batch, classes)
    return share.transpose(-1, -2) @ features, share.sum(-2)


def class_means(sums: Tensor, counts: Tensor) -> Tensor:
    """Divide sums by counts, 0 where a class has no sample (S7).

    Parameters
    ----------
    sums : Tensor, shape (classes, width)
    counts : Tensor, shape (classes,)

    Returns
    -------
    Tensor, shape (classes, width)
    """
    return sums / counts.clamp_min(1).unsqueeze(-1)


def prototype_distances(features: Tensor, table: Tensor, present: Tensor) -> Tensor:
    """Mean squared distance of every feature to every vector, inf to absent ones (S10, P4).

    Parameters
    ----------
    features : Tensor, shape (batch, width)
    table : Tensor, shape (classes, width)
    present : Tensor of bool, shape (classes,)

    Returns
    -------
    Tensor, shape (batch, classes)
    """
    distance = squared_distances(features, table) / table.shape[-1]
    return torch.where(present, distance, torch.inf)


def nearest_prototype(features: Tensor, table: Tensor, present: Tensor) -> Tensor:
    """Class of the nearest vector, the lowest one on ties; -1 where there is no vector at all.

    Parameters
    ----------
    features : Tensor, shape (batch, width)
    table : Tensor, shape (classes, width)
    present : Tensor of bool, shape (classes,)

    Returns
    -------
    Tensor of int64, shape (batch,)
    """
    nearest = prototype_distances(features, table, present).argmin(-1)
    return torch.where(present.any(-1), nearest, -1)
