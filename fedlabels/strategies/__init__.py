"""The server side of every method: Flower strategies, found by the name of their module.

A strategy is a module of this package. It defines one subclass of
:class:`fedlabels.strategies.base.ServerStrategy`, or names one in ``STRATEGY``; the class attribute
``Settings`` is a frozen dataclass whose fields, with types and defaults, are the settings, and the
constructor takes one such object. Nothing else has to be edited for a new strategy.
"""

from fedlabels import telemetry

telemetry.disable()  # before Flower is imported

# ruff: noqa: E402
import dataclasses
import pkgutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from fedlabels import plugins
from fedlabels.errors import ConfigError, named_below, unknown

if TYPE_CHECKING:
    from fedlabels.strategies.base import ServerStrategy

__all__ = ["build", "find", "names"]

_NOT_STRATEGIES = frozenset({"base"})


def names() -> tuple[str, ...]:
    """Return the names of all strategies, sorted, those of plugins among them."""
    return tuple(_modules())


def _modules() -> dict[str, str]:
    own = {m.name for m in pkgutil.iter_modules(__path__) if not m.ispkg}
    return plugins.modules("strategies", own - _NOT_STRATEGIES)


def find(name: str) -> type["ServerStrategy"]:
    """Find a strategy's class.

    Parameters
    ----------
    name : str
        One of :func:`names`.

    Returns
    -------
    type
        Subclass of ``ServerStrategy``.

    Raises
    ------
    ConfigError
        If there is no such strategy, or its module does not say which class it is.
    """
    known = _modules()
    if name not in known:
        raise unknown(name, known, "strategy")
    from fedlabels.strategies.base import ServerStrategy

    module = plugins.load(known[name])
    named = getattr(module, "STRATEGY", None)
    classes = [named] if named is not None else _classes_of(module, ServerStrategy)
    if len(classes) != 1 or not (
        isinstance(classes[0], type) and issubclass(classes[0], ServerStrategy)
    ):
        raise ConfigError(
            f"{known[name]} must define one subclass of ServerStrategy, or name it in"
            f" STRATEGY; found {[getattr(f, '__name__', f) for f in classes]}"
        )
    return classes[0]


def build(name: str, settings: Mapping[str, Any] | None = None) -> "ServerStrategy":
    """Make a strategy from plain settings.

    Parameters
    ----------
    name : str
        One of :func:`names`.
    settings : mapping or None
        Values for fields of its ``Settings``.

    Returns
    -------
    ServerStrategy
        A new strategy.

    Raises
    ------
    ConfigError
        If the name or a setting is unknown, or a value is out of range.
    """
    strategy = find(name)
    values = dict(settings or {})
    known = [field.name for field in dataclasses.fields(strategy.Settings)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ConfigError(
            f"strategy {name!r} has no setting {', '.join(unknown)};"
            f" allowed: {', '.join(known) or 'none'}"
        )
    make = cast(Any, strategy)  # every strategy takes its settings, whatever Flower's class takes
    with named_below("strategy", known):
        return cast("ServerStrategy", make(strategy.Settings(**values)))


def _classes_of(module: object, base: type) -> list[type]:
    own = getattr(module, "__name__", "")
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == own
    ]
