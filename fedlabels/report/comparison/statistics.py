"""Statistics for few seeds: paired differences, sign flips, Student's interval, ranks.

Nothing here needs more than numpy. With few pairs an exact permutation test says honestly how
little can be shown: with three pairs its smallest two-sided p is 0.25.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EXACT_PAIRS = 16
DRAWS = 10_000
CONFIDENCE = 0.95
_SEED = 0  # of the drawn flips: the same runs give the same p
_SAME = 1e-12  # relative: sums that differ by rounding alone count as equal

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Paired:
    """Paired differences, summed up.

    Parameters
    ----------
    pairs : int
        How many, >= 0.
    mean : float
        Their mean; NaN without pairs.
    low, high : float
        Student's interval at `CONFIDENCE`; NaN with fewer than two pairs.
    p_value : float
        Two-sided, of the sign-flip test, in (0, 1]; NaN without pairs.
    """

    pairs: int
    mean: float
    low: float
    high: float
    p_value: float


def summarize(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation.

    Parameters
    ----------
    values : sequence of float
        One number a seed.

    Returns
    -------
    tuple of float
        The mean, NaN without values; the standard deviation with n - 1 below, NaN with fewer
        than two values.

    Examples
    --------
    >>> summarize([1.0, 2.0, 3.0])
    (2.0, 1.0)
    """
    if not values:
        return math.nan, math.nan
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return float(np.mean(values)), spread


def paired(differences: Sequence[float]) -> Paired:
    """Test whether paired differences have a preferred sign, and bound their mean.

    Parameters
    ----------
    differences : sequence of float
        One finite number a pair.

    Returns
    -------
    Paired
        Mean, interval and p.
    """
    mean, spread = summarize(differences)
    pairs, half = len(differences), math.nan
    if pairs > 1:
        half = student_quantile((1 + CONFIDENCE) / 2, pairs - 1) * spread / math.sqrt(pairs)
    return Paired(pairs, mean, mean - half, mean + half, sign_flip(differences))


def sign_flip(differences: Sequence[float]) -> float:
    """Return the two-sided p of the sign-flip permutation test of the mean.

    Parameters
    ----------
    differences : sequence of float
        One finite number a pair.

    Returns
    -------
    float
        In (0, 1]; NaN without pairs.

    Notes
    -----
    If the two sides of a pair could be swapped, each sign is as likely as its opposite. p is the
    share of all 2^n sign patterns whose sum is at least as far from 0 as the observed one; above
    `EXACT_PAIRS` pairs `DRAWS` patterns are drawn, and the observed one is counted as one more
    (Phipson and Smyth 2010: p is never 0).

    Examples
    --------
    >>> sign_flip([1.0, 2.0, 3.0])
    0.25
    """
    values = np.asarray(differences, dtype=np.float64)
    if not len(values):
        return math.nan
    limit = abs(values.sum()) - _SAME * np.abs(values).sum()
    if len(values) <= EXACT_PAIRS:
        return float(np.mean(np.abs(_patterns(len(values)) @ values) >= limit))
    flips = np.random.default_rng(_SEED).integers(0, 2, (DRAWS, len(values)))
    hits = int((np.abs((1.0 - 2.0 * flips) @ values) >= limit).sum())
    return (hits + 1) / (DRAWS + 1)


def smallest_p(pairs: int) -> float:
    """Return the smallest p that `sign_flip` can give.

    Parameters
    ----------
    pairs : int
        >= 1.

    Examples
    --------
    >>> smallest_p(3), smallest_p(6)
    (0.25, 0.03125)
    """
    return 2.0 ** (1 - pairs) if pairs <= EXACT_PAIRS else 1 / (DRAWS + 1)


def student_quantile(probability: float, degrees: int) -> float:
    """Return a quantile of Student's t distribution.

    Parameters
    ----------
    probability : float
        In [0.5, 1).
    degrees : int
        Degrees of freedom, >= 1.

    Returns
    -------
    float
        t >= 0 with P(T <= t) = `probability`.

    Raises
    ------
    ValueError
        If an argument is outside its range.

    Notes
    -----
    With theta = arctan(t / sqrt(degrees)), P(|T| <= t) is a finite sum in sin and cos of theta
    (Abramowitz and Stegun 26.7.3 and 26.7.4) that grows from 0 to 1: theta is found by bisection.
    """
    if not 0.5 <= probability < 1 or degrees < 1:
        raise ValueError(
            f"need 0.5 <= probability < 1 and degrees >= 1, got {probability} and {degrees}"
        )
    share, low, high = 2 * probability - 1, 0.0, math.pi / 2
    for _ in range(80):  # halved until neighboring floats are reached
        middle = (low + high) / 2
        if _central(middle, degrees) < share:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees) * math.tan((low + high) / 2)


def ranks(values: Sequence[float], *, lower_is_better: bool) -> list[float]:
    """Rank values from 1, the best; ties get the mean of their places.

    Parameters
    ----------
    values : sequence of float
        Finite numbers; those equal to 12 digits tie.
    lower_is_better : bool
        Whether the smallest value is the best.

    Returns
    -------
    list of float
        In the order of `values`.

    Examples
    --------
    >>> ranks([0.9, 0.8, 0.9], lower_is_better=False)
    [1.5, 3.0, 1.5]
    """
    sign = 1 if lower_is_better else -1
    keys = [sign * float(f"{value:.12g}") for value in values]
    better = [sum(other < key for other in keys) for key in keys]
    tied = [keys.count(key) for key in keys]
    return [before + (same + 1) / 2 for before, same in zip(better, tied, strict=True)]


def _patterns(pairs: int) -> Values:
    """Return half of the sign patterns; the others are their mirror images."""
    bits = np.arange(2 ** (pairs - 1))[:, None] >> np.arange(pairs) & 1
    return np.where(bits == 0, 1.0, -1.0)  # (patterns, pairs)


def _central(theta: float, degrees: int) -> float:
    """Return P(|T| <= sqrt(degrees) tan(theta))."""
    sine, cosine = math.sin(theta), math.cos(theta)
    odd = degrees % 2
    term = cosine if odd else 1.0
    total = term if degrees > 1 else 0.0
    for index in range(3 if odd else 2, degrees - 1, 2):
        term *= cosine * cosine * (index - 1) / index
        total += term
    return 2 / math.pi * (theta + sine * total) if odd else sine * total
