"""The adapters: one function per kind, found in the modules ``adapters_*.py`` of this folder."""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import tests.golden

Inputs = dict[str, Any]
Adapter = Callable[[Inputs], dict[str, Any]]

_ADAPTERS: dict[str, Adapter] = {}


def adapter(kind: str) -> Callable[[Adapter], Adapter]:
    """Register the function that computes the outputs of a kind from its decoded inputs.

    An adapter converts types, sets options, loads weights, differentiates the project's losses and
    renames results; the maths is the project's.
    """

    def register(function: Adapter) -> Adapter:
        if kind in _ADAPTERS:
            raise ValueError(f"kind {kind} has two adapters")
        _ADAPTERS[kind] = function
        return function

    return register


def adapters() -> dict[str, Adapter]:
    """Import every adapter module and return kind -> adapter."""
    for module in pkgutil.iter_modules(tests.golden.__path__):
        if module.name.startswith("adapters_"):
            importlib.import_module(f"tests.golden.{module.name}")
    return dict(_ADAPTERS)
