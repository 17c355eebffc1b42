"""FedLD's server rule: client updates recombined along the main directions that they share.

Zeng et al.: "Tackling Data Heterogeneity in Federated Learning via Loss Decomposition", MICCAI
2024, arXiv 2408.12300. S1 to S5 are defined in docs/methods/fedld.md. Everything is computed from
the m x m products of the updates (the Gram form), so a tensor of d entries costs m * m * d.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedlabels.aggregation.mean import shares
from fedlabels.errors import ConfigError

Floats = NDArray[np.float64]
Calibration = Literal["none", "vote"]

RANK_TOLERANCE = 1e-12  # directions with less of the largest eigenvalue are rounding noise
HISTORY_DECAY = 0.99  # gamma of the official code
_COLUMNS = 1 << 18  # entries of a tensor that are taken to float64 at once


@dataclass(frozen=True)
class PrincipalRule:
    """How updates are recombined.

    Parameters
    ----------
    k_proportion : float
        Share kappa of the directions that are kept, in (0, 1]: ``max(1, int(m * kappa))``.
    calibration : {"none", "vote"}
        ``vote``: one sign a direction for all clients, that of the majority (of the sum on a tie).
    norm_restore : bool
        Give the update the length of the plain mean: what changes is then the direction alone.
    cos_tol : float
        A client whose cosine with a direction is not larger counts as orthogonal to it, >= 0.

    Raises
    ------
    ConfigError
        If a value is out of range.
    """

    k_proportion: float = 0.8
    calibration: str = "none"
    norm_restore: bool = False
    cos_tol: float = 1e-6

    def __post_init__(self) -> None:
        if not 0 < self.k_proportion <= 1:
            raise ConfigError(f"k_proportion must be in (0, 1], got {self.k_proportion}")
        if self.calibration not in get_args(Calibration):
            words = ", ".join(get_args(Calibration))
            raise ConfigError(f"calibration must be one of {words}; got {self.calibration!r}")
        if not self.cos_tol >= 0:
            raise ConfigError(f"cos_tol must be >= 0, got {self.cos_tol}")


@dataclass(frozen=True)
class Recombination:
    """How one tensor's update is made of m client updates.

    Parameters
    ----------
    k : int
        Directions kept.
    eigenvalues : ndarray, shape (m,)
        s of S2, descending, >= 0.
    mixing : ndarray, shape (m, m)
        Row i holds the coefficients of r_i (S4): ``r = mixing @ G``.
    coefficients : ndarray, shape (m,)
        a, with the update ``G^T a`` (S5).
    dropped : int
        Of the k directions, those without length.
    sign_conflicts : float
        ``sum_j min(#plus, #minus) / m`` over the directions in use.
    gap : float
        Smallest ``1 - s_{j+1} / s_j`` over the directions in use: near 0 the directions, and so
        the update, are not well defined. nan where there is no such pair.
    square_update, square_mean, product : float
        Squared lengths of the update and of the plain mean, and their inner product.
    """

    k: int
    eigenvalues: Floats
    mixing: Floats
    coefficients: Floats
    dropped: int
    sign_conflicts: float
    gap: float
    square_update: float
    square_mean: float
    product: float

    @property
    def effective_rank(self) -> float:
        """Exponential of the entropy of s / sum s, in [1, m]; 0 when all updates are 0."""
        total = self.eigenvalues.sum()
        if total <= 0:
            return 0.0
        part = self.eigenvalues[self.eigenvalues > 0] / total
        return float(math.exp(-float((part * np.log(part)).sum())))


def recombine(
    gram: Floats, *, rule: PrincipalRule | None = None, weights: ArrayLike | None = None
) -> Recombination:
    """Find the coefficients of the clients (S2 to S5).

    Parameters
    ----------
    gram : ndarray, shape (m, m)
        ``G G^T`` of the updates, float64.
    rule : PrincipalRule or None
        None takes the defaults.
    weights : array_like or None, shape (m,)
        Weights > 0 of the clients; None weighs all alike.

    Returns
    -------
    Recombination
        One client keeps its own update, whatever kappa is.

    Notes
    -----
    With p the weights over their sum, ``H = P^1/2 G G^T P^1/2 = V diag(s) V^T`` has the directions
    ``u_j = G^T P^1/2 V_:j / sqrt(s_j)``, and ``<g_i, u_j> = sqrt(s_j / p_i) V_ij``. With equal
    weights that is S2 and S3.
    """
    rule = rule or PrincipalRule()
    p = _shares(weights, len(gram))
    if len(gram) == 1:
        return _of_one_client(gram)
    root = np.sqrt(p)
    values, vectors = np.linalg.eigh(root[:, None] * gram * root)
    s, v = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    k = max(1, int(len(gram) * rule.k_proportion))
    used = np.flatnonzero((s[:k] > RANK_TOLERANCE * s[0]) & (s[:k] > 0))
    length = np.sqrt(np.maximum(gram.diagonal(), 0.0))  # ||g_i||
    along = np.sqrt(s[used]) * v[:, used] / root[:, None]  # <g_i, u_j>, (m, used)
    signs = np.where(np.abs(along) > rule.cos_tol * length[:, None], np.sign(along), 0.0)
    conflicts = np.minimum((signs > 0).sum(0), (signs < 0).sum(0)).sum() / len(gram)
    if rule.calibration == "vote":
        signs = _voted_signs(signs, along)
    # r_i = ||g_i|| sum_j (s_j / sum s) sign_ij u_j, and u_j = sum_l sqrt(p_l / s_j) V_lj g_l
    share = s[used] / max(s.sum(), np.finfo(np.float64).tiny)
    to_clients = root[:, None] * v[:, used] * (share / np.sqrt(s[used]))  # (m, used)
    mixing = (length[:, None] * signs) @ to_clients.T
    if rule.norm_restore:
        mixing = _to_mean_length(mixing, gram, p)
    a = p @ mixing
    return Recombination(
        k, s, mixing, a, k - len(used), float(conflicts), _gap(s, used),
        _square(a, gram), _square(p, gram), float(a @ gram @ p),
    )  # fmt: skip


def gram_matrix(updates: NDArray[Any]) -> Floats:
    """Multiply updates with each other, in float64.

    Parameters
    ----------
    updates : ndarray, shape (m, d)
        One tensor's update of every client, flat, any float dtype.

    Returns
    -------
    ndarray, shape (m, m)
    """
    total = np.zeros((len(updates), len(updates)))
    for columns in _pieces(updates.shape[1]):
        piece = updates[:, columns].astype(np.float64)
        total += piece @ piece.T
    return total


def combined(updates: NDArray[Any], coefficients: Floats) -> Floats:
    """Add updates with coefficients, ``G^T a``, in float64.

    Parameters
    ----------
    updates : ndarray, shape (m, d)
    coefficients : ndarray, shape (m,) or (r, m)

    Returns
    -------
    ndarray, shape (d,) or (r, d)
    """
    out = np.empty((*coefficients.shape[:-1], updates.shape[1]))
    for columns in _pieces(updates.shape[1]):
        out[..., columns] = coefficients @ updates[:, columns].astype(np.float64)
    return out


def aggregate_tensor(
    updates: NDArray[Any],
    *,
    has_history: bool,
    rule: PrincipalRule | None = None,
    weights: ArrayLike | None = None,
) -> tuple[Floats, Recombination | None]:
    """Aggregate one tensor: by S2 to S5, or by the plain mean as long as the gate is shut.

    Parameters
    ----------
    updates : ndarray, shape (m, d)
        ``w_i - w`` of every client (S1), m >= 1.
    has_history : bool
        Whether some earlier round gave the tensor an update other than 0.
    rule, weights
        See `recombine`; the mean is weighted by `weights`, too.

    Returns
    -------
    update : ndarray, shape (d,)
        float64. The plain mean without history, and for a tensor with one entry.
    recombination : Recombination or None
        None where it is the mean.

    Raises
    ------
    ValueError
        If there is no client, or a weight is not > 0.
    """
    p = _shares(weights, len(updates))
    if not has_history or updates.shape[1] <= 1:
        return combined(updates, p), None
    recombination = recombine(gram_matrix(updates), rule=rule, weights=weights)
    if len(updates) == 1:
        return updates[0].astype(np.float64), recombination
    return combined(updates, recombination.coefficients), recombination


def advanced_history(history: Floats | None, update: Floats) -> Floats:
    """Advance the running average of the official code, of which only "is it 0?" is ever used.

    Parameters
    ----------
    history : ndarray or None, shape (d,)
        None before the first round.
    update : ndarray, shape (d,)
        This round's.

    Returns
    -------
    ndarray, shape (d,)
        The update itself at first, then ``0.99 h + 0.01 update``.
    """
    if history is None:
        return update
    return HISTORY_DECAY * history + (1 - HISTORY_DECAY) * update


def is_open(history: Floats | None) -> bool:
    """Say whether a history lets the rule act: it exists and is not 0 everywhere."""
    return history is not None and bool(np.any(history))


def principal_figures(recombinations: Sequence[Recombination]) -> dict[str, float]:
    """Summarize how the tensors of a model were recombined.

    Parameters
    ----------
    recombinations : sequence of Recombination
        One a tensor.

    Returns
    -------
    dict of str to float
        Means over the tensors: ``pg_effective_rank``, ``pg_sign_conflicts``, ``pg_negative`` (share
        of the clients that are pushed back, a_l < 0). Of the whole update: ``pg_norm_ratio`` (its
        length over that of the plain mean) and ``pg_cosine`` (with the plain mean).
        ``pg_dropped`` is a sum and ``pg_gap`` the smallest. What is not defined is left out.
    """
    if not recombinations:
        return {}
    update = sum(m.square_update for m in recombinations)
    mean = sum(m.square_mean for m in recombinations)
    figures = {
        "pg_effective_rank": float(np.mean([m.effective_rank for m in recombinations])),
        "pg_sign_conflicts": float(np.mean([m.sign_conflicts for m in recombinations])),
        "pg_negative": float(np.mean([(m.coefficients < 0).mean() for m in recombinations])),
        "pg_dropped": float(sum(m.dropped for m in recombinations)),
    }
    gaps = [m.gap for m in recombinations if math.isfinite(m.gap)]
    if gaps:
        figures["pg_gap"] = min(gaps)
    if mean > 0:
        figures["pg_norm_ratio"] = math.sqrt(update / mean)
    if mean > 0 and update > 0:
        product = sum(m.product for m in recombinations)
        figures["pg_cosine"] = product / math.sqrt(update) / math.sqrt(mean)
    return figures


def _shares(weights: ArrayLike | None, clients: int) -> Floats:
    if clients == 0:
        raise ValueError("there is no client to aggregate; keep the old value")
    if weights is None:
        return np.full(clients, 1 / clients)
    p = shares(weights)
    if len(p) != clients or not (p > 0).all():
        raise ValueError(f"need one weight > 0 for each of {clients} clients, got {weights}")
    return p


def _of_one_client(gram: Floats) -> Recombination:
    """Keep the update of a single client."""
    own = np.ones((1, 1))
    square = _square(own[0], gram)
    eigenvalues = np.array([square])
    return Recombination(1, eigenvalues, own, own[0], 0, 0.0, math.nan, square, square, square)


def _voted_signs(signs: Floats, along: Floats) -> Floats:
    """Give every client the sign of the majority, also one that is orthogonal to the direction."""
    votes = np.sign(signs.sum(0))
    return np.broadcast_to(np.where(votes == 0, np.sign(along.sum(0)), votes), along.shape)


def _to_mean_length(mixing: Floats, gram: Floats, p: Floats) -> Floats:
    """Scale to the length of the mean; an update without length has no direction and stays."""
    square, of_mean = _square(p @ mixing, gram), _square(p, gram)
    return mixing * math.sqrt(of_mean / square) if square > RANK_TOLERANCE * of_mean else mixing


def _square(coefficients: Floats, gram: Floats) -> float:
    """Return the squared length of a combination of updates."""
    return max(float(coefficients @ gram @ coefficients), 0.0)


def _gap(s: Floats, used: NDArray[np.int64]) -> float:
    pairs = [1 - s[j + 1] / s[j] for j in used.tolist() if j + 1 < len(s)]
    return float(min(pairs, default=math.nan))


def _pieces(width: int) -> Iterator[slice]:
    for start in range(0, width, _COLUMNS):
        yield slice(start, min(start + _COLUMNS, width))
