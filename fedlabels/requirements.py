"""Which Python and which packages are supported: what pyproject.toml says, and no second list."""

import contextlib
import importlib.metadata
import tomllib
from pathlib import Path
from typing import Any

from fedlabels.errors import ConfigError

_PACKAGE = "fedlabels"


def required() -> tuple[str, list[str]]:
    """Return the supported Python and packages, of the checkout or of what is installed.

    Returns
    -------
    tuple of str and list of str
        A version specifier such as ``>=3.11``, and requirements such as ``numpy>=1.26``.

    Raises
    ------
    ConfigError
        If the code lies in no checkout and is not installed either.
    """
    if project := _project():
        return str(project["requires-python"]), [str(p) for p in project["dependencies"]]
    try:
        about = importlib.metadata.metadata(_PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError(f"{_PACKAGE} is not installed: pip install it") from error
    return str(about["Requires-Python"]), importlib.metadata.requires(_PACKAGE) or []


def extra(name: str) -> list[str]:
    """Return the requirements of an extra, such as ``sim``.

    Raises
    ------
    ConfigError
        As in `required`.
    """
    required()
    extras = _project().get("optional-dependencies", {})
    if name in extras:
        return [str(line) for line in extras[name]]
    pairs = [line.partition(";") for line in importlib.metadata.requires(_PACKAGE) or []]
    return [line.strip() for line, _, marker in pairs if f'extra == "{name}"' in marker]


def _project() -> dict[str, Any]:
    """Return what the checkout's pyproject.toml says; nothing without a checkout."""
    file = Path(__file__).resolve().parents[1] / "pyproject.toml"
    with contextlib.suppress(OSError, ValueError, KeyError):
        project: dict[str, Any] = tomllib.loads(file.read_text("utf-8"))["project"]
        if project["name"] == _PACKAGE:
            return project
    return {}


def supported(package: str) -> str:
    """Return the requirement of one package, such as ``flwr>=1.0,<2.0``.

    Parameters
    ----------
    package : str
        Its name, one that every device needs.

    Raises
    ------
    ConfigError
        As in `required`.
    """
    from packaging.requirements import Requirement  # comes with Flower

    return next(line for line in required()[1] if Requirement(line).name == package)
