"""Handwritten digits that come with scikit-learn: 1,797 grey images of 8 x 8 pixels.

The test part of UCI "Optical Recognition of Handwritten Digits", as
``sklearn.datasets.load_digits`` gives it.
"""

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.dataset import DataSource, pair
from fedlabels.data.roots import Roots
from fedlabels.errors import DataError

# Of the training split below, pixels scaled to [0, 1].
MEAN, STD = (0.3052,), (0.3760,)
TEST_EVERY = 5
_SCALE = 16


def read_digits(_roots: Roots, /) -> DataSource:
    """Read the digits; they are part of scikit-learn and need no folder.

    Returns
    -------
    DataSource
        1,442 training and 355 test images, uint8 (N, 1, 8, 8), 10 classes.

    Raises
    ------
    DataError
        If scikit-learn is not installed.

    Notes
    -----
    The set has no official split. Of every class each fifth sample in file order is test data:
    fixed for ever, whatever the run's seed, so that accuracies of different runs compare.
    """
    rows = _rows()
    images = rows[:, :-1].reshape(-1, 1, 8, 8)
    pixels = np.rint(images * (255 / _SCALE)).astype(np.uint8)
    labels = rows[:, -1].astype(np.int64)
    test = every_nth_of_class(labels, TEST_EVERY)
    return pair(
        "digits",
        (pixels[~test], labels[~test]),
        (pixels[test], labels[test]),
        class_names=tuple("0123456789"),
        mean=MEAN,
        std=STD,
    )


def _rows() -> NDArray[np.float64]:
    """Return 64 values from 0 to 16 and the class of each image, shape (1797, 65).

    The file is read without scikit-learn, whose import takes as long as all others of a run.
    """
    found = find_spec("sklearn")
    if found is None or not found.submodule_search_locations:
        raise DataError(
            "data set 'digits' is part of scikit-learn, which is not installed. "
            "To get it: pip install scikit-learn"
        )
    file = Path(found.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    if file.is_file():
        with gzip.open(file) as lines:
            return np.loadtxt(lines, delimiter=",")
    from sklearn.datasets import load_digits  # of a version that keeps it elsewhere

    whole = load_digits()
    return np.column_stack([whole.data, whole.target])


def every_nth_of_class(labels: NDArray[np.int64], step: int) -> NDArray[np.bool_]:
    """Mark each ``step``-th sample of every class, in file order.

    Parameters
    ----------
    labels : ndarray of int64, shape (N,)
        Classes.
    step : int
        Distance, >= 1; the first ``step - 1`` samples of a class are not marked.

    Returns
    -------
    ndarray of bool, shape (N,)
        The marks.

    Examples
    --------
    >>> every_nth_of_class(np.array([0, 0, 1, 0, 0, 1]), 2).tolist()
    [False, True, False, False, True, True]
    """
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    rank = np.arange(len(labels)) - np.searchsorted(ordered, ordered)
    marks = np.zeros(len(labels), dtype=bool)
    marks[order] = rank % step == step - 1
    return marks
