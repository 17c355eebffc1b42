"""MNIST and Fashion-MNIST in the idx format, plain or gzipped.

Layouts: the flat folder of Debian's ``dataset-fashion-mnist`` and torchvision's
``FashionMNIST/raw`` and ``MNIST/raw``. The checksums of the gzipped files differ between
distributions, so magic, counts, lengths and the mean of the pixels are checked instead.
"""

import gzip
import math
import re
import zlib
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.dataset import DataSource
from fedlabels.data.hub import HubSet
from fedlabels.data.published import OR_DOWNLOAD, Part, Published
from fedlabels.data.roots import Roots
from fedlabels.errors import DataError

_STEMS = {"train": "train", "test": "t10k"}
_KINDS = ("images-idx3-ubyte", "labels-idx1-ubyte")
_FILES = tuple(f"{stem}-{kind}" for stem in _STEMS.values() for kind in _KINDS)
_ENDINGS = ("", ".gz")


_FASHION = Published(
    name="fashion_mnist",
    folders=("FashionMNIST/raw", "fashion-mnist", "fashion_mnist"),
    files=_FILES,
    endings=_ENDINGS,
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
_MNIST = Published(
    name="mnist",
    folders=("MNIST/raw", "mnist"),
    files=_FILES,
    endings=_ENDINGS,
    class_names=tuple("0123456789"),
    # Of the 60,000 training images, the constants in general use.
    mean=(0.1307,),
    std=(0.3081,),
    remedy="put the four files train-images-idx3-ubyte[.gz], train-labels-idx1-ubyte[.gz], "
    "t10k-images-idx3-ubyte[.gz], t10k-labels-idx1-ubyte[.gz] into $FEDLABELS_DATA/MNIST/raw, "
    + OR_DOWNLOAD,
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
    return _FASHION.read(roots, partial(_read, _FASHION), download=download)


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
    return _MNIST.read(roots, partial(_read, _MNIST), download=download)


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


def _read(published: Published, folder: Path) -> tuple[Part, Part, tuple[str, ...]]:
    train, test = (_split(published, folder, split) for split in _STEMS)
    _refuse_other(published, folder)
    return train, test, published.class_names


def _refuse_other(published: Published, folder: Path) -> None:
    """Refuse the folder of another set, whose files have the same names."""
    other = _MNIST if published is _FASHION else _FASHION
    above = {re.sub("[^a-z]", "", part.lower()) for part in folder.absolute().parts[-2:]}
    name, other_name = (one.name.replace("_", "") for one in (published, other))
    if other_name in above and name not in above:
        raise DataError(
            f"dataset={published.name}: {folder} is the folder of {other.name}, whose files have "
            f"the same names; set dataset={other.name}, or rename the folder"
        )


def _split(published: Published, folder: Path, split: str) -> Part:
    images, labels = (_array(published, folder, f"{_STEMS[split]}-{kind}") for kind in _KINDS)
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise DataError(
            f"{folder}: {split} images of shape {images.shape} and labels of shape {labels.shape} "
            "do not belong together; get the four files again"
        )
    return images[:, None], labels.astype(np.int64)  # (N, 1, H, W), (N,)


def _array(published: Published, folder: Path, file: str) -> NDArray[np.uint8]:
    path = published.path(folder, file)
    if path is None:
        raise DataError(f"{folder / file} vanished while the data set was read")
    return read_idx(path)


def _read_bytes(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); get the file again") from error
