"""Where data sets are looked for, and what is said when none is found."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from fedlabels.data.dataset import DataSource
from fedlabels.errors import DataError

VARIABLE = "FEDLABELS_DATA"
SYSTEM = Path("/usr/share/datasets")
CACHE = Path("~/.cache/fedlabels")


class Roots(NamedTuple):
    """Folders to search.

    Parameters
    ----------
    option : Path or None
        The ``root`` option. It may be the very folder (or file) of the data set.
    shared : tuple of Path
        Folders that hold many data sets, each in a folder of its own.
    """

    option: Path | None
    shared: tuple[Path, ...]


class Reader(Protocol):
    """Reads one data set from the first root that holds it."""

    def __call__(self, roots: Roots, /) -> DataSource:
        """Read the data set; further options are keyword-only."""
        ...


def search_roots(root: str | None) -> Roots:
    """List the roots in search order: the option alone, or else the shared folders.

    Parameters
    ----------
    root : str or None
        The ``root`` option; a leading ``~`` is the home folder. Where it is given nothing else is
        searched: a mistyped root must not read other data.

    Returns
    -------
    Roots
        The option, or ``$FEDLABELS_DATA`` and the system's folder.
    """
    if root:
        return Roots(Path(root).expanduser(), ())
    shared = os.environ.get(VARIABLE)
    folders = [Path(shared).expanduser()] if shared else []
    return Roots(None, (*folders, SYSTEM))


def data_home(*, shared: bool = True) -> Path:
    """Return the folder for data sets that are built on this machine.

    Parameters
    ----------
    shared : bool
        Whether ``$FEDLABELS_DATA`` comes first, where it is set.

    Returns
    -------
    Path
        That folder, or ``~/.cache/fedlabels``.
    """
    folder = os.environ.get(VARIABLE) if shared else None
    return (Path(folder) if folder else CACHE).expanduser()


def candidates(roots: Roots, folders: Sequence[str]) -> list[Path]:
    """List the folders that may hold a data set, in search order.

    Parameters
    ----------
    roots : Roots
        Where to search. Only the given root may hold the files directly: sets such as MNIST and
        Fashion-MNIST name their files alike, so a shared root is never searched flat.
    folders : sequence of str
        Folder names of the data set below a root, for instance ``"FashionMNIST/raw"``.

    Returns
    -------
    list of Path
        Paths to try.
    """
    own = [roots.option, *(roots.option / f for f in folders)] if roots.option else []
    return [*own, *(root / folder for root in roots.shared for folder in folders)]


def find_first(paths: Iterable[Path], fits: Callable[[Path], bool]) -> Path | None:
    """Return the first path that fits, or None.

    Parameters
    ----------
    paths : iterable of Path
        Paths in search order.
    fits : callable
        Whether a path holds the data set.

    Returns
    -------
    Path or None
        The first hit.
    """
    return next((path for path in paths if fits(path)), None)


def missing(name: str, tried: Sequence[Path], remedy: str) -> DataError:
    """Make the error of a data set that is nowhere.

    Parameters
    ----------
    name : str
        Name of the data set.
    tried : sequence of Path
        Every path that was looked at.
    remedy : str
        The one thing to do about it.

    Returns
    -------
    DataError
        To be raised.
    """
    lines = "".join(f"\n  {path}" for path in tried) or "\n  (no folder was given)"
    return DataError(f"data set {name!r} was not found. Tried:{lines}\nTo get it: {remedy}")
