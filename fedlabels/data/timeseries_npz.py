"""Your own recordings as ``.npz``: series of one or more channels, such as sensors or audio.

Files and keys are those of :mod:`fedlabels.data.npz`. ``x`` holds floating numbers of shape
(N, channels, time), or (N, time) where there is one channel; ``layout="time_channels"`` reads
(N, time, channels). Series of unequal lengths are

- filled up with nan, or with anything beside ``lengths`` (N,);
- end to end, (channels, all steps), beside ``offsets`` (N + 1,);
- an array of objects, each of shape (channels, time), read without running what a pickle asks for.

Windows are cut from them by ``window`` and ``step``; what a series has (label, client, domain) is
that of its windows.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.dataset import DataSource
from fedlabels.data.layout import SERIES, series_first
from fedlabels.data.npz import Ragged, features, read_archives
from fedlabels.data.options import choice
from fedlabels.data.ragged import joined, listed, padded
from fedlabels.data.roots import Roots
from fedlabels.data.windows import Cutter, Windows
from fedlabels.errors import DataError

_KEYS = ("lengths", "offsets")


def read_timeseries_npz(
    roots: Roots,
    /,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    layout: str | None = None,
    window: int | None = None,
    step: int | None = None,
    pad: str | None = None,
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
    window, step, pad
        As in `fedlabels.data.windows.Cutter`.

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
    cutter = Cutter("timeseries_npz", window, step, pad)
    convert = Ragged(_KEYS, partial(_cut, layout=layout, cutter=cutter))
    constants = (mean, std)
    return read_archives("timeseries_npz", roots, convert, num_classes, class_names, constants)


def _cut(
    where: str,
    x: NDArray[Any],
    ends: Mapping[str, NDArray[Any]],
    *,
    layout: str | None,
    cutter: Cutter,
) -> Windows:
    if len(ends) > 1:
        raise DataError(f"{where} has both lengths and offsets, which say the same: store one")
    if x.dtype == object:
        if ends:
            raise DataError(f"{where} holds series one by one: take its {next(iter(ends))} out")
        return cutter.cut(where, listed(where, list(x), layout))
    _check_type(where, x)
    if "offsets" in ends:
        return cutter.cut(where, joined(where, x, ends["offsets"], layout))
    _check_axes(where, x)
    if not ends and cutter.window is None and np.isfinite(x).all():
        return Windows(series(where, x, layout), np.arange(len(x)), len(x), "")
    return cutter.cut(where, padded(where, x, ends.get("lengths"), layout))


def series(where: str, x: NDArray[Any], layout: str | None = None) -> NDArray[np.float32]:
    """Check windows of signals; those without a channel axis get one.

    Raises
    ------
    DataError
        If x is no series, or in an order that has to be said.
    """
    _check_type(where, x)
    _check_axes(where, x)
    values = features(where, x)
    return series_first(where, values, layout) if values.ndim == 3 else values[:, None]


def _check_type(where: str, x: NDArray[Any]) -> None:
    if x.dtype == np.uint8:
        raise DataError(
            f"{where} holds bytes, as images do; use dataset=npz for images, or store the signal "
            "as float32"
        )
    if not np.issubdtype(x.dtype, np.floating):
        features(where, x)  # raises


def _check_axes(where: str, x: NDArray[Any]) -> None:
    if x.ndim not in (2, 3):
        raise DataError(
            f"{where} must have shape (N, channels, time), or (N, time) for one channel, "
            f"got {x.shape}"
        )
