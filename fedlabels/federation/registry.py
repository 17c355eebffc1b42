"""Names for partitioners and label policies, and the checks of their settings."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from fedlabels.errors import ConfigError, named_below, unknown

T = TypeVar("T")


def register(registry: dict[str, type[T]], name: str) -> Callable[[type[T]], type[T]]:
    """Make a decorator that puts a class into a registry.

    Parameters
    ----------
    registry : dict
        Name -> frozen dataclass whose fields are its settings.
    name : str
        The name, as configurations write it.

    Returns
    -------
    callable
        The decorator.

    Raises
    ------
    ValueError
        If the name is taken.
    """

    def add(kind: type[T]) -> type[T]:
        if name in registry:
            raise ValueError(f"{name!r} is registered already, by {registry[name].__name__}")
        registry[name] = kind
        return kind

    return add


def make(
    registry: Mapping[str, type[T]], name: str, settings: Mapping[str, Any], *, group: str = ""
) -> T:
    """Make an object by name.

    Parameters
    ----------
    registry : mapping
        Name -> frozen dataclass.
    name : str
        One of the names.
    settings : mapping
        Fields of the dataclass.
    group : str
        Goes in front of a setting's name in errors: ``partition``, ``labels``.

    Returns
    -------
    object
        The instance, its settings checked.

    Raises
    ------
    ConfigError
        If the name or a setting is not known, a setting lacks, or a value is not allowed.

    Examples
    --------
    >>> from fedlabels.federation import PARTITIONS
    >>> make(PARTITIONS, "dirichlet", {"alpha": 0.3}).alpha
    0.3
    """
    if name not in registry:
        raise unknown(name, sorted(registry), group)
    known = {f.name for f in fields(registry[name]) if f.init}  # type: ignore[arg-type]
    others = sorted(set(settings) - known)
    if others:
        raise ConfigError(
            f"{name!r} has no setting {', '.join(others)}; allowed: {', '.join(sorted(known))}"
        )
    try:
        with named_below(group, known):
            return registry[name](**settings)
    except TypeError as error:
        raise ConfigError(f"{name!r}: {error}") from error


def name_of(registry: Mapping[str, type[T]], value: T) -> str:
    """Return the registered name of an object's class, else the name of the class.

    Parameters
    ----------
    registry : mapping
        Name -> class.
    value : object
        An instance.

    Returns
    -------
    str
        The name.
    """
    return next((n for n, kind in registry.items() if kind is type(value)), type(value).__name__)


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Check that a setting lies in a closed range.

    Parameters
    ----------
    name : str
        Name of the setting.
    value, low, high : float
        Value and bounds.

    Raises
    ------
    ConfigError
        If it does not, or is no number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ConfigError(f"{name} must be in [{low:g}, {high:g}], got {value!r}")


def check_count(name: str, value: int, *, low: int = 0) -> None:
    """Check that a setting is a whole number from ``low`` on.

    Parameters
    ----------
    name : str
        Name of the setting.
    value : int
        Value.
    low : int
        Smallest value allowed.

    Raises
    ------
    ConfigError
        If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ConfigError(f"{name} must be a whole number >= {low}, got {value!r}")


def check_positive(name: str, value: float) -> None:
    """Check that a setting is a finite number above zero.

    Parameters
    ----------
    name : str
        Name of the setting.
    value : float
        Value.

    Raises
    ------
    ConfigError
        If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e300:
        raise ConfigError(f"{name} must be > 0, got {value!r}")


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Check that a setting is one of some words.

    Parameters
    ----------
    name : str
        Name of the setting.
    value : str
        Value.
    allowed : tuple of str
        The words.

    Raises
    ------
    ConfigError
        If it is none of them.
    """
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
