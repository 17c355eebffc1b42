"""FedLD's margin term: a weak pull towards less confident predictions.

Zeng et al.: "Tackling Data Heterogeneity in Federated Learning via Loss Decomposition", MICCAI
2024, arXiv 2408.12300. M1 is the form of the official code, M2 that of the paper's figure; both
are defined in docs/methods/fedld.md.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fedlabels.losses.base import check_option, cross_entropy, mean_loss, row_weights

MarginForm = Literal["softmax_batch", "logits"]


class MarginLoss(NamedTuple):
    """Objective of one labeled batch.

    Parameters
    ----------
    total : Tensor, shape ()
        ``cross_entropy + margin_lambda * margin``.
    cross_entropy : Tensor, shape ()
        Mean over the real rows.
    margin : Tensor, shape ()
        R of M1 or M2.
    losses : Tensor, shape (batch,)
        Cross-entropy of every row.
    """

    total: Tensor
    cross_entropy: Tensor
    margin: Tensor
    losses: Tensor


def margin_term(
    logits: Tensor, *, form: MarginForm = "softmax_batch", rows: Tensor | None = None
) -> Tensor:
    """Margin term of one batch, not yet multiplied by its coefficient.

    Parameters
    ----------
    logits : Tensor, shape (batch, classes)
        Labeled or not: the term needs no label.
    form : {"softmax_batch", "logits"}
        M1 or M2.
    rows : Tensor or None, shape (batch,)
        Real rows; padding does not count.

    Returns
    -------
    Tensor, shape ()
        0 when there is no real row.

    Raises
    ------
    ConfigError
        If the form is unknown.

    Notes
    -----
    M1 is ``ln(1 + S)`` with S the sum of all squared probabilities of the batch: one number a
    batch, in [ln(1 + B/C), ln(1 + B)] for B rows and C classes, so it depends on the size of the
    batch. M2 is the mean over the rows of ``ln(1 + ||z||^2)``. M1 does not change when a constant
    is added to a row of logits; M2 does.

    Examples
    --------
    >>> round(float(margin_term(torch.zeros(1, 2))), 7)
    0.4054651
    """
    check_option("form", form, MarginForm)
    if form == "logits":
        return mean_loss(torch.log1p(logits.square().sum(-1)), rows)
    # through the logarithm, so that logits of size 1000 stay finite
    squares = torch.log_softmax(logits, dim=-1).mul(2).exp().sum(-1)  # (batch,)
    return torch.log1p((row_weights(rows, squares) * squares).sum())


def margin_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    margin_lambda: float | Tensor,
    form: MarginForm = "softmax_batch",
    rows: Tensor | None = None,
) -> MarginLoss:
    """Cross-entropy plus margin term, the whole objective of FedLD's client.

    Parameters
    ----------
    logits : Tensor, shape (batch, classes)
    labels : Tensor, shape (batch,)
        Class indices, int64.
    margin_lambda : float or Tensor
        Coefficient, >= 0.
    form, rows
        See `margin_term`.

    Returns
    -------
    MarginLoss
    """
    losses = cross_entropy(logits, labels)
    mean, margin = mean_loss(losses, rows), margin_term(logits, form=form, rows=rows)
    return MarginLoss(mean + margin_lambda * margin, mean, margin, losses)
