"""Federated learning where labels are scarce and clients differ."""

from typing import Any

# What the package offers -> where it lies: importing the package alone loads nothing heavy.
_OFFERED = {
    "Run": "fedlabels.api.run",
    "compare": "fedlabels.api.comparison",
    "load_model": "fedlabels.use",
    "look": "fedlabels.api.preview",
    "simulate": "fedlabels.api.simulation",
}

__all__ = ["__version__", *_OFFERED]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "__version__":
        return import_module("fedlabels.version").version()
    if name in _OFFERED:
        return getattr(import_module(_OFFERED[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
