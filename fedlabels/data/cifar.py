"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) in the layout of torchvision.

``cifar-10-batches-py/{data_batch_1..5,test_batch}`` and ``cifar-100-python/{train,test,meta}``:
pickles of Python 2, read by :mod:`fedlabels.data.pickles`, which runs nothing of them.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from fedlabels.data.dataset import DataSource
from fedlabels.data.hub import HubSet
from fedlabels.data.options import choice
from fedlabels.data.pickles import as_array, load_pickle
from fedlabels.data.published import OR_DOWNLOAD, Part, Published
from fedlabels.data.roots import Roots
from fedlabels.errors import DataError

# Of the 50,000 training images, over all pixels of a channel, scaled to [0, 1]. The deviations
# (0.2023, 0.1994, 0.2010) that many programs use are means over images of each image's own.
MEAN_10, STD_10 = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
MEAN_100, STD_100 = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)

CLASSES_10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
_TRAIN_10 = tuple(f"data_batch_{i}" for i in range(1, 6))
_SHAPE = (3, 32, 32)
_SITE = "https://www.cs.toronto.edu/~kriz"
_REMEDY = f"curl -L {_SITE}/%s.tar.gz | tar xz -C $FEDLABELS_DATA, {OR_DOWNLOAD}"
_CIFAR_10 = Published(
    name="cifar10",
    folders=("cifar-10-batches-py", "cifar10/cifar-10-batches-py"),
    files=(*_TRAIN_10, "test_batch"),
    remedy=_REMEDY % "cifar-10-python",
    hub=HubSet("uoft-cs/cifar10", image="img"),
    mean=MEAN_10,
    std=STD_10,
    class_names=CLASSES_10,
)
_CIFAR_100 = Published(
    name="cifar100",
    folders=("cifar-100-python", "cifar100/cifar-100-python"),
    files=("train", "test", "meta"),
    remedy=_REMEDY % "cifar-100-python",
    hub=HubSet("uoft-cs/cifar100", image="img"),
    mean=MEAN_100,
    std=STD_100,
)


def read_cifar10(roots: Roots, /, *, download: bool = False) -> DataSource:
    """Read CIFAR-10: 50,000 + 10,000 colour images of 32 x 32 pixels, 10 classes.

    Parameters
    ----------
    roots : Roots
        Where to search.
    download : bool
        Whether to fetch it through ``datasets`` where it is not found.

    Returns
    -------
    DataSource
        Training and test split, uint8 (N, 3, 32, 32).

    Raises
    ------
    DataError
        If the files are missing or damaged.
    """
    return _CIFAR_10.read(roots, _read_10, download=download)


def read_cifar100(roots: Roots, /, *, labels: str = "fine", download: bool = False) -> DataSource:
    """Read CIFAR-100: 50,000 + 10,000 colour images of 32 x 32 pixels.

    Parameters
    ----------
    roots : Roots
        Where to search.
    labels : {"fine", "coarse"}
        Whether to use the 100 classes or the 20 superclasses.
    download : bool
        Whether to fetch it through ``datasets`` where it is not found.

    Returns
    -------
    DataSource
        Training and test split, uint8 (N, 3, 32, 32).

    Raises
    ------
    ConfigError
        If ``labels`` is neither.
    DataError
        If the files are missing or damaged.
    """
    kind = choice("cifar100", "labels", labels, ("fine", "coarse"))
    published = replace(_CIFAR_100, hub=replace(_CIFAR_100.hub, label=f"{kind}_label"))
    return published.read(roots, partial(_read_100, kind), download=download)


def _read_10(folder: Path) -> tuple[Part, Part, tuple[str, ...]]:
    *parts, test = (_batch(folder / file, b"labels", len(CLASSES_10)) for file in _CIFAR_10.files)
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return (images, labels), test, CLASSES_10


def _read_100(kind: str, folder: Path) -> tuple[Part, Part, tuple[str, ...]]:
    classes = _names(folder / "meta", f"{kind}_label_names".encode())
    key = f"{kind}_labels".encode()
    train, test = (_batch(folder / split, key, len(classes)) for split in ("train", "test"))
    return train, test, classes


def _batch(path: Path, key: bytes, classes: int) -> Part:
    content = load_pickle(path)
    if not isinstance(content, dict) or not {b"data", key} <= content.keys():
        raise DataError(f"{path} lacks data or {key.decode()}; get the file again")
    try:
        x, y = as_array(content[b"data"], np.uint8), as_array(content[key], np.int64)
    except ValueError as error:
        raise DataError(f"{path} holds no plain arrays ({error}); get the file again") from error
    if x.ndim != 2 or x.shape[1] != np.prod(_SHAPE) or y.shape != (len(x),):
        raise DataError(
            f"{path} must hold images of shape (N, {np.prod(_SHAPE)}) and N labels, got {x.shape} "
            f"and {y.shape}; get the file again"
        )
    if len(y) and not 0 <= y.min() <= y.max() < classes:
        raise DataError(
            f"{path}: labels must be in 0..{classes - 1}, got {y.min()}..{y.max()}; "
            "get the file again"
        )
    return x.reshape(-1, *_SHAPE), y


def _names(path: Path, key: bytes) -> tuple[str, ...]:
    content = load_pickle(path)
    names = content.get(key) if isinstance(content, dict) else None
    if not isinstance(names, list) or not all(isinstance(n, bytes | str) for n in names):
        raise DataError(f"{path} lacks {key.decode()}; get the file again")
    return tuple(n.decode() if isinstance(n, bytes) else n for n in names)
