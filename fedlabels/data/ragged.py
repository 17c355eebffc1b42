"""Series of unequal lengths as arrays hold them: filled up, end to end, or as Python objects."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.layout import series_first
from fedlabels.data.windows import Series
from fedlabels.errors import DataError


def padded(
    where: str, x: NDArray[Any], lengths: NDArray[Any] | None, layout: str | None
) -> list[Series]:
    """Take series out of an array that is filled up behind the shorter ones.

    Parameters
    ----------
    where : str
        What is read, for messages.
    x : ndarray of floats, shape (N, channels, time), or (N, time) for one channel
        The series.
    lengths : ndarray, shape (N,), or None
        Steps of each series, 1 to time; what follows is left out, whatever it is. None ends a
        series where nothing but nan follows.
    layout : {"channels_time", "time_channels"} or None
        As in `fedlabels.data.layout.series_first`.

    Returns
    -------
    list of ndarray of float32, each of shape (channels, time)
        Every number is finite.

    Raises
    ------
    DataError
        If a number within a series is nan or infinite, or lengths do not fit.
    """
    values = _float32(x)
    values = series_first(where, values, layout) if values.ndim == 3 else values[:, None]
    steps = values.shape[2]
    if lengths is not None:
        ends = _checked_lengths(f"{where}: its lengths", lengths, len(x), steps)
    else:
        known = np.logical_not(np.isnan(values).all(axis=1))  # (N, time)
        ends = steps - known[:, ::-1].argmax(axis=1)
        ends[~known.any(axis=1)] = 0
    return [
        finite(where, i, item[:, :end])
        for i, (item, end) in enumerate(zip(values, ends, strict=True))
    ]


def joined(where: str, x: NDArray[Any], offsets: NDArray[Any], layout: str | None) -> list[Series]:
    """Take series out of an array that holds them end to end.

    Parameters
    ----------
    where : str
        What is read, for messages.
    x : ndarray of floats, shape (time,), (channels, time) or (time, channels)
        All series, one after the other.
    offsets : ndarray, shape (N + 1,)
        Where they begin, from 0, and at last where the last one ends: ``len`` of the axis of time.
    layout : {"channels_time", "time_channels"} or None
        Which axis is time; None takes the one that is as long as the offsets say.

    Returns
    -------
    list of ndarray of float32, each of shape (channels, time)
        Every number is finite.

    Raises
    ------
    DataError
        If offsets do not fit, or either axis could be time.
    """
    values = _float32(x)
    values = values[None] if values.ndim == 1 else values
    if values.ndim != 2:
        raise DataError(
            f"{where} has offsets, so it must hold all series end to end, of shape (channels, "
            f"time) or (time, channels), got {x.shape}"
        )
    if offsets.ndim != 1 or offsets.dtype.kind not in "iu" or len(offsets) < 2:
        raise DataError(
            f"{where}: its offsets must be whole numbers of shape (N + 1,), got {offsets.dtype} "
            f"{offsets.shape}"
        )
    bounds = offsets.astype(np.int64)
    if bounds[0] != 0 or (np.diff(bounds) < 1).any() or bounds[-1] not in values.shape:
        raise DataError(
            f"{where}: its offsets must rise from 0 to the number of steps, an axis of {x.shape}, "
            f"got {bounds[0]} to {bounds[-1]}; store np.concatenate([[0], np.cumsum(lengths)])"
        )
    if layout is None and values.shape[0] == values.shape[1]:
        raise DataError(
            f"{where} of shape {x.shape} has two axes that could be time; set "
            "dataset.options.layout=channels_time or =time_channels"
        )
    last = values.shape[1] == bounds[-1] if layout is None else layout == "channels_time"
    values = values if last or x.ndim == 1 else values.T
    if values.shape[1] != bounds[-1]:
        raise DataError(
            f"{where} of shape {x.shape}: its offsets end at {bounds[-1]}, the axis of time that "
            f"dataset.options.layout={layout} names has {values.shape[1]} steps"
        )
    parts = np.split(values, bounds[1:-1], axis=1)
    return [finite(where, i, np.ascontiguousarray(part)) for i, part in enumerate(parts)]


def listed(where: str, items: Sequence[Any], layout: str | None) -> list[Series]:
    """Take series as a list holds them, each of a shape of its own.

    Parameters
    ----------
    where : str
        What is read, for messages.
    items : sequence of ndarray of floats, each of shape (channels, time) or (time,)
        The series.
    layout : {"channels_time", "time_channels"} or None
        The order of the axes; None takes the first where the lengths do not speak against it.

    Returns
    -------
    list of ndarray of float32, each of shape (channels, time)
        Every number is finite, all have the same channels.

    Raises
    ------
    DataError
        If an item is no series, or they have different channels.
    """
    series = [_one(where, i, item) for i, item in enumerate(items)]
    if layout is None and _looks_turned(series):
        raise DataError(
            f"{where}: the first axis of its series differs, the second is "
            f"{series[0].shape[1]} in all, which looks like (time, channels); set "
            "dataset.options.layout=time_channels (or =channels_time if it is right as it is)"
        )
    if layout == "time_channels":
        series = [item.T for item in series]
    return same_channels(where, [finite(where, i, item) for i, item in enumerate(series)])


def same_channels(where: str, series: Sequence[Series]) -> list[Series]:
    """Check that all series have as many channels as the first.

    Raises
    ------
    DataError
        If one has not.
    """
    for number, item in enumerate(series):
        if len(item) != len(series[0]):
            raise DataError(
                f"{where}: series {number} has {len(item)} channels, series 0 has "
                f"{len(series[0])}; all need the same"
            )
    return list(series)


def finite(where: str, number: int, item: NDArray[np.float32]) -> Series:
    """Check that a series has a step, and that every number of it is finite.

    Raises
    ------
    DataError
        If not; it names the series, the channel and the step.
    """
    if not item.size:
        raise DataError(f"{where}: series {number} has no step; leave it out")
    bad = np.argwhere(~np.isfinite(item))
    if len(bad):
        channel, step = bad[0].tolist()
        raise DataError(
            f"{where}: series {number} is {item[channel, step]} in channel {channel} at step "
            f"{step}, before its end; interpolate what is missing, or leave the series out"
        )
    return item


def _float32(x: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return x.astype(np.float32)


def _one(where: str, number: int, item: Any) -> NDArray[np.float32]:
    try:
        values = np.asarray(item)
    except ValueError as error:
        raise DataError(
            f"{where}: the channels of series {number} have different lengths ({error})"
        ) from error
    if values.dtype.kind != "f" or values.ndim not in (1, 2):
        raise DataError(
            f"{where}: series {number} must hold floating numbers of shape (channels, time), got "
            f"{values.dtype} {values.shape}"
        )
    if not values.size:
        raise DataError(f"{where}: series {number} has no step; leave it out")
    return _float32(values[None] if values.ndim == 1 else values)


def _looks_turned(series: Sequence[NDArray[Any]]) -> bool:
    first, second = ({item.shape[axis] for item in series} for axis in (0, 1))
    if len(first) > 1:
        return len(second) == 1
    return len(second) == 1 and first.pop() > second.pop()


def _checked_lengths(
    where: str, lengths: NDArray[Any], count: int, steps: int
) -> NDArray[np.int64]:
    if lengths.dtype.kind not in "iu" or lengths.shape != (count,):
        raise DataError(
            f"{where} must be whole numbers of shape ({count},), one a series, got {lengths.dtype} "
            f"{lengths.shape}"
        )
    if count and not 1 <= lengths.min() <= lengths.max() <= steps:
        raise DataError(
            f"{where} must be in 1..{steps}, the steps stored, got {lengths.min()}..{lengths.max()}"
        )
    return lengths.astype(np.int64)
