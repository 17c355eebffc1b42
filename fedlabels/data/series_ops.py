"""Operations on batches of time series, each row by itself, and noise from a few uniform numbers.

Convention
----------
- Series are (R, C, T) with values of any range; every result has the same shape and type.
- Spread and offset are those of the channel of that one series: changing the unit of a channel
  (``a * x + b``) changes what comes out in the same way.
- Row i depends on nothing but row i, to the last bit: sums go by halves, element by element,
  because torch's own sums of floats depend on the position.
"""

import torch
from torch import Tensor

_BITS = 24  # what every float type of at least 32 bits holds exactly
# The finalizer of splitmix64 (Steele, Lea and Flood, OOPSLA 2014) as signed numbers.
_GAMMA = -0x61C8864680B583EB
_FIRST = -0x40A7B892E31B1A47
_SECOND = -0x6B2FB644ECCEEE15


def keys(u: Tensor) -> Tensor:
    """Join two uniform numbers to one key of 48 bits, from which `bits` makes as many as needed.

    Parameters
    ----------
    u : Tensor, shape (R, 2)
        Uniform numbers in [0, 1).

    Returns
    -------
    Tensor of int64, shape (R,)
    """
    parts = (u.double() * 2.0**_BITS).long()
    return (parts[:, 0] << _BITS) | parts[:, 1]


def bits(key: Tensor, tag: int, *shape: int) -> Tensor:
    """Hash keys and a counter to whole numbers.

    Parameters
    ----------
    key : Tensor of int64, shape (R,)
        From `keys`.
    tag : int
        Different numbers for each purpose.
    *shape : int
        Numbers per row.

    Returns
    -------
    Tensor of int64, shape (R, *shape)
        Each of 0 .. 2**24 - 1 equally likely.
    """
    count = torch.Size(shape).numel()
    counter = torch.arange(count, device=key.device) * _GAMMA
    stream = _mix(_mix(key) + tag)
    return _shift(_mix(stream[:, None] + counter), 64 - _BITS).view(len(key), *shape)


def normal(key: Tensor, tag: int, *shape: int, dtype: torch.dtype) -> Tensor:
    """Make standard normal numbers by the inverse of the normal distribution.

    Parameters
    ----------
    key : Tensor of int64, shape (R,)
        From `keys`.
    tag : int
        Different numbers for each purpose.
    *shape : int
        Numbers per row.
    dtype : torch.dtype
        Type of the result.

    Returns
    -------
    Tensor, shape (R, *shape)
        At most 5.5 in magnitude.
    """
    # Halves keep away from 0 and 1, and double holds them: in float32 the last one would round up.
    uniform = (bits(key, tag, *shape).double() + 0.5) * 2.0**-_BITS
    drawn: Tensor = torch.special.ndtri(uniform)
    return drawn.to(dtype)


def spread(x: Tensor) -> tuple[Tensor, Tensor]:
    """Measure every channel of every series.

    Parameters
    ----------
    x : Tensor, shape (R, C, T)

    Returns
    -------
    tuple of Tensor, shape (R, C, 1)
        Mean and standard deviation over time (of the population: 0 for one step).
    """
    mean = _sum_time(x) / x.shape[2]
    centred = x - mean
    return mean, (_sum_time(centred * centred) / x.shape[2]).sqrt()


def distort(x: Tensor, noise: Tensor, gain: Tensor) -> Tensor:
    """Add noise and stretch each channel about its mean.

    Parameters
    ----------
    x : Tensor, shape (R, C, T)
        Series.
    noise : Tensor, shape (R, C, T)
        In standard deviations of the channel.
    gain : Tensor, shape (R, C)
        Factor of the distance from the channel's mean; 1 keeps it.

    Returns
    -------
    Tensor, shape (R, C, T)
    """
    mean, deviation = spread(x)
    moved = (x - mean) + noise * deviation
    return mean + moved * gain[:, :, None]


def reorder(x: Tensor, weight: Tensor, rank: Tensor) -> Tensor:
    """Cut each series into segments and put them into another order.

    Parameters
    ----------
    x : Tensor, shape (R, C, T)
        Series; all channels are cut alike.
    weight : Tensor of int64, shape (R, S)
        Shares of the segments' lengths; 0 for segments that a series does not have, at least one
        above 0.
    rank : Tensor of int64, shape (R, S)
        Segments are put in the order of these numbers.

    Returns
    -------
    Tensor, shape (R, C, T)
        The same time steps in another order.
    """
    time = x.shape[2]
    end = weight.cumsum(1) * time // weight.sum(1, keepdim=True)  # (R, S), whole steps
    length = torch.diff(end, dim=1, prepend=torch.zeros_like(end[:, :1]))
    order = rank.argsort(dim=1, stable=True)
    source = (end - length).gather(1, order)  # first step of each segment, in the new order
    length = length.gather(1, order)
    end = length.cumsum(1)
    step = torch.arange(time, device=x.device).expand(len(x), -1).contiguous()
    segment = torch.searchsorted(end, step, right=True)  # (R, T)
    index = step + (source - (end - length)).gather(1, segment)
    return x.gather(2, index[:, None, :].expand_as(x))


def stretch(x: Tensor, start: Tensor, length: Tensor) -> Tensor:
    """Cut a window out of each series and stretch it to the whole length, linearly.

    Parameters
    ----------
    x : Tensor, shape (R, C, T)
        Series.
    start, length : Tensor, shape (R,)
        First place and length of the window as shares of the series; start + length <= 1.

    Returns
    -------
    Tensor, shape (R, C, T)
        Ends at the window's ends.
    """
    last = x.shape[2] - 1
    step = torch.arange(last + 1, dtype=torch.float64, device=x.device)
    place = start.double()[:, None] * last + length.double()[:, None] * step  # (R, T)
    low = place.long().clamp(0, last)
    part = (place - low).to(x.dtype)[:, None, :]
    before = x.gather(2, low[:, None, :].expand_as(x))
    after = x.gather(2, (low + 1).clamp(max=last)[:, None, :].expand_as(x))
    return before + (after - before) * part


def _sum_time(x: Tensor) -> Tensor:
    """Sum over the last axis by adding its halves, (R, C, T) -> (R, C, 1)."""
    while x.shape[2] > 1:
        half = x.shape[2] // 2
        rest = x[:, :, 2 * half :]  # the last step of an odd length
        x = torch.cat([x[:, :, :half] + x[:, :, half : 2 * half], rest], dim=2)
    return x


def _mix(x: Tensor) -> Tensor:
    x = x + _GAMMA
    x = (x ^ _shift(x, 30)) * _FIRST
    x = (x ^ _shift(x, 27)) * _SECOND
    return x ^ _shift(x, 31)


def _shift(x: Tensor, places: int) -> Tensor:
    """Shift right without copying the sign (torch shifts int64 arithmetically)."""
    return (x >> places) & ((1 << (64 - places)) - 1)
