"""Your own recordings as ``.npz``: windows of one or more channels, such as sensors or audio.

Files and keys are those of :mod:`fedlabels.data.npz`. ``x`` holds floating numbers of shape
(N, channels, time), or (N, time) where there is one channel; all windows have one length.
``layout="time_channels"`` reads (N, time, channels).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.dataset import DataSource
from fedlabels.data.layout import SERIES, series_first
from fedlabels.data.npz import features, read_archives
from fedlabels.data.options import choice
from fedlabels.data.roots import Roots
from fedlabels.errors import DataError


def read_timeseries_npz(
    roots: Roots,
    /,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    layout: str | None = None,
) -> DataSource:
    """Read windows of recordings from ``.npz`` files.

    Parameters
    ----------
    roots : Roots
        ``root`` is the file, or the folder with train.npz and test.npz.
    num_classes, class_names, mean, std
        As in :func:`fedlabels.data.npz.read_npz`.
    layout : {"channels_time", "time_channels"} or None
        Whether x is (N, channels, time) or (N, time, channels); None is the first, and asks where
        there would be more channels than steps.

    Returns
    -------
    DataSource
        Training and test split, float32 (N, channels, time).

    Raises
    ------
    ConfigError
        If options contradict each other.
    DataError
        If files are missing, damaged or do not fit together, or x is no series.
    """
    if layout is not None:
        choice("timeseries_npz", "layout", layout, SERIES)
    constants = (mean, std)
    return read_archives(
        "timeseries_npz", roots, partial(series, layout=layout), num_classes, class_names, constants
    )


def series(where: str, x: NDArray[Any], layout: str | None = None) -> NDArray[np.float32]:
    """Check windows of signals; those without a channel axis get one.

    Raises
    ------
    DataError
        If x is no series, or in an order that has to be said.
    """
    if x.dtype == np.uint8:
        raise DataError(
            f"{where} holds bytes, as images do; use dataset=npz for images, or store the signal "
            "as float32"
        )
    if x.ndim not in (2, 3):
        raise DataError(
            f"{where} must have shape (N, channels, time), or (N, time) for one channel, "
            f"got {x.shape}"
        )
    values = features(where, x)
    return series_first(where, values, layout) if values.ndim == 3 else values[:, None]
