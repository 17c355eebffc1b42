"""Weak and strong views of time series: random changes that keep what a movement is.

Weak adds noise to the series (jitter) and stretches the values of each channel (scaling). Strong
changes the time axis, too: it cuts the series into segments and shuffles them (permutation), then
stretches a part of it to the whole length (window slicing), then applies the weak view. Jitter,
scaling and permutation are those of Um et al. (ICMI 2017, arXiv 1706.00527); weak and strong are
divided as in TS-TCC (Eldele et al., IJCAI 2021, arXiv 2106.14112); slicing is from Le Guennec,
Malinowski and Tavenard (AALTD 2016).

Convention
----------
- A view is a pure function of (x, u): series (N, C, T) of any range and ``columns`` uniform numbers
  in [0, 1) per series. Row i depends on x[i] and u[i] only.
- Sizes are relative to the channel: noise to its standard deviation in that series, factors to the
  distance from its mean. So a view may come before normalization and knows no unit.
- Noise for every value is hashed from two of the uniform numbers, so that the number of columns
  does not grow with the length of the series.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedlabels.data import series_ops
from fedlabels.data.view_base import check_numbers, check_range, whole
from fedlabels.errors import ConfigError

MAX_SEGMENTS = 64
_JITTER, _SCALE, _LENGTHS, _ORDER, _FLIP = range(5)  # purposes of the hashed numbers
_EVEN = 64  # lengths of segments are 64 .. 127 parts: none is twice as long as another


@dataclass(frozen=True)
class WeakSeriesView:
    """Jitter and scaling.

    Parameters
    ----------
    jitter : float
        Standard deviation of the noise, as a share of the channel's own, in [0, 10].
    scale : float
        Standard deviation of the factor of each channel about 1, in [0, 1]. Above 0.3 a few
        factors are negative.
    """

    jitter: float = 0.05
    scale: float = 0.1
    columns: int = field(default=2, init=False)

    def __post_init__(self) -> None:
        check_range("jitter", self.jitter, 0.0, 10.0)
        check_range("scale", self.scale, 0.0, 1.0)

    def __call__(self, x: Tensor, u: Tensor) -> Tensor:
        """Distort each series; see :class:`~fedlabels.data.view_base.View`."""
        _check_input(x, u, self.columns)
        if not (self.jitter or self.scale):
            return x
        key = series_ops.keys(u)
        noise = self.jitter * series_ops.normal(key, _JITTER, *x.shape[1:], dtype=x.dtype)
        gain = 1 + self.scale * series_ops.normal(key, _SCALE, x.shape[1], dtype=x.dtype)
        return series_ops.distort(x, noise, gain)


@dataclass(frozen=True)
class StrongSeriesView:
    """Permutation of segments, a stretched window, then the weak view with numbers of its own.

    Parameters
    ----------
    weak : WeakSeriesView
        The last step.
    segments : int
        Most segments that a series is cut into, 1 to 64; each series draws its own number from 1
        on, and 1 leaves it in order. No segment is twice as long as another.
    crop : float
        Shortest window as a share of the series, in [0.05, 1]; each series draws its own.
    flip : bool
        Change the sign of each channel with probability 1/2: a sensor worn the other way round
        (rotation in Um et al.). Not where the sign tells classes apart.
    """

    weak: WeakSeriesView = field(default_factory=WeakSeriesView)
    segments: int = 4
    crop: float = 0.7
    flip: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.segments, int):
            raise ConfigError(f"segments must be a whole number, got {self.segments!r}")
        check_range("segments", self.segments, 1, MAX_SEGMENTS)
        check_range("crop", self.crop, 0.05, 1.0)

    @property
    def columns(self) -> int:
        """Uniform numbers per series: 1 for segments, 2 for the window, 2 hashed, the weak ones."""
        return 5 + self.weak.columns

    def __call__(self, x: Tensor, u: Tensor) -> Tensor:
        """Change each series strongly; see :class:`~fedlabels.data.view_base.View`."""
        _check_input(x, u, self.columns)
        count, window, hashed, weak = torch.split(u, [1, 2, 2, self.weak.columns], dim=1)
        key = series_ops.keys(hashed)
        if self.segments > 1:
            x = self._permuted(x, whole(count, self.segments) + 1, key)
        if self.crop < 1:
            window = window.double()
            length = 1 - (1 - self.crop) * window[:, 0]
            x = series_ops.stretch(x, (1 - length) * window[:, 1], length)
        if self.flip:
            negative = series_ops.bits(key, _FLIP, x.shape[1], 1) % 2 == 1  # (N, C, 1)
            x = torch.where(negative, -x, x)
        return self.weak(x, weak)

    def _permuted(self, x: Tensor, count: Tensor, key: Tensor) -> Tensor:
        absent = torch.arange(self.segments, device=x.device) >= count  # (N, segments)
        weight = _EVEN + series_ops.bits(key, _LENGTHS, self.segments) % _EVEN
        rank = series_ops.bits(key, _ORDER, self.segments)
        return series_ops.reorder(x, weight.masked_fill(absent, 0), rank)


def _check_input(x: Tensor, u: Tensor, columns: int) -> None:
    if x.ndim != 3 or not x.is_floating_point() or 0 in x.shape[1:]:
        raise ConfigError(
            f"views of series change floats (N, channels, time), got {x.dtype} {tuple(x.shape)}; "
            "use a preset for images or 'none'"
        )
    check_numbers(u, len(x), columns)
