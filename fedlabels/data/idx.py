"""MNIST and Fashion-MNIST in the idx format, plain or gzipped.

Layouts: the flat folder of Debian's ``dataset-fashion-mnist`` and torchvision's
``FashionMNIST/raw`` and ``MNIST/raw``. The checksums of the gzipped files differ between
distributions, so magic, counts, lengths and the mean of the pixels are checked instead.
"""

import gzip
import math
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.arrays import check_content
from fedlabels.data.dataset import DataSource, pair
from fedlabels.data.hub import HubSet, fetch
from fedlabels.data.roots import Roots, find_first, locate
from fedlabels.errors import DataError

_STEMS = {"train": "train", "test": "t10k"}
_IMAGES, _LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"


@dataclass(frozen=True)
class _Family:
    """What differs between the data sets of this format."""

    name: str
    folders: tuple[str, ...]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    remedy: str
    hub: HubSet


_FASHION = _Family(
    name="fashion_mnist",
    folders=("FashionMNIST/raw", "fashion-mnist", "fashion_mnist"),
    class_names=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    # Of the 60,000 training images, pixels scaled to [0, 1].
    mean=(0.2860,),
    std=(0.3530,),
    remedy="apt-get install dataset-fashion-mnist",
    hub=HubSet("zalando-datasets/fashion_mnist"),
)
_MNIST = _Family(
    name="mnist",
    folders=("MNIST/raw", "mnist"),
    class_names=tuple("0123456789"),
    # Of the 60,000 training images, the constants in general use.
    mean=(0.1307,),
    std=(0.3081,),
    remedy="put the four files train-images-idx3-ubyte[.gz], train-labels-idx1-ubyte[.gz], "
    "t10k-images-idx3-ubyte[.gz], t10k-labels-idx1-ubyte[.gz] into $FEDLABELS_DATA/MNIST/raw, "
    "or set dataset.options.download=true (pip install datasets pillow)",
    hub=HubSet("ylecun/mnist"),
)


def read_fashion_mnist(roots: Roots, /, *, download: bool = False) -> DataSource:
    """Read Fashion-MNIST: 60,000 + 10,000 grey images of 28 x 28 pixels, 10 classes of clothing.

    Parameters
    ----------
    roots : Roots
        Where to search.
    download : bool
        Whether to fetch it through ``datasets`` where it is not found.

    Returns
    -------
    DataSource
        Training and test split, uint8 (N, 1, 28, 28).

    Raises
    ------
    DataError
        If the files are missing or damaged.
    """
    return _read(_FASHION, roots, download)


def read_mnist(roots: Roots, /, *, download: bool = False) -> DataSource:
    """Read MNIST: 60,000 + 10,000 grey images of 28 x 28 pixels, the ten digits.

    Parameters
    ----------
    roots : Roots
        Where to search.
    download : bool
        Whether to fetch it through ``datasets`` where it is not found.

    Returns
    -------
    DataSource
        Training and test split, uint8 (N, 1, 28, 28).

    Raises
    ------
    DataError
        If the files are missing or damaged.
    """
    return _read(_MNIST, roots, download)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read one idx file of unsigned bytes, gzipped if its name ends in ``.gz``.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    ndarray of uint8
        Array of the shape that the header states.

    Raises
    ------
    DataError
        If the magic number is wrong or the length is not what the header states.
    """
    raw = _read_bytes(path)
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
        raise DataError(
            f"{path} is no idx file of bytes: it starts with {raw[:4].hex() or 'nothing'}, "
            "expected 000008; get the file again"
        )
    rank = raw[3]
    start = 4 + 4 * rank
    if len(raw) < start:
        raise DataError(f"{path} ends within its header; get the file again")
    shape = tuple(int(n) for n in np.frombuffer(raw, dtype=">u4", count=rank, offset=4))
    if len(raw) - start != math.prod(shape):
        raise DataError(
            f"{path} holds {len(raw) - start} values, its header says {shape}; get the file again"
        )
    return np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(shape).copy()


def _read(family: _Family, roots: Roots, download: bool) -> DataSource:
    folder = locate(
        family.name, roots, family.folders, _is_complete, remedy=family.remedy, download=download
    )
    shared: dict[str, Any] = {
        "class_names": family.class_names,
        "mean": family.mean,
        "std": family.std,
    }
    if folder is None:
        return fetch(family.name, family.hub, **shared)
    train, test = (_split(folder, split) for split in _STEMS)
    _refuse_other(family, folder, train[0])
    return pair(family.name, train, test, **shared)


def _refuse_other(family: _Family, folder: Path, images: NDArray[np.uint8]) -> None:
    """Refuse another set in files of the same names: by its folder, and by what it holds."""
    other = _MNIST if family is _FASHION else _FASHION
    above = {re.sub("[^a-z]", "", part.lower()) for part in folder.absolute().parts[-2:]}
    mine, its = (name.replace("_", "") for name in (family.name, other.name))
    if its in above and mine not in above:
        raise DataError(
            f"dataset={family.name}: {folder} is the folder of {other.name}, whose files have the "
            f"same names; set dataset={other.name}, or rename the folder"
        )
    check_content(family.name, folder, images, family.mean)


def _is_complete(folder: Path) -> bool:
    stems = [f"{stem}-{kind}" for stem in _STEMS.values() for kind in (_IMAGES, _LABELS)]
    return all(_file(folder, stem) is not None for stem in stems)


def _file(folder: Path, stem: str) -> Path | None:
    return find_first((folder / stem, folder / f"{stem}.gz"), Path.is_file)


def _split(folder: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images, labels = (_array(folder, f"{_STEMS[split]}-{kind}") for kind in (_IMAGES, _LABELS))
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise DataError(
            f"{folder}: {split} images of shape {images.shape} and labels of shape {labels.shape} "
            "do not belong together; get the four files again"
        )
    return images[:, None], labels.astype(np.int64)  # (N, 1, H, W), (N,)


def _array(folder: Path, stem: str) -> NDArray[np.uint8]:
    path = _file(folder, stem)
    if path is None:
        raise DataError(f"{folder / stem} vanished while the data set was read")
    return read_idx(path)


def _read_bytes(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); get the file again") from error
