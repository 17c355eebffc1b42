"""Small array work that readers share: constants, numbering of names, fixed splits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.digits import TEST_EVERY, every_nth_of_class
from fedlabels.errors import DataError

_ROWS = 4096  # samples at a time: float64 copies of a whole image set would not fit
NOBODY = ("", "nan", "NaN", "None", "<NA>")  # what is not known, as other tools write it as text


def statistics(
    x: NDArray[np.uint8] | NDArray[np.float32],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Compute mean and standard deviation per channel, in float64.

    Parameters
    ----------
    x : ndarray, shape (N, C, ...)
        Pixels as uint8, which are scaled to [0, 1], or features.

    Returns
    -------
    tuple of float, tuple of float
        Means and deviations; 1 is the deviation of a channel that never changes.

    Raises
    ------
    DataError
        If there is no channel axis or no sample.
    """
    if x.ndim < 2 or not x.size:
        raise DataError(f"x must have shape (N, C, ...) and hold samples, got shape {x.shape}")
    scale = 255.0 if x.dtype == np.uint8 else 1.0
    axes = (0, *range(2, x.ndim))
    count = x.size // x.shape[1]
    wide = (1, -1, *(1 for _ in axes[1:]))
    blocks = range(0, len(x), _ROWS)
    mean = sum(x[i : i + _ROWS].sum(axis=axes, dtype=np.float64) for i in blocks) / count
    centre = np.reshape(mean, wide)
    squares = sum(((x[i : i + _ROWS] - centre) ** 2).sum(axis=axes) for i in blocks)
    std = np.sqrt(squares / count)
    std = np.where(std > 0, std / scale, 1.0)
    return tuple((mean / scale).tolist()), tuple(std.tolist())


def origins(where: str, values: NDArray[Any], count: int) -> NDArray[Any]:
    """Check the clients or domains of samples as a file or column gives them.

    Parameters
    ----------
    where : str
        What is read, for the message.
    values : ndarray
        Whole numbers or text, one a sample.
    count : int
        Number of samples.

    Returns
    -------
    ndarray, shape (count,)
        The values; bytes become text.

    Raises
    ------
    DataError
        If the type or the shape does not fit.
    """
    if values.dtype.kind not in "iuUS":
        raise DataError(f"{where} must hold whole numbers or text, got {values.dtype}")
    if values.shape != (count,):
        raise DataError(f"{where} must have shape ({count},), one a sample, got {values.shape}")
    try:
        found = np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
    except UnicodeDecodeError as error:
        raise DataError(f"{where} holds bytes that are no UTF-8 ({error}); store text") from error
    unknown = np.isin(found, NOBODY if found.dtype.kind == "U" else -1)
    if unknown.any():
        first = int(unknown.argmax())
        raise DataError(
            f"{where} is {found[first].item()!r} for {int(unknown.sum())} samples, first sample "
            f"{first}: nobody's samples would be those of one more; leave them out, or name them"
        )
    return found


def numbered(*groups: NDArray[Any]) -> tuple[list[NDArray[np.int64]], tuple[str, ...]]:
    """Replace the values of some arrays by their numbers in sorted order.

    Parameters
    ----------
    *groups : ndarray, each of shape (N_i,)
        Whole numbers or text.

    Returns
    -------
    list of ndarray of int64, tuple of str
        Number of every value, group by group, and the values' names.

    Examples
    --------
    >>> numbers, names = numbered(np.array(["b", "a"]), np.array(["c", "b"]))
    >>> [n.tolist() for n in numbers], names
    ([[1, 0], [2, 1]], ('a', 'b', 'c'))
    """
    names, index = np.unique(np.concatenate(groups), return_inverse=True)
    ends = np.cumsum([len(group) for group in groups])[:-1]
    numbers = np.split(index.reshape(-1).astype(np.int64), ends)
    return numbers, tuple(str(name) for name in names.tolist())


def owners(values: NDArray[Any] | None) -> tuple[NDArray[np.int64], tuple[str, ...]] | None:
    """Replace the natural clients of a split by numbers; None where it does not say them."""
    if values is None:
        return None
    (numbers,), names = numbered(values)
    return numbers, names


def held_out(
    labels: NDArray[np.int64], domains: NDArray[np.int64] | None = None
) -> NDArray[np.bool_]:
    """Mark the test samples of a set without an official split: each fifth of every class.

    Parameters
    ----------
    labels : ndarray of int64, shape (N,)
        Classes, -1 where unknown; such a sample is never test data.
    domains : ndarray of int64, shape (N,), or None
        Domains; given, each fifth of every class in every domain is marked.

    Returns
    -------
    ndarray of bool, shape (N,)
        The marks: fixed for ever, in the given order, whatever the seed of a run.
    """
    groups = labels
    if domains is not None and len(labels):
        groups = domains * (labels.max() + 2) + labels + 1
    return every_nth_of_class(groups, TEST_EVERY) & (labels >= 0)
