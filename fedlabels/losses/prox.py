"""FedProx's proximal term.

Li et al.: "Federated Optimization in Heterogeneous Networks", MLSys 2020, arXiv 1812.06127.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor


def proximal_term(
    tree: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    mu: float | Tensor,
    names: Iterable[str] | None = None,
) -> Tensor:
    """Half of mu times the squared distance to the received weights.

    Parameters
    ----------
    tree : mapping of str to Tensor
        Weights in training.
    reference : mapping of str to Tensor
        Received weights w, constant.
    mu : float or Tensor
        Coefficient, >= 0; 0 is FedAvg.
    names : iterable of str or None
        Trainable tensors; None takes all of ``tree``, which then must hold no buffers.

    Returns
    -------
    Tensor, shape ()

    Notes
    -----
    ``(mu/2) sum_l ||v_l - w_l||^2`` with the gradient ``mu (v - w)``; each tensor counts once.
    """
    keys = list(tree if names is None else names)
    squares = [(tree[k] - reference[k].detach()).square().sum() for k in keys]
    return 0.5 * mu * torch.stack(squares).sum()
