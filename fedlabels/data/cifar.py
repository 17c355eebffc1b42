"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) in the layout of torchvision.

``cifar-10-batches-py/{data_batch_1..5,test_batch}`` and ``cifar-100-python/{train,test,meta}``:
pickles of Python 2, read by :mod:`fedlabels.data.pickles`, which runs nothing of them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.arrays import check_content
from fedlabels.data.dataset import DataSource, pair
from fedlabels.data.hub import HubSet, fetch
from fedlabels.data.options import choice
from fedlabels.data.pickles import as_array, load_pickle
from fedlabels.data.roots import Roots, locate
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
_Part = tuple[NDArray[np.uint8], NDArray[np.int64]]


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
    folder = _locate("cifar10", roots, "cifar-10-batches-py", (*_TRAIN_10, "test_batch"), download)
    if folder is None:
        hub = HubSet("uoft-cs/cifar10", image="img")
        return fetch("cifar10", hub, class_names=CLASSES_10, mean=MEAN_10, std=STD_10)
    parts = [_batch(folder / name, b"labels", len(CLASSES_10)) for name in _TRAIN_10]
    train = tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    check_content("cifar10", folder, train[0], MEAN_10)
    return pair(
        "cifar10",
        (train[0], train[1]),
        _batch(folder / "test_batch", b"labels", len(CLASSES_10)),
        class_names=CLASSES_10,
        mean=MEAN_10,
        std=STD_10,
    )


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
    files = ("train", "test", "meta")
    folder = _locate("cifar100", roots, "cifar-100-python", files, download)
    if folder is None:
        hub = HubSet("uoft-cs/cifar100", image="img", label=f"{kind}_label")
        return fetch("cifar100", hub, mean=MEAN_100, std=STD_100)
    classes = _names(folder / "meta", f"{kind}_label_names".encode())
    key = f"{kind}_labels".encode()
    train, test = (_batch(folder / split, key, len(classes)) for split in ("train", "test"))
    check_content("cifar100", folder, train[0], MEAN_100)
    return pair("cifar100", train, test, class_names=classes, mean=MEAN_100, std=STD_100)


def _locate(
    name: str, roots: Roots, layout: str, files: Sequence[str], download: Any
) -> Path | None:
    archive = layout.replace("-batches-py", "-python")
    return locate(
        name,
        roots,
        (layout, f"{name}/{layout}"),
        lambda path: all((path / file).is_file() for file in files),
        remedy=f"curl -L {_SITE}/{archive}.tar.gz | tar xz -C $FEDLABELS_DATA, or set "
        "dataset.options.download=true (pip install datasets pillow)",
        download=download,
    )


def _batch(path: Path, key: bytes, classes: int) -> _Part:
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
