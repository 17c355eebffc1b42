"""Data sets by name."""

import inspect
from collections.abc import Callable
from typing import Any

from fedlabels.data.dataset import DataSource
from fedlabels.data.digits import read_digits
from fedlabels.data.idx import read_fashion_mnist, read_mnist
from fedlabels.data.npz import read_npz
from fedlabels.data.roots import search_roots
from fedlabels.errors import ConfigError

# Readers differ in their options, so they share no precise type; load() checks what it passes on.
READERS: dict[str, Callable[..., DataSource]] = {
    "digits": read_digits,
    "fashion_mnist": read_fashion_mnist,
    "mnist": read_mnist,
    "npz": read_npz,
}


def names() -> tuple[str, ...]:
    """Return the names that :func:`load` knows, sorted."""
    return tuple(sorted(READERS))


def load(name: str, *, root: str | None = None, **options: Any) -> DataSource:
    """Read a data set.

    Parameters
    ----------
    name : str
        One of :func:`names`.
    root : str or None
        Folder to search first: the data set's own folder, or one that holds several. Then come
        ``$FEDLABELS_DATA`` and ``/usr/share/datasets``.
    **options
        Options of the reader, for instance ``num_classes`` of ``"npz"``.

    Returns
    -------
    DataSource
        Training and test split.

    Raises
    ------
    ConfigError
        If the name or an option is not known.
    DataError
        If the files are missing (the message lists every path tried) or damaged.
    """
    if name not in READERS:
        raise ConfigError(f"data set {name!r} is not known; choose one of {', '.join(names())}")
    reader = READERS[name]
    known = list(inspect.signature(reader).parameters)[1:]
    unknown = sorted(set(options) - set(known))
    if unknown:
        allowed = ", ".join(known) or "none"
        raise ConfigError(
            f"data set {name!r} has no option {', '.join(unknown)}; allowed besides root: {allowed}"
        )
    return reader(search_roots(root), **options)
