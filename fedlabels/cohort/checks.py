"""Checks of a client's settings: what was got, what is allowed."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from fedlabels.errors import ConfigError


def key_of(client: Any, name: str) -> str:
    """Return the full key of a setting: ``training.lr``, ``client.threshold``.

    The class that first declares a field says in ``group`` where its settings stand.
    """
    declaring = [
        kind for kind in type(client).__mro__ if name in vars(kind).get("__annotations__", ())
    ]
    group = vars(declaring[-1]).get("group", "client") if declaring else "client"
    return f"{group}.{name}"


def require(condition: bool, text: str) -> None:
    """Raise a ConfigError with this text unless the condition holds."""
    if not condition:
        raise ConfigError(text)


def check_choices(client: Any, choices: Mapping[str, tuple[Any, ...]]) -> None:
    """Require each named setting to be one of its choices."""
    for name, allowed in choices.items():
        value = getattr(client, name)
        require(value in allowed, f"{key_of(client, name)} must be one of {allowed}, got {value!r}")


def check_at_least(client: Any, low: float, names: Iterable[str]) -> None:
    """Require these settings to be >= low; None passes where it may be."""
    for name, value in _numbers(client, names):
        require(value >= low, f"{key_of(client, name)} must be >= {low}, got {value}")


def check_above(client: Any, low: float, names: Iterable[str]) -> None:
    """Require these settings to be > low; None passes where it may be."""
    for name, value in _numbers(client, names):
        require(value > low, f"{key_of(client, name)} must be > {low}, got {value}")


def check_between(client: Any, low: float, high: float, names: Iterable[str]) -> None:
    """Require these settings to be in [low, high]; None passes where it may be."""
    for name, value in _numbers(client, names):
        require(
            low <= value <= high, f"{key_of(client, name)} must be in [{low}, {high}], got {value}"
        )


def _numbers(client: Any, names: Iterable[str]) -> list[tuple[str, float]]:
    """Return the settings that are numbers; None passes where the field's type allows it."""
    optional = {f.name for f in fields(client) if "None" in str(f.type)}
    pairs = []
    for name in names:
        value = getattr(client, name)
        if value is None and name in optional:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        require(number, f"{key_of(client, name)} must be a number, got {value!r}")
        pairs.append((name, value))
    return pairs
