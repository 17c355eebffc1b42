"""EMNIST (Cohen et al., 2017) in the idx format: handwritten letters and digits.

``emnist-<split>-train-images-idx3-ubyte`` and so on, plain or gzipped, in the flat folder ``gzip``
of the publisher's archive or torchvision's ``EMNIST/raw``. Images are stored transposed, and the
labels of ``letters`` begin at 1.
"""

import string
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.arrays import statistics
from fedlabels.data.dataset import DataSource, pair
from fedlabels.data.idx import read_idx
from fedlabels.data.options import choice
from fedlabels.data.roots import Roots, candidates, find_first, missing
from fedlabels.errors import DataError

_DIGITS, _UPPER, _LOWER = string.digits, string.ascii_uppercase, string.ascii_lowercase
_MERGED = _DIGITS + _UPPER + "abdefghnqrt"  # the other small letters look like their capitals
SPLITS = {
    "balanced": _MERGED,
    "bymerge": _MERGED,
    "byclass": _DIGITS + _UPPER + _LOWER,
    "letters": _UPPER,
    "digits": _DIGITS,
    "mnist": _DIGITS,
}
"""Split -> its classes, a character each."""
_FOLDERS = ("EMNIST/raw", "emnist", "emnist/gzip", "gzip")
_KINDS = ("images-idx3-ubyte", "labels-idx1-ubyte")
_ENDINGS = ("", ".gz")
_SITE = "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip"


def read_emnist(roots: Roots, /, *, split: str = "balanced") -> DataSource:
    """Read EMNIST: grey images of 28 x 28 pixels, white ink on black as in MNIST.

    Parameters
    ----------
    roots : Roots
        Where to search.
    split : {"balanced", "bymerge", "byclass", "letters", "digits", "mnist"}
        Which of its sets, of 47, 47, 62, 26, 10 and 10 classes; ``letters`` takes capital and small
        letters as one class.

    Returns
    -------
    DataSource
        Training and test split, uint8 (N, 1, 28, 28), upright. Constants are those of the training
        split.

    Raises
    ------
    ConfigError
        If there is no such split.
    DataError
        If the files are missing or damaged.
    """
    choice("emnist", "split", split, tuple(SPLITS))
    tried = candidates(roots, _FOLDERS)
    files = [f"emnist-{split}-{part}-{kind}" for part in ("train", "test") for kind in _KINDS]
    folder = find_first(tried, lambda place: all(_path(place, file) for file in files))
    if folder is None:
        raise missing(
            "emnist",
            tried,
            f"put the four files {files[0]}[.gz] and so on of {_SITE} into $FEDLABELS_DATA/emnist",
        )
    arrays = [read_idx(_path(folder, file) or folder / file) for file in files]
    classes = tuple(SPLITS[split])
    train, test = (_part(folder, split, *arrays[start : start + 2]) for start in (0, 2))
    mean, std = statistics(train[0])
    return pair(f"emnist_{split}", train, test, class_names=classes, mean=mean, std=std)


def _path(folder: Path, file: str) -> Path | None:
    return find_first((folder / f"{file}{end}" for end in _ENDINGS), Path.is_file)


def _part(
    folder: Path, split: str, images: NDArray[np.uint8], labels: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise DataError(
            f"{folder}: images of shape {images.shape} and labels of shape {labels.shape} of "
            f"{split!r} do not belong together; get its four files again"
        )
    first = int(split == "letters")
    last = first + len(SPLITS[split]) - 1
    if len(labels) and not first <= labels.min() <= labels.max() <= last:
        raise DataError(
            f"{folder}: labels of {split!r} must be in {first}..{last}, got "
            f"{labels.min()}..{labels.max()}; get its four files again"
        )
    upright = np.ascontiguousarray(images.transpose(0, 2, 1)[:, None])  # (N, 1, H, W)
    return upright, labels.astype(np.int64) - first
