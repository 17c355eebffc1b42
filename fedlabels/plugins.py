"""Methods of others: packages that hold clients, strategies and settings beside ours.

A plugin is a package with any of the folders ``clients``, ``strategies`` and ``configs``, whose
files are what they are in ours. It takes part where it is named (``plugins=my_package``), and
always where it is installed with an entry point of the group ``fedlabels.plugins``. Nothing else is
imported.
"""

import hashlib
import os
import sys
import traceback
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module, invalidate_caches
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

from fedlabels.errors import ConfigError

GROUP = "fedlabels.plugins"
KEY = "plugins"
"""The setting."""
PARTS = ("clients", "strategies", "configs")
_CODE = (".py", ".yaml")
_named: list[str] = []
_imported: dict[str, str] = {}
"""Package -> `digest` of the files that this process imported."""


def activate(given: object) -> None:
    """Let plugins take part beside those that are installed as such, instead of those before.

    Parameters
    ----------
    given : str, sequence of str or None
        Packages, as they are imported: installed, or in the folder from which the command is run.

    Raises
    ------
    ConfigError
        If one cannot be imported, or holds none of the folders.
    """
    names = [given] if isinstance(given, str) else given or ()
    if not isinstance(names, list | tuple):
        raise ConfigError(f"{KEY} must be a package or a list of packages, got {given!r}")
    for name in names:
        folder_of(name)
    _named[:] = dict.fromkeys(names)
    for name in active():
        _renew(name)


def _renew(name: str) -> None:
    """Import a plugin anew whose files were edited meanwhile, as beside a notebook.

    Otherwise its old code would run, and the run would say the hash of the new one.
    """
    now = digest(name)
    if _imported.setdefault(name, now) != now:
        for module in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
            del sys.modules[module]
        invalidate_caches()
        folder_of(name)
        _imported[name] = now


def active() -> tuple[str, ...]:
    """Return the packages that take part: those that are named, then those installed as plugins."""
    return tuple(dict.fromkeys([*_named, *installed().values()]))


@cache
def installed() -> Mapping[str, str]:
    """Return the plugins that are installed with an entry point: its name -> package."""
    return {point.name: point.value for point in sorted(entry_points(group=GROUP))}


def folder_of(name: str) -> Path:
    """Import a plugin's package and return its folder.

    Raises
    ------
    ConfigError
        If it cannot be imported, or holds none of `PARTS`.
    """
    if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(
            f"{KEY} takes names of packages, got {name!r}: start the command in the folder that "
            f"holds the package, and give {KEY}=my_package"
        )
    here = os.getcwd()
    try:
        try:
            package = import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name or here in sys.path:
                raise
            sys.path.append(here)  # last: what is installed stays what it is
            package = import_module(name)
    except Exception as error:
        raise ConfigError(
            f"{KEY}={name} cannot be imported ({type(error).__name__}: {error}): install the "
            f"package, or start the command in the folder that holds it (this is {here})"
        ) from error
    folders = [Path(path) for path in getattr(package, "__path__", ())]
    for folder in folders:
        if any((folder / part).is_dir() for part in PARTS):
            return folder
    raise ConfigError(
        f"{KEY}={name} has none of the folders {', '.join(PARTS)}"
        + (f" (looked in {folders[0]})" if folders else ": it is a module, and no package")
    )


def modules(part: str, own: Iterable[str]) -> dict[str, str]:
    """Return the modules of clients or strategies: ours, and those of the plugins.

    Parameters
    ----------
    part : {"clients", "strategies"}
        Which.
    own : iterable of str
        Names of ours.

    Returns
    -------
    dict of str to str
        Name -> full name of its module, sorted by name.

    Raises
    ------
    ConfigError
        If two have one name.
    """
    found = {name: f"fedlabels.{part}.{name}" for name in own}
    for plugin in active():
        folder = folder_of(plugin) / part
        for module in iter_modules([str(folder)]):
            if module.ispkg or module.name.startswith("_"):
                continue
            if module.name in found:
                raise ConfigError(
                    f"{found[module.name]} and {plugin}.{part}.{module.name} have one name: give "
                    "one of the files another"
                )
            found[module.name] = f"{plugin}.{part}.{module.name}"
    return dict(sorted(found.items()))


def load(module: str) -> ModuleType:
    """Import a module that `modules` found.

    Raises
    ------
    ConfigError
        If it is a plugin's and cannot be imported; the message has file and line.
    """
    try:
        return import_module(module)
    except Exception as error:
        if module.startswith("fedlabels."):
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = "" if isinstance(error, SyntaxError) else f", {frame.filename}:{frame.lineno}"
        raise ConfigError(
            f"{module} cannot be imported ({type(error).__name__}: {error}{where}): mend it, or "
            f"leave its package out of {KEY}"
        ) from error


def configs() -> dict[str, Path]:
    """Return the folders of settings of the plugins that have one, by package."""
    found = {name: folder_of(name) / "configs" for name in active()}
    return {name: folder for name, folder in found.items() if folder.is_dir()}


def used(*parts: type) -> dict[str, str]:
    """Return the plugins on which a run depends: those named, and those that hold its parts.

    Parameters
    ----------
    *parts : type
        The classes of its client and its strategy.

    Returns
    -------
    dict of str to str
        Package -> `digest`.
    """
    homes = [part.__module__ for part in parts]
    holders = [name for name in active() if any(m.startswith(f"{name}.") for m in homes)]
    return {name: digest(name) for name in dict.fromkeys([*_named, *holders])}


def require(names: Iterable[str]) -> None:
    """Refuse what takes no part here: nobody from outside decides which package is imported.

    Parameters
    ----------
    names : iterable of str
        Packages that a run needs.

    Raises
    ------
    ConfigError
        If one is neither named here nor installed as a plugin.
    """
    for name in names:
        if name not in active():
            raise ConfigError(
                f"the run needs the plugin {name}, which takes no part here: install it with an "
                f'entry point of the group {GROUP}, or install it and give {KEY}="{name}"'
            )


def check(expected: Mapping[str, str]) -> None:
    """Check that plugins are here as they are elsewhere.

    Parameters
    ----------
    expected : mapping of str to str
        Package -> `digest`, where the run was started.

    Raises
    ------
    ConfigError
        If one is missing or differs.
    """
    for name, value in expected.items():
        if digest(name) != value:
            raise ConfigError(
                f"the plugin {name} in {folder_of(name)} differs from that of the run: install the "
                "same version on every machine"
            )


def digest(name: str) -> str:
    """Return a hash of a plugin's code and settings.

    Returns
    -------
    str
        First 12 digits of the SHA-256, of the names and contents of its Python and YAML files.
    """
    folder, sha = folder_of(name), hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.suffix in _CODE and p.is_file()):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        sha.update(f"{file.relative_to(folder).as_posix()} {content}\n".encode())
    return sha.hexdigest()[:12]
