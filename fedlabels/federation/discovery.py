"""Import all modules of a folder, so that what they register is known."""

from collections.abc import Iterable
from importlib import import_module
from pkgutil import iter_modules


def import_siblings(package: str, path: Iterable[str]) -> list[str]:
    """Import every module of a package.

    Parameters
    ----------
    package : str
        Its ``__name__``.
    path : iterable of str
        Its ``__path__``.

    Returns
    -------
    list of str
        The modules' names, sorted.
    """
    names = sorted(module.name for module in iter_modules(path))
    for name in names:
        import_module(f"{package}.{name}")
    return names
