"""Settings as Python values -> overrides, as they are written on the command line."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import yaml

from fedlabels.errors import ConfigError
from fedlabels.program import SETTINGS
from fedlabels.settings.presets import CONFIGS

_KEY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z0-9_-]+)*")
# What Hydra's grammar reads as the same text without quotes.
_PLAIN = re.compile(r"(?!(?:null|true|false|inf|nan)$)[A-Za-z_]\w*", re.IGNORECASE)
_ONLY_CHOSEN = ("method", "preset")  # groups that have no keys
_ELSEWHERE = {
    "sweep": "call this once a setting, or run: fedlabels sweep",
    "hydra": "Hydra's own settings are those of the command line",
}


def overrides_of(settings: Mapping[str, Any]) -> list[str]:
    """Write settings as overrides.

    Parameters
    ----------
    settings : mapping
        Key -> value. A mapping as value has the keys below it; ``name`` in that of a group chooses
        the group's option. Keys may be dotted.

    Returns
    -------
    list of str
        In the order of `settings`.

    Raises
    ------
    ConfigError
        If a key is no name or is given twice, or a value cannot be a setting.

    Examples
    --------
    >>> overrides_of({"method": "fixmatch", "training": {"lr": 0.1}, "labels.fraction": 0.5})
    ['method=fixmatch', 'training.lr=0.1', 'labels.fraction=0.5']
    >>> overrides_of({"labels": {"name": "beta", "fraction": 0.1}, "name": "a try"})
    ['labels=beta', 'labels.fraction=0.1', "name='a try'"]
    """
    found: dict[str, str] = {}
    for key, value in _leaves(settings, ""):
        if key in found:
            raise ConfigError(f"{key} is given twice ({found[key]}, {_text(key, value)}): keep one")
        found[key] = _text(key, value)
    return [f"{key}={text}" for key, text in found.items()]


@cache
def _groups() -> frozenset[str]:
    """Return the settings that choose an option, such as ``dataset``."""
    defaults = yaml.safe_load((CONFIGS / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    keys = {str(key) for entry in defaults if isinstance(entry, Mapping) for key in entry}
    return frozenset(key for key in keys if " " not in key)


def _leaves(settings: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for last, value in settings.items():
        key = f"{above}{last}"
        if not isinstance(last, str) or not _KEY.fullmatch(key):
            raise ConfigError(f"{key!r} is no name of a setting: {SETTINGS} lists all")
        first = key.partition(".")[0]
        if first in _ELSEWHERE:
            raise ConfigError(f"{key} is no setting of one run: {_ELSEWHERE[first]}")
        if key in {f"{group}.name" for group in _groups()}:
            yield key.removesuffix(".name"), value
        elif not isinstance(value, Mapping):
            yield key, value
        elif not value:
            raise ConfigError(f"{key} is empty: leave it out, or give the keys below it")
        elif key in _ONLY_CHOSEN:
            raise ConfigError(f"{key} takes a name alone, got {dict(value)!r}: give {key}='NAME'")
        else:
            yield from _leaves(value, f"{key}.")


def _text(key: str, value: Any) -> str:
    """Write a value in Hydra's grammar."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) else _quoted(key, value)
    if isinstance(value, Mapping):
        pairs = (f"{_text(key, str(name))}: {_text(key, item)}" for name, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return f"[{', '.join(_text(key, item) for item in value)}]"
    raise ConfigError(
        f"{key} must be a text, a number, true or false, None, a list or a dict, got a value of"
        f" type {type(value).__name__}"
    )


def _quoted(key: str, text: str) -> str:
    if "\n" in text or "\r" in text:
        raise ConfigError(f"{key} must be one line, got {text!r}")
    # backslashes stand for themselves but before a quote
    quoted = re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), text)
    return f"'{quoted}'"
