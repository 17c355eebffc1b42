"""What a round's loss is made of: local, distribution shift, aggregation.

Zeng et al.: "Tackling Data Heterogeneity in Federated Learning via Loss Decomposition", MICCAI
2024, arXiv 2408.12300. D1 is defined in docs/decomposition.md.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedlabels.aggregation.mean import shares

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LossTerms:
    """The three terms, signed; they add up to the loss of the global model.

    Parameters
    ----------
    local, shift, aggregation : float
        Terms of D1, in nats.
    total : float
        F(w+).
    weights : ndarray, shape (m,)
        p_i.
    own : ndarray, shape (m,)
        F_i(w_i).
    everywhere : ndarray, shape (m,)
        F(w_i).
    """

    local: float
    shift: float
    aggregation: float
    total: float
    weights: Floats
    own: Floats
    everywhere: Floats


def decompose(matrix: ArrayLike, new: ArrayLike, samples: ArrayLike) -> LossTerms:
    """Decompose the loss of a new global model (D1).

    Parameters
    ----------
    matrix : array_like, shape (m, m)
        ``F_j(w_i)``: row i the model of client i, column j the samples of client j.
    new : array_like, shape (m,)
        ``F_j(w+)``.
    samples : array_like, shape (m,)
        Samples n_j, not all 0.

    Returns
    -------
    LossTerms

    Raises
    ------
    ValueError
        If shapes do not fit, or nobody has samples.
    """
    losses = np.asarray(matrix, dtype=np.float64)
    p = _shares(samples, losses)
    everywhere = losses @ p
    return decompose_by(losses.diagonal(), everywhere, float(_one_a_client(new, p) @ p), samples)


def decompose_by(
    own: ArrayLike, everywhere: ArrayLike, total: float, samples: ArrayLike
) -> LossTerms:
    """Decompose the loss when F was measured some other way, such as on a set of the server.

    Parameters
    ----------
    own : array_like, shape (m,)
        ``F_i(w_i)``.
    everywhere : array_like, shape (m,)
        ``F(w_i)``.
    total : float
        ``F(w+)``.
    samples : array_like, shape (m,)
        Samples n_i, not all 0.

    Returns
    -------
    LossTerms
    """
    own_losses = np.asarray(own, dtype=np.float64)
    p = _shares(samples, own_losses)
    losses_everywhere = _one_a_client(everywhere, p)
    return LossTerms(
        local=float(p @ own_losses),
        shift=float(p @ (losses_everywhere - own_losses)),
        aggregation=float(p @ (total - losses_everywhere)),
        total=total,
        weights=p,
        own=own_losses,
        everywhere=losses_everywhere,
    )


def _shares(samples: ArrayLike, losses: Floats) -> Floats:
    p = shares(samples)
    if not p.any():
        raise ValueError("nobody has samples: there is no loss to decompose")
    if losses.shape[0] != len(p) or losses.shape[-1] != len(p):
        raise ValueError(f"{len(p)} clients, but losses of shape {losses.shape}")
    return p


def _one_a_client(values: ArrayLike, p: Floats) -> Floats:
    checked = np.asarray(values, dtype=np.float64)
    if checked.shape != p.shape:
        raise ValueError(f"{len(p)} clients, but losses of shape {checked.shape}")
    return checked
