"""Which axis of an array is the channel: read as told, and never guessed where there is a doubt.

Samples are (N, C, ...), channels first. Arrays in the other order have the same types and pass as
samples of a strange shape (128 channels of 9 steps), so a shape that looks like it is asked about.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlabels.errors import DataError

ARRAYS = ("channels_first", "channels_last")
SERIES = ("channels_time", "time_channels")
_FEW = 4  # grey, grey with alpha, RGB, RGBA
_COLOURS = (1, 3)


def arrays_first(where: str, x: NDArray[Any], layout: str | None) -> NDArray[Any]:
    """Bring images or features into the order (N, C, ...).

    Parameters
    ----------
    where : str
        What is read, for the message.
    x : ndarray
        At least (N, features); images without a channel axis have one already.
    layout : {"channels_first", "channels_last"} or None
        What the user says; None takes channels first where nothing speaks against it.

    Returns
    -------
    ndarray, shape (N, C, ...)
        The samples.

    Raises
    ------
    DataError
        If ``layout`` is None and the shape looks like channels last.
    """
    if layout is not None:
        return _moved(x) if layout == "channels_last" else x
    if x.ndim == 3 and 0 < x.shape[2] < 2 * x.shape[1] > 2:
        raise DataError(
            f"{where} of shape {x.shape} may hold {x.shape[1]} channels of {x.shape[2]} values, or "
            f"{x.shape[2]} channels of {x.shape[1]}, or grey images: set "
            "dataset.options.layout=channels_first or =channels_last, or store grey images as "
            "x[:, None]"
        )
    if x.ndim > 3 and _looks_last(x):
        axes = (0, x.ndim - 1, *range(1, x.ndim - 1))
        raise DataError(
            f"{where} must have shape (N, C, H, W), got {x.shape}, which looks like (N, H, W, C); "
            f"set dataset.options.layout=channels_last (or =channels_first if it is right as it is)"
            f", or store x.transpose{axes}"
        )
    return x


def series_first(where: str, x: NDArray[Any], layout: str | None) -> NDArray[Any]:
    """Bring windows of signals into the order (N, channels, time); see :func:`arrays_first`."""
    if layout is not None:
        return _moved(x) if layout == "time_channels" else x
    if x.shape[1] > x.shape[2]:
        raise DataError(
            f"{where} of shape {x.shape} would be {x.shape[1]} channels of {x.shape[2]} steps: "
            "more channels than steps looks like (N, time, channels); set "
            "dataset.options.layout=time_channels (or =channels_time if it is right as it is)"
        )
    return x


def described(shape: tuple[int, ...], *, pixels: bool) -> str:
    """Say how the shape of a sample is understood.

    Examples
    --------
    >>> described((3, 32, 32), pixels=True), described((9, 128), pixels=False)
    ('image, 3 x 32 x 32 (channels x height x width)', '9 channels x 128 steps')
    >>> described((13,), pixels=False)
    '13 features'
    """
    if len(shape) == 1:
        return f"{shape[0]} features"
    if len(shape) == 2:
        return f"{shape[0]} channel{'s' * (shape[0] > 1)} x {shape[1]} steps"
    sizes = " x ".join(map(str, shape))
    if len(shape) == 3:
        kind = "image" if pixels else "array"
        return f"{kind}, {sizes} (channels x height x width)"
    return f"array, {sizes} (channels first)"


def _moved(x: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))


def _looks_last(x: NDArray[Any]) -> bool:
    first, *inner, last = x.shape[1:]
    if first in _COLOURS:
        return False
    if last <= _FEW < first and not (inner[-1] == last and x.dtype != np.uint8):
        return True
    square = all(side == first for side in inner)
    return last < min(first, *inner) or (square and first > _FEW)
