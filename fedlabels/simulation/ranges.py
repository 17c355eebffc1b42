"""Contiguous ranges of a cohort, one a worker: the slowest worker has as little as can be."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate


def ends(work: Sequence[int], parts: int, unit: int = 1) -> list[int]:
    """Cut a cohort into contiguous ranges whose largest is the least possible one.

    Parameters
    ----------
    work : sequence of int
        Work of each client, > 0.
    parts : int
        Ranges at most, >= 1.
    unit : int
        Neighbours that stay together: cuts are multiples of it, but for the last one.

    Returns
    -------
    list of int
        Behind the last client of every range; ranges are not empty.

    Examples
    --------
    >>> ends([1, 1, 1, 1], 2), ends([1, 1, 1, 1, 8], 2), ends([1, 1, 1, 1, 8], 2, unit=2)
    ([2, 4], [4, 5], [4, 5])
    """
    units = [sum(work[i : i + unit]) for i in range(0, len(work), unit)]
    before = [0, *accumulate(units)]
    low, high = max(units, default=0), before[-1]
    low = max(low, -(-high // parts))
    while low < high:
        middle = (low + high) // 2
        if len(_filled(before, middle)) <= parts:
            high = middle
        else:
            low = middle + 1
    return [min(end * unit, len(work)) for end in _filled(before, high)]


def _filled(before: Sequence[int], most: int) -> list[int]:
    """Fill one range after the other with no more than ``most``; return their ends."""
    found, place = [], 0
    while place < len(before) - 1:
        place = bisect_right(before, before[place] + most) - 1
        found.append(place)
    return found
