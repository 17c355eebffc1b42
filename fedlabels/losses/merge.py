"""FedLabel's merge of the two local models into the one that goes up.

Equation F10a of docs/methods/fedlabel.md, and its rule for buffers.
"""

from collections.abc import Collection
from typing import Literal

import torch
from torch import Tensor

from fedlabels.losses.base import check_option

Merge = Literal["sum", "mean"]
PhaseTwoStart = Literal["received", "local"]


def client_delta_merge(
    received: dict[str, Tensor],
    local: dict[str, Tensor],
    student: dict[str, Tensor],
    *,
    parameters: Collection[str],
    stepped: Tensor,
    merge: Merge = "sum",
    phase2_start: PhaseTwoStart = "received",
) -> dict[str, Tensor]:
    """Merge what the labeled and the unlabeled phase changed (F10a).

    Parameters
    ----------
    received : dict of str to Tensor
        Weights w as received.
    local : dict of str to Tensor
        Weights after the labeled phase.
    student : dict of str to Tensor
        Weights after the unlabeled phase.
    parameters : collection of str
        Names of the trainable tensors; the others are buffers.
    stepped : Tensor, shape ()
        Bool: the unlabeled phase made at least one step.
    merge : {"sum", "mean"}
        Add the two changes, or half of each.
    phase2_start : {"received", "local"}
        Which weights the student started from.

    Returns
    -------
    dict of str to Tensor
        A model, not a difference.

    Raises
    ------
    ConfigError
        If an option is unknown.

    Notes
    -----
    Parameters: ``w + (w_L - w) + (student - start)``. Float buffers such as running variances could
    become negative by that sum: they are ``(v_L + v_U) / 2``, or ``v_U`` alone when the student
    started from the local model. Integer buffers stay as received. Without an unlabeled step
    parameters and float buffers are those of the local model, bit for bit (halved change for
    ``merge="mean"``).
    """
    check_option("merge", merge, Merge)
    check_option("phase2_start", phase2_start, PhaseTwoStart)
    merged: dict[str, Tensor] = {}
    for name, value in received.items():
        before, after = local[name], student[name]
        if name in parameters:
            continued = after if phase2_start == "local" else before + (after - value)
            total = torch.where(stepped, continued, before)
            merged[name] = total if merge == "sum" else value + 0.5 * (total - value)
        elif value.is_floating_point():
            mixed = after if phase2_start == "local" else 0.5 * (before + after)
            merged[name] = torch.where(stepped, mixed, before)
        else:
            merged[name] = value
    return merged
