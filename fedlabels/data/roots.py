"""Where data sets are looked for, and what is said when none is found."""

import os
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple, Protocol

from fedlabels.data.dataset import DataSource
from fedlabels.errors import DataError

VARIABLE = "FEDLABELS_DATA"
SYSTEM = Path("/usr/share/datasets")
CACHE = Path("~/.cache/fedlabels")
_ends = ContextVar("_ends", default=False)  # whether a search ends with what it has found


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


class _Found(Exception):
    """A search that ends with what it has found."""


def locate(reader: Callable[[Roots], object], root: str | None = None) -> Path:
    """Return where a data set lies, as its reader searches for it; nothing is read.

    Parameters
    ----------
    reader : callable
        Searches with :func:`find_first`.
    root : str or None
        As for :func:`search_roots`.

    Raises
    ------
    DataError
        If it is nowhere.
    """
    token = _ends.set(True)
    try:
        reader(search_roots(root))
    except _Found as found:
        return Path(*found.args)
    finally:
        _ends.reset(token)
    raise DataError("the reader searches no folder")


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
    ends, token = _ends.get(), _ends.set(False)  # a search inside of this one goes on
    try:
        path = next((path for path in paths if fits(path)), None)
    finally:
        _ends.reset(token)
    if path is not None and ends:
        raise _Found(path)
    return path


class MissingDataError(DataError):
    """A data set is nowhere.

    Parameters
    ----------
    text : str
        What was tried.
    remedy : str
        The one thing to do about it.
    """

    def __init__(self, text: str, remedy: str) -> None:
        super().__init__(text)
        self.remedy = remedy


def missing(name: str, tried: Sequence[Path], remedy: str) -> MissingDataError:
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
    MissingDataError
        To be raised.
    """
    lines = "".join(f"\n  {path}" for path in tried) or "\n  (no folder was given)"
    return MissingDataError(
        f"data set {name!r} was not found. Tried:{lines}\nTo get it: {remedy}", remedy
    )
