"""Data sets by name."""

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

from fedlabels.data.dataset import DataSource
from fedlabels.data.roots import search_roots
from fedlabels.errors import ConfigError, DataError, FedLabelsError, near, unknown

# Name -> module of this package and function. A reader is loaded when its data set is asked for:
# together they are a quarter of what a run imports of ours.
READERS: dict[str, str] = {
    "cifar10": "cifar:read_cifar10",
    "cifar100": "cifar:read_cifar100",
    "digits": "digits:read_digits",
    "emnist": "emnist:read_emnist",
    "fashion_mnist": "idx:read_fashion_mnist",
    "huggingface": "hub:read_huggingface",
    "icons": "icons:read_icons",
    "image_folder": "image_folder:read_image_folder",
    "leaf": "leaf:read_leaf",
    "medmnist": "medmnist:read_medmnist",
    "mnist": "idx:read_mnist",
    "npz": "npz:read_npz",
    "stl10": "stl10:read_stl10",
    "svhn": "svhn:read_svhn",
    "table": "table:read_table_set",
    "timeseries_npz": "timeseries_npz:read_timeseries_npz",
    "ts": "ts:read_ts",
    "uci_har": "uci_har:read_uci_har",
    "watch": "watch:read_watch",
    "wisdm": "wisdm:read_wisdm",
}


def names() -> tuple[str, ...]:
    """Return the names that :func:`load` knows, sorted."""
    return tuple(sorted(READERS))


def reader_of(name: str) -> Callable[..., DataSource]:
    """Return the reader of a data set.

    Parameters
    ----------
    name : str
        One of :func:`names`. Readers differ in their options, so they share no precise type:
        :func:`load` checks what it passes on.
    """
    module, _, function = READERS[name].partition(":")
    reader: Callable[..., DataSource] = getattr(import_module(f"fedlabels.data.{module}"), function)
    return reader


def load(name: str, /, *, root: str | None = None, **options: Any) -> DataSource:
    """Read a data set.

    Parameters
    ----------
    name : str
        One of :func:`names`.
    root : str or None
        The only folder to search: the data set's own, or one that holds several. None searches
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
        If the name or an option is not known, or an option is lacking.
    DataError
        If the files are missing (the message lists every path tried) or damaged.
    """
    if root is not None and not isinstance(root, str):
        raise ConfigError(f"dataset.root must be a path or null, got {root!r}")
    if name not in READERS:
        raise unknown(name, names(), "dataset")
    reader = reader_of(name)
    known = dict(list(inspect.signature(reader).parameters.items())[1:])
    others = sorted(set(options) - set(known))
    if others:
        allowed = ", ".join(known) or "none"
        raise ConfigError(
            f"data set {name!r} has no option {', '.join(others)}"
            f"{near(others[0], known, 'dataset.options.')}; allowed besides root: {allowed}"
        )
    lacking = [n for n, p in known.items() if p.default is p.empty and n not in options]
    if lacking:
        raise ConfigError(
            f"data set {name!r} needs option {', '.join(lacking)}; "
            f"give it as dataset.options.{lacking[0]}=..."
        )
    try:
        return reader(search_roots(root), **options)
    except FedLabelsError:
        raise
    # Whatever strange files make of themselves where no reader expects it: one line, not a trace.
    except Exception as error:
        place = f" in {root}" if root else ""
        raise DataError(
            f"data set {name!r}{place} cannot be read ({type(error).__name__}: {error})"
        ) from error
