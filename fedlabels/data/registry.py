"""Data sets by name."""

import inspect
from collections.abc import Callable
from typing import Any

from fedlabels.data.cifar import read_cifar10, read_cifar100
from fedlabels.data.dataset import DataSource
from fedlabels.data.digits import read_digits
from fedlabels.data.emnist import read_emnist
from fedlabels.data.hub import read_huggingface
from fedlabels.data.icons import read_icons
from fedlabels.data.idx import read_fashion_mnist, read_mnist
from fedlabels.data.image_folder import read_image_folder
from fedlabels.data.leaf import read_leaf
from fedlabels.data.medmnist import read_medmnist
from fedlabels.data.npz import read_npz
from fedlabels.data.roots import search_roots
from fedlabels.data.stl10 import read_stl10
from fedlabels.data.svhn import read_svhn
from fedlabels.data.table import read_table_set
from fedlabels.data.timeseries_npz import read_timeseries_npz
from fedlabels.data.ts import read_ts
from fedlabels.data.uci_har import read_uci_har
from fedlabels.data.watch import read_watch
from fedlabels.data.wisdm import read_wisdm
from fedlabels.errors import ConfigError, DataError, FedLabelsError, near, unknown

# Readers differ in their options, so they share no precise type; load() checks what it passes on.
READERS: dict[str, Callable[..., DataSource]] = {
    "cifar10": read_cifar10,
    "cifar100": read_cifar100,
    "digits": read_digits,
    "emnist": read_emnist,
    "fashion_mnist": read_fashion_mnist,
    "huggingface": read_huggingface,
    "icons": read_icons,
    "image_folder": read_image_folder,
    "leaf": read_leaf,
    "medmnist": read_medmnist,
    "mnist": read_mnist,
    "npz": read_npz,
    "stl10": read_stl10,
    "svhn": read_svhn,
    "table": read_table_set,
    "timeseries_npz": read_timeseries_npz,
    "ts": read_ts,
    "uci_har": read_uci_har,
    "watch": read_watch,
    "wisdm": read_wisdm,
}


def names() -> tuple[str, ...]:
    """Return the names that :func:`load` knows, sorted."""
    return tuple(sorted(READERS))


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
    reader = READERS[name]
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
