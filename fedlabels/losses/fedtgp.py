"""FedTGP's server: a small network makes the prototypes, an adaptive margin keeps them apart.

Zhang et al.: "FedTGP: Trainable Global Prototypes with Adaptive-Margin-Enhanced Contrastive
Learning", AAAI 2024, arXiv 2401.03230. T1 to T3 of docs/methods/fedtgp.md.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from fedlabels.losses.base import check_option, mean_loss
from fedlabels.losses.prototypes import margin_contrast, nearest_gaps

TgpForm = Literal["nearest", "max_pair"]


class TgpMargin(NamedTuple):
    """The server's margin and what it is made of (T2, T2b).

    Parameters
    ----------
    value : Tensor, shape ()
        delta, at most tau; tau if fewer than two classes are there.
    gaps : Tensor, shape (classes,)
        Distance to the nearest other class; absent classes have the smallest one.
    smallest, largest : Tensor, shape ()
        Of the gaps; inf if fewer than two classes are there.
    """

    value: Tensor
    gaps: Tensor
    smallest: Tensor
    largest: Tensor


def generate(generator: Mapping[str, Tensor]) -> Tensor:
    """Make the prototypes of all classes: ``W2 relu(W1 e_c + b1) + b2``.

    Parameters
    ----------
    generator : mapping of str to Tensor
        ``embedding`` (classes, width), ``hidden.weight``, ``output.weight`` (width, width),
        ``hidden.bias``, ``output.bias`` (width,).

    Returns
    -------
    Tensor, shape (classes, width)
    """
    hidden = functional.linear(
        generator["embedding"], generator["hidden.weight"], generator["hidden.bias"]
    )
    return functional.linear(hidden.relu(), generator["output.weight"], generator["output.bias"])


def tgp_margin(
    means: Tensor, present: Tensor, *, tau: float, form: TgpForm = "nearest"
) -> TgpMargin:
    """Compute the server's margin (T2, T2b).

    Parameters
    ----------
    means : Tensor, shape (classes, width)
        Means of the uploaded prototypes.
    present : Tensor of bool, shape (classes,)
    tau : float
        Upper bound, > 0.
    form : {"nearest", "max_pair"}
        The largest distance to a nearest class (official code), or the largest of all (slides).
    """
    check_option("margin", form, TgpForm)
    gaps = nearest_gaps(means, present)
    smallest = gaps.amin()
    gaps = torch.where(present, gaps, smallest)
    largest = gaps.amax()
    widest = largest
    if form == "max_pair":
        pairs = [(means - one).square().sum(-1).sqrt() for one in means.unbind(0)]
        both = present.unsqueeze(-1) & present
        among = torch.where(both, torch.stack(pairs), 0.0).amax()
        widest = torch.where(present.sum() > 1, among, torch.inf)
    return TgpMargin(widest.clamp_max(tau), gaps, smallest, largest)


def generator_loss(
    generator: Mapping[str, Tensor], prototypes: Tensor, labels: Tensor, margin: float | Tensor
) -> Tensor:
    """Contrastive loss of a batch of uploaded prototypes against the generated ones (T3).

    Parameters
    ----------
    generator : mapping of str to Tensor
        See `generate`; differentiated.
    prototypes : Tensor, shape (batch, width)
        Uploaded by clients, at least one.
    labels : Tensor of int64, shape (batch,)
    margin : float or Tensor, shape ()

    Returns
    -------
    Tensor, shape ()
    """
    return mean_loss(margin_contrast(prototypes, labels, generate(generator), margin))
