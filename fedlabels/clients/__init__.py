"""The device side of each method: one file, one client class a method.

A client is found by the name of its module. Its settings are the fields of its frozen dataclass,
with types and defaults; adding a client is adding a file.
"""

import dataclasses
import pkgutil
from collections.abc import Mapping
from typing import Any

from fedlabels import plugins
from fedlabels.cohort import Client
from fedlabels.errors import ConfigError, unknown

__all__ = ["build", "find", "names", "settings_of"]


_NOT_CLIENTS = frozenset({"base"})


def names() -> list[str]:
    """Return the names of all clients, those of plugins among them."""
    return list(_modules())


def _modules() -> dict[str, str]:
    own = {m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")}
    return plugins.modules("clients", own - _NOT_CLIENTS)


def find(name: str) -> type[Client]:
    """Return the client class of a module of this package.

    Parameters
    ----------
    name : str
        Module name, such as ``"fedlabel"``; nothing outside this package and the plugins that take
        part is ever imported.

    Raises
    ------
    ConfigError
        If there is no such client.
    """
    known = _modules()
    if name not in known:
        raise unknown(name, known, "client")
    module = plugins.load(known[name])
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Client)
        and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise ConfigError(f"{known[name]} must define one client class, found {len(found)}")
    return found[0]


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a client's settings from those of a run: the groups ``client`` and ``training``."""
    return {**config["client"], **config["training"]}


def build(settings: Mapping[str, Any]) -> Client:
    """Build a client from its settings.

    Parameters
    ----------
    settings : mapping
        ``name`` and the fields of the client's dataclass, see `settings_of`.

    Raises
    ------
    ConfigError
        If the client or a setting is unknown, or a value is not allowed.
    """
    fields = dict(settings)
    kind = find(str(fields.pop("name", "")))
    known = [field.name for field in dataclasses.fields(kind)]  # without class attributes
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise ConfigError(
            f"client '{settings['name']}' has no setting {', '.join(unknown)}; "
            f"it has: {', '.join(known)}"
        )
    return kind(**fields)
