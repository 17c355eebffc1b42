"""Server rules for prototypes and anchors, tables of shape (classes, width), in float64.

FedSA: Zhou et al., AAAI 2025, arXiv 2501.05496, S1, S8 and S9 of docs/methods/fedsa.md. FedProto:
Tan et al., AAAI 2022, arXiv 2105.00243, P2 of docs/methods/fedproto.md.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
BATCH_NORM_EPS = 1e-5


class Prototypes(NamedTuple):
    """One vector a class.

    Parameters
    ----------
    vectors : ndarray of float64, shape (classes, width)
        0 where a class is absent.
    present : ndarray of bool, shape (classes,)
        Classes that have one.
    """

    vectors: Floats
    present: NDArray[np.bool_]


class Projection(NamedTuple):
    """The two linear layers that the paper's anchors are made with (S1).

    Parameters
    ----------
    weight_1, weight_2 : ndarray, shape (width, width)
    bias_1, bias_2 : ndarray, shape (width,)
    """

    weight_1: NDArray[Any]
    bias_1: NDArray[Any]
    weight_2: NDArray[Any]
    bias_2: NDArray[Any]


def mean_of_sums(total: NDArray[Any], weight: ArrayLike) -> Prototypes:
    """Divide weighted sums over clients by their weights (S8, P2, P2b).

    Parameters
    ----------
    total : ndarray, shape (classes, width)
        ``sum_k w_kc p_kc``.
    weight : array_like, shape (classes,) or (classes, 1)
        ``sum_k w_kc``: the number of clients that sent a class, or of their samples.
    """
    weights = np.asarray(weight, dtype=np.float64).reshape(-1, 1)
    vectors = np.zeros(total.shape)
    np.divide(total, weights, out=vectors, where=weights > 0)
    return Prototypes(vectors, weights[:, 0] > 0)


def prototype_mean(values: NDArray[Any], weights: ArrayLike) -> Prototypes:
    """Average the clients' prototypes class by class (S8, P2, P2b, T1).

    Parameters
    ----------
    values : ndarray, shape (clients, classes, width)
        Added in the given order.
    weights : array_like, shape (clients, classes)
        0 where a client did not send a class, whatever its values are; else 1 for the unweighted
        mean, or its number of samples.

    Examples
    --------
    >>> prototype_mean(np.array([[[2.0, 0.0]], [[0.0, 2.0]]]), [[1], [1]]).vectors.tolist()
    [[1.0, 1.0]]
    """
    counts = np.asarray(weights, dtype=np.float64)
    total = np.zeros(values.shape[1:])
    for value, weight in zip(values, counts, strict=True):
        total += np.where(weight[:, None] > 0, weight[:, None] * value.astype(np.float64), 0.0)
    return mean_of_sums(total, counts.sum(axis=0))


def remembered(new: Prototypes, old: Prototypes) -> Prototypes:
    """Keep the last known vector of classes that nobody sent."""
    vectors = np.where(new.present[:, None], new.vectors, old.vectors)
    return Prototypes(vectors, new.present | old.present)


def anchor_ema(anchors: NDArray[Any], prototypes: Prototypes, alpha: float) -> Floats:
    """Move anchors towards the prototypes of this round (S9).

    Parameters
    ----------
    anchors : ndarray, shape (classes, width)
    prototypes : Prototypes
        Absent classes keep their anchor bit for bit.
    alpha : float
        Share of the old anchor, in [0, 1].
    """
    old = np.asarray(anchors, dtype=np.float64)
    moved = alpha * old + (1 - alpha) * prototypes.vectors
    return np.where(prototypes.present[:, None], moved, old)


def semantic_anchors(
    centers: NDArray[Any], projection: Projection, *, eps: float = BATCH_NORM_EPS
) -> Floats:
    """Project random centers twice, with batch normalization over the classes and ReLU (S1).

    Parameters
    ----------
    centers : ndarray, shape (classes, width)
        At least two.
    projection : Projection
        The layers.
    eps : float
        Of the batch normalization, > 0.

    Returns
    -------
    ndarray, shape (classes, width)
        >= 0.
    """
    first = _normalized_relu(centers, projection.weight_1, projection.bias_1, eps)
    return _normalized_relu(first, projection.weight_2, projection.bias_2, eps)


def draw_anchors(num_classes: int, width: int, random: np.random.Generator) -> Floats:
    """Draw the paper's anchors: normal centers, layers with the usual uniform weights (S1)."""
    centers = random.normal(size=(num_classes, width))
    bound = width**-0.5
    layers = [random.uniform(-bound, bound, size=size) for size in [(width, width), (width,)] * 2]
    return semantic_anchors(centers, Projection(*layers))


def equidistant_anchors(num_classes: int, width: int, random: np.random.Generator) -> Floats:
    """Make non-negative anchors of equal norm and equal distances.

    Every coordinate belongs to one class, drawn at random. About their mean the anchors are a
    simplex equiangular tight frame. The norm is ``sqrt(width / 2)``, as large as the paper's are on
    average.

    Raises
    ------
    ValueError
        If there are fewer coordinates than classes.
    """
    if width < num_classes:
        raise ValueError(f"{num_classes} classes need a width >= {num_classes}, got {width}")
    owner = random.permutation(np.arange(width) % num_classes)
    anchors = (owner == np.arange(num_classes)[:, None]).astype(np.float64)
    scaled: Floats = anchors * np.sqrt(width / 2 / anchors.sum(axis=1, keepdims=True))
    return scaled


def _normalized_relu(
    rows: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any], eps: float
) -> Floats:
    # einsum without BLAS: the same bits whatever the number of threads
    projected = np.einsum("cd,ed->ce", rows.astype(np.float64), weight.astype(np.float64)) + bias
    standard = (projected - projected.mean(axis=0)) / np.sqrt(projected.var(axis=0) + eps)
    positive: Floats = np.maximum(standard, 0.0)
    return positive
