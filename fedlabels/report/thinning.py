"""Fewer points, bars and clients where there are more than a chart can show."""

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]
Counts = NDArray[np.int64]

MOST_POINTS = 400
MOST_BARS = 80
MOST_CLIENTS = 60


def thin(x: Column, y: Column, most: int = MOST_POINTS) -> tuple[Column, Column]:
    """Keep at most about so many points: the lowest and highest of each stretch, and the ends.

    Parameters
    ----------
    x, y : ndarray, shape (points,)
        Finite points.
    most : int
        About how many stay, >= 4.

    Returns
    -------
    tuple of ndarray
        The points that stay, in order.
    """
    if len(x) <= most:
        return x, y
    places = {0, len(x) - 1}
    for part in np.array_split(np.arange(len(x)), most // 2):
        places.update((int(part[y[part].argmin()]), int(part[y[part].argmax()])))
    index = sorted(places)
    return x[index], y[index]


def bucket_width(things: int) -> int:
    """Return how many neighbors share a bar so that the bars stay broad enough to see.

    Parameters
    ----------
    things : int
        How many there are, >= 1.
    """
    return max(1, -(-things // MOST_BARS))


def bucket(values: Column, *, add: bool = False) -> Column:
    """Put neighbors together until at most `MOST_BARS` numbers are left.

    Parameters
    ----------
    values : ndarray, shape (n,)
        NaN counts as 0.
    add : bool
        Whether to take sums; else means.

    Returns
    -------
    ndarray, shape (bars,)
        One number for `bucket_width` neighbors; the last may be over fewer.
    """
    starts = np.arange(0, len(values), bucket_width(len(values)))
    sums = np.asarray(np.add.reduceat(np.nan_to_num(values), starts))
    return sums if add else sums / np.diff(np.append(starts, len(values)))


def bucket_names(first: int, things: int) -> list[str]:
    """Return what the bars over numbered things are called, as in 7 or 7–9.

    Parameters
    ----------
    first : int
        Number of the first thing.
    things : int
        How many there are, >= 1.
    """
    width, end = bucket_width(things), first + things
    starts = range(first, end, width)
    if width == 1:
        return [str(start) for start in starts]
    return [f"{start}–{min(start + width, end) - 1}" for start in starts]


def shown_clients(clients: int) -> Counts:
    """Choose the clients to draw.

    Parameters
    ----------
    clients : int
        How many there are, >= 1.

    Returns
    -------
    ndarray, shape (shown,)
        Client ids, evenly spaced, all when they are few.
    """
    return np.linspace(0, clients - 1, min(clients, MOST_CLIENTS)).round().astype(np.int64)


def full_square(total: Counts) -> float:
    """Return the count that fills a cell: one huge shard must not shrink all others to dots.

    Parameters
    ----------
    total : ndarray, shape (shown, classes)
        Samples.

    Returns
    -------
    float
        The largest count, or where it stands far above the others twice the 95th percentile of
        those that are not 0; counts above it are drawn as a full cell.
    """
    held = total[total > 0]
    if not len(held):
        return 1.0
    return float(min(held.max(), 2 * np.quantile(held, 0.95)))
