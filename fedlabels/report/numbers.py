"""Numbers as people read them: sensible digits, a unit, and a space that does not break."""

import math

NBSP = "\N{NO-BREAK SPACE}"
MISSING = "\N{EN DASH}"
_BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def percent(share: float) -> str:
    """Write a share of one as a percentage, as in 71.3 %.

    Parameters
    ----------
    share : float
        In [0, 1]; NaN gives a dash.
    """
    return MISSING if math.isnan(share) else f"{100 * share:.1f}{NBSP}%"


def small_percent(share: float) -> str:
    """Write a share of one with two significant digits, as in 0.42 %, 1 %.

    Parameters
    ----------
    share : float
        In [0, 1]; NaN gives a dash.
    """
    if math.isnan(share):
        return MISSING
    digits = 2 if share < 0.1 else 3
    return f"{float(f'{100 * share:.{digits}g}'):g}{NBSP}%"


def count(value: float) -> str:
    """Write a whole number with separators between thousands.

    Parameters
    ----------
    value : float
        NaN gives a dash.
    """
    return MISSING if math.isnan(value) else f"{round(value):,}"


def decimal(value: float) -> str:
    """Write a number without a unit, with four significant digits.

    Parameters
    ----------
    value : float
        NaN gives a dash.
    """
    return f"{value:.4g}" if math.isfinite(value) else MISSING


def size(value: float) -> str:
    """Write a number of bytes with a decimal unit.

    Parameters
    ----------
    value : float
        Bytes, >= 0; NaN gives a dash.
    """
    if math.isnan(value):
        return MISSING
    unit, name = size_unit(value)
    return f"{value / unit:.3g}{NBSP}{name}" if unit > 1 else f"{value:.0f}{NBSP}B"


def size_unit(value: float) -> tuple[float, str]:
    """Choose the unit in which a number of bytes is at least one.

    Parameters
    ----------
    value : float
        Bytes, >= 0.

    Returns
    -------
    tuple of float and str
        Bytes in one unit, and its name.
    """
    # 999.5 of a unit would be written as 1e+03 of it
    return next(((unit, name) for unit, name in _BYTES if value >= 0.9995 * unit), (1.0, "B"))


def duration(seconds: float) -> str:
    """Write a span of time with its two greatest units.

    Parameters
    ----------
    seconds : float
        >= 0; NaN gives a dash.
    """
    if math.isnan(seconds):
        return MISSING
    if seconds < 10:
        return f"{seconds:.2g}{NBSP}s" if seconds < 1 else f"{seconds:.1f}{NBSP}s"
    if seconds < 59.5:
        return f"{seconds:.0f}{NBSP}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{NBSP}min {rest:02d}{NBSP}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}{NBSP}h {minutes:02d}{NBSP}min"
    return f"{hours // 24}{NBSP}d {hours % 24}{NBSP}h"


def plural(number: int, noun: str) -> str:
    """Write a number with its noun, as in 1 client, 2,000 clients.

    Parameters
    ----------
    number : int
        How many.
    noun : str
        Its singular, one that takes an s.
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
