"""Windows of one length, cut from series of any length."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.options import choice, whole
from fedlabels.data.progress import counted
from fedlabels.errors import ConfigError, DataError

PADS = ("zero", "repeat")
Series = NDArray[np.float32]
"""One recording, shape (channels, time)."""


class Windows(NamedTuple):
    """Windows of some series, in the order of the series and of time.

    Parameters
    ----------
    x : ndarray of float32, shape (N, channels, window)
        The windows.
    series : ndarray of int64, shape (N,)
        Position of the series that a window is cut from.
    total : int
        Number of series.
    reading : str
        What was cut from what, for people.
    """

    x: NDArray[np.float32]
    series: NDArray[np.int64]
    total: int
    reading: str


@dataclass(frozen=True)
class Cutter:
    """How windows are cut: the options ``window``, ``step`` and ``pad`` of a reader.

    Parameters
    ----------
    reader : str
        Name of the reader, for messages.
    window : int or None
        Steps of a window, >= 1. None takes each series whole; then all must have one length.
    step : int or None
        Steps from one window to the next, >= 1; None is ``window``: windows do not overlap.
    pad : {"zero", "repeat"} or None
        What fills a series that is shorter than a window: zeros at its end, or the series again
        from its beginning. None refuses such a series.

    Raises
    ------
    ConfigError
        If an option is out of range, or ``step`` or ``pad`` comes without ``window``.
    """

    reader: str
    window: int | None = None
    step: int | None = None
    pad: str | None = None

    def __post_init__(self) -> None:
        for option in ("window", "step"):
            if getattr(self, option) is not None:
                whole(self.reader, f"dataset.options.{option}", getattr(self, option))
        if self.pad is not None:
            choice(self.reader, "dataset.options.pad", self.pad, PADS)
        alone = [option for option in ("step", "pad") if getattr(self, option) is not None]
        if self.window is None and alone:
            raise ConfigError(
                f"{self.reader}: dataset.options.{alone[0]} has no effect without "
                "dataset.options.window: give it the steps of a window"
            )

    @property
    def overlap(self) -> int:
        """How many following windows share a time step with a window."""
        if self.window is None or self.step is None:
            return 0
        return -(-self.window // self.step) - 1

    def cut(self, where: str, series: Sequence[Series]) -> Windows:
        """Cut windows; none crosses from one series into the next.

        Parameters
        ----------
        where : str
            What is read, for messages.
        series : sequence of ndarray of float32, each of shape (channels, time)
            The same channels in all of them, at least one step in each.

        Returns
        -------
        Windows
            Steps at the end of a series that fill no window are left out.

        Raises
        ------
        DataError
            If there is no series, or lengths differ or are too short and no option says what to do.
        """
        if not series:
            raise DataError(f"{where} holds no series")
        lengths = np.array([item.shape[1] for item in series])
        low, high = int(lengths.min()), int(lengths.max())
        if self.window is None:
            if low != high:
                raise DataError(
                    f"{where} holds series of {low} to {high} steps, and samples have one length: "
                    "set dataset.options.window=W to cut windows of W steps, or "
                    f"dataset.options.window={high} dataset.options.pad=zero (or =repeat) to make "
                    "each series one sample"
                )
            return Windows(np.stack(series), np.arange(len(series)), len(series), "")
        self._check_short(where, lengths)
        parts = [self._windows(item) for item in counted(series, "series")]
        origin = np.repeat(np.arange(len(series)), [len(part) for part in parts])
        span = f"{low}" if low == high else f"{low} to {high}"
        apart = self.window if self.step is None else self.step
        reading = f"windows {apart} steps apart, {len(origin):,} from {len(series):,} series of "
        return Windows(np.concatenate(parts), origin, len(series), f"{reading}{span} steps")

    def _check_short(self, where: str, lengths: NDArray[Any]) -> None:
        short = np.flatnonzero(lengths < (self.window or 0))
        if len(short) and self.pad is None:
            first = int(short[0])
            raise DataError(
                f"{where}: {len(short)} of {len(lengths)} series are shorter than "
                f"dataset.options.window={self.window}, first series {first} with {lengths[first]} "
                f"steps; take a window of at most {int(lengths.min())}, or fill them by "
                "dataset.options.pad=zero or =repeat"
            )

    def _windows(self, item: Series) -> NDArray[np.float32]:
        window = self.window or item.shape[1]
        if item.shape[1] < window:
            filled = np.zeros((len(item), window), np.float32)
            if self.pad == "repeat":
                filled[:] = item[:, np.arange(window) % item.shape[1]]
            else:
                filled[:, : item.shape[1]] = item
            return filled[None]
        views = np.lib.stride_tricks.sliding_window_view(item, window, axis=1)
        return views[:, :: self.step or window].transpose(1, 0, 2)
