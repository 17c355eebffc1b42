"""Checks that the options of readers share, and libraries that only some readers need."""

import math
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from fedlabels.errors import ConfigError, DataError


def _key(reader: str, option: str) -> str:
    return f"{reader}: {option if '.' in option else f'dataset.options.{option}'}"


def whole(reader: str, option: str, value: Any, *, low: int = 1, high: int | None = None) -> int:
    """Check that an option is a whole number.

    Parameters
    ----------
    reader, option : str
        Names for the message.
    value : Any
        What was given.
    low, high : int, int or None
        Least and greatest value allowed; None is any.

    Returns
    -------
    int
        The value.

    Raises
    ------
    ConfigError
        If it is no whole number of that range; True and False are none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ConfigError(f"{_key(reader, option)} must be a whole number >= {low}, got {value!r}")
    if high is not None and value > high:
        raise ConfigError(f"{_key(reader, option)} must be a whole number <= {high}, got {value!r}")
    return value


def text(reader: str, option: str, value: Any) -> str:
    """Check that an option is a text that is not empty; see :func:`whole`."""
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{_key(reader, option)} must be a text, got {value!r}")
    return value


def inside(reader: str, option: str, value: Any) -> Path:
    """Check that an option is a path below the data set's folder; see :func:`whole`.

    Who sends settings to a device must not choose which other files it reads.
    """
    path = Path(text(reader, option, value))
    if path.is_absolute() or ".." in path.parts:
        raise ConfigError(
            f"{_key(reader, option)} must be a path below dataset.root, got {value!r}; put "
            "the file there"
        )
    return path


def numbers(reader: str, option: str, values: Any) -> tuple[float, ...]:
    """Check that an option is a list of finite numbers; see :func:`whole`."""
    good = isinstance(values, Sequence) and not isinstance(values, str)
    kinds = (int, float)
    if not good or any(isinstance(v, bool) or not isinstance(v, kinds) for v in values):
        raise ConfigError(f"{_key(reader, option)} must be a list of numbers, got {values!r}")
    if not all(math.isfinite(v) for v in values):
        raise ConfigError(f"{_key(reader, option)} must be finite, got {values!r}")
    return tuple(float(v) for v in values)


def flag(reader: str, option: str, value: Any) -> bool:
    """Check that an option is true or false; see :func:`whole`."""
    if not isinstance(value, bool):
        raise ConfigError(f"{_key(reader, option)} must be true or false, got {value!r}")
    return value


def choice(reader: str, option: str, value: Any, allowed: Sequence[str]) -> str:
    """Check that an option is one of the words allowed; see :func:`whole`."""
    if not isinstance(value, str) or value not in allowed:
        raise ConfigError(
            f"{_key(reader, option)} must be one of {', '.join(allowed)}; got {value!r}"
        )
    return value


def library(module: str, *, reader: str, install: str) -> Any:
    """Import a library that is not part of every installation.

    Parameters
    ----------
    module : str
        Dotted name.
    reader : str
        Data set that needs it.
    install : str
        What follows ``pip install``.

    Returns
    -------
    module
        The library.

    Raises
    ------
    DataError
        If it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise DataError(
            f"data set {reader!r} needs {module.split('.')[0]}, which cannot be imported "
            f"({error}). To get it: pip install {install}"
        ) from error
