"""Labels as users store them: what is one class a sample, and how many classes there are."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.options import text, whole
from fedlabels.errors import ConfigError, DataError

MAX_CLASSES = 1_000_000
_SHOWN = 10


def one_a_sample(where: str, y: NDArray[Any]) -> NDArray[np.int64]:
    """Check the labels of a file.

    Parameters
    ----------
    where : str
        What is read, for the message.
    y : ndarray
        Whole numbers, shape (N,) or (N, 1); -1 where the class is not known.

    Returns
    -------
    ndarray of int64, shape (N,)
        The labels.

    Raises
    ------
    DataError
        If there is not one whole number a sample; the message says what to store instead.
    """
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise DataError(f"{where} {_shape_problem(y)}")
    if not np.issubdtype(y.dtype, np.integer):
        raise DataError(f"{where}: labels must be integers, got {y.dtype}; {_remedy(y)}")
    if len(y) and int(y.max()) > np.iinfo(np.int64).max:
        raise DataError(
            f"{where}: label {int(y.max())} is beyond int64; store -1 as a signed integer where the"
            " class is not known"
        )
    return y.astype(np.int64)


def _shape_problem(y: NDArray[Any]) -> str:
    if y.ndim != 2:
        return f"must hold one class a sample, shape (N,), got shape {y.shape}"
    text = f"must hold one class a sample, got {y.shape[1]} numbers a sample (shape {y.shape})"
    if y.size and y.dtype.kind in "biuf" and np.isin(y, (0, 1)).all() and (y.sum(1) == 1).all():
        return f"{text}, each row with a single 1, as one-hot labels: store y.argmax(axis=1)"
    return (
        f"{text}. Several labels a sample (multi-label) are not supported: choose one column and "
        "store it, for instance y[:, 0]"
    )


def _remedy(y: NDArray[Any]) -> str:
    if y.dtype.kind in "US":
        return (
            "number the names (names, y = np.unique(y, return_inverse=True)) and set "
            "dataset.options.class_names=[...]"
        )
    if y.dtype.kind == "b" or (y.dtype.kind == "f" and bool((y == np.floor(y)).all())):
        return 'store y.astype("int64")'
    if y.dtype.kind == "f" and bool(np.isnan(y).any()):
        return "store -1 where the class is not known, not nan, and whole numbers elsewhere"
    return "number the classes 0, 1, 2, ..."


def class_names(
    reader: str,
    num_classes: Any,
    names: Any,
    *labels: NDArray[np.int64],
) -> tuple[str, ...]:
    """Name the classes of a data set of somebody's own.

    Parameters
    ----------
    reader : str
        Name of the reader, for messages.
    num_classes, names : int or None, sequence of str or None
        The reader's options of that name (``class_names``). With neither, the labels must be
        0..C-1 with none of them left out: then C is the number of classes.
    *labels : ndarray of int64, each of shape (N_i,)
        Labels of all splits, -1 where unknown.

    Returns
    -------
    tuple of str
        The names, or the numbers as text.

    Raises
    ------
    ConfigError
        If an option is of another type, or they contradict each other.
    DataError
        If the options are not given and the labels leave a doubt.
    """
    checked = None if names is None else texts(reader, "class_names", names)
    if num_classes is None:
        count = len(checked) if checked is not None else _count_classes(reader, labels)
    else:
        count = whole(reader, "num_classes", num_classes, low=2, high=MAX_CLASSES)
    if checked is None:
        return tuple(str(c) for c in range(count))
    if len(checked) != count:
        raise ConfigError(f"{reader}: {count} classes but {len(checked)} class names")
    return checked


def texts(reader: str, option: str, values: Any) -> tuple[str, ...]:
    """Check that an option is a list of different texts; see `fedlabels.data.options.whole`."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ConfigError(f"{reader}: {option} must be a list of texts, got {values!r}")
    checked = tuple(text(reader, option, value) for value in values)
    if len(set(checked)) < len(checked):
        raise ConfigError(f"{reader}: {option} names a class twice: {', '.join(checked[:_SHOWN])}")
    return checked


def _count_classes(reader: str, labels: Sequence[NDArray[np.int64]]) -> int:
    """Count the classes 0..C-1 of labels that leave none out."""
    present = np.unique(np.concatenate(labels))
    present = present[present >= 0]
    if not len(present):
        raise DataError(
            f"{reader}: no label is known, so the number of classes is not either; set "
            "dataset.options.num_classes"
        )
    count = int(present[-1]) + 1
    if count < 2:
        raise DataError(
            f"{reader}: only class 0 occurs, and a set needs two classes; set "
            "dataset.options.num_classes if there are more"
        )
    if count == len(present):
        return count
    first = np.arange(min(count, len(present) + _SHOWN))
    absent = first[~np.isin(first, present)][:_SHOWN]
    missing = count - len(present)
    more = ", ..." if missing > len(absent) else ""
    top = count - 1
    raise DataError(
        f"{reader}: labels go up to {top}, but {missing:,} of the classes 0..{top} never occur"
        f" ({', '.join(map(str, absent.tolist()))}{more}); {_advice(present, count)}"
    )


def _advice(present: NDArray[np.int64], count: int) -> str:
    remedy = f", or set dataset.options.num_classes={count} if that is right"
    if count > MAX_CLASSES:
        remedy = f"; no set has more than {MAX_CLASSES:,} classes"
    if len(present) > 1 and count - int(present[0]) == len(present):
        return f"store y - {present[0]} so that they begin at 0{remedy}"
    if count == 256:
        return f"255 is what -1 becomes in uint8: store unknown classes as signed -1{remedy}"
    return f"number the classes without gaps{remedy}"
