"""STL-10 (Coates, Ng and Lee, 2011): few labeled photographs, and many without a label.

``stl10_binary/{train_X,train_y,test_X,test_y,unlabeled_X}.bin``: bytes without a header, three
colours of 96 columns of 96 pixels for each image; labels begin at 1, and the unlabeled images have
none.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.arrays import statistics
from fedlabels.data.dataset import DataSource, pair
from fedlabels.data.options import whole
from fedlabels.data.roots import Roots, candidates, find_first, missing
from fedlabels.errors import DataError

CLASSES = (
    "airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck",
)  # fmt: skip
_FOLDERS = ("stl10_binary", "stl10/stl10_binary", "stl10")
_FILES = ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin")
_UNLABELED = "unlabeled_X.bin"
_SHAPE = (3, 96, 96)
_BYTES = 3 * 96 * 96
_BLOCK = 1024  # images turned at once: a second copy of all would not fit
_SITE = "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz"


def read_stl10(roots: Roots, /, *, unlabeled: bool | int = True) -> DataSource:
    """Read STL-10: 5,000 + 8,000 colour images of 96 x 96 pixels, 10 classes, and 100,000 without.

    Parameters
    ----------
    roots : Roots
        Where to search.
    unlabeled : bool or int
        Whether the unlabeled images are training samples of unknown class (2.8 GB in memory), or
        how many of them, the first ones.

    Returns
    -------
    DataSource
        Training and test split, uint8 (N, 3, 96, 96). Constants are those of the labeled training
        images.

    Raises
    ------
    ConfigError
        If ``unlabeled`` is neither true, false nor a number.
    DataError
        If the files are missing or damaged.
    """
    wanted = None if unlabeled is True else 0
    if not isinstance(unlabeled, bool):
        wanted = whole("stl10", "unlabeled", unlabeled, low=0)
    tried = candidates(roots, _FOLDERS)
    folder = find_first(tried, lambda place: all((place / file).is_file() for file in _FILES))
    if folder is None:
        raise missing("stl10", tried, f"curl -L {_SITE} | tar xz -C $FEDLABELS_DATA")
    (x, y), test = (_part(folder, split) for split in ("train", "test"))
    mean, std = statistics(x)
    extra = _unlabeled(folder, wanted)
    if extra is not None:
        unknown = np.full(len(extra), -1, dtype=np.int64)
        x, y = _images(extra, x), np.concatenate([y, unknown])
    return pair("stl10", (x, y), test, class_names=CLASSES, mean=mean, std=std)


def _part(folder: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images = _raw(folder / f"{split}_X.bin")
    path = folder / f"{split}_y.bin"
    labels = np.fromfile(path, dtype=np.uint8)
    if len(labels) != len(images) or not len(labels):
        raise DataError(
            f"{path} has {len(labels)} labels for {len(images)} images; get the files again"
        )
    if not 1 <= labels.min() <= labels.max() <= len(CLASSES):
        raise DataError(
            f"{path}: labels must be in 1..{len(CLASSES)}, got {labels.min()}..{labels.max()}; "
            "get the files again"
        )
    return _images(images), labels.astype(np.int64) - 1


def _raw(path: Path) -> NDArray[np.uint8]:
    """Return the images of a file as they are stored, shape (N, 3, columns, rows)."""
    size = path.stat().st_size
    if size % _BYTES:
        raise DataError(
            f"{path} has {size} bytes, no multiple of the {_BYTES} of an image; get it again"
        )
    if not size:
        return np.zeros((0, *_SHAPE), dtype=np.uint8)
    return np.memmap(path, dtype=np.uint8, mode="r").reshape(-1, *_SHAPE)


def _unlabeled(folder: Path, wanted: int | None) -> NDArray[np.uint8] | None:
    if wanted == 0:
        return None
    path = folder / _UNLABELED
    if not path.is_file():
        raise DataError(
            f"{path} does not exist: get it with the others ({_SITE}), or set "
            "dataset.options.unlabeled=false"
        )
    images = _raw(path)
    if wanted is not None and wanted > len(images):
        raise DataError(
            f"{path} has {len(images):,} images, dataset.options.unlabeled={wanted} asks for more"
        )
    return images[:wanted]


def _images(
    stored: NDArray[np.uint8], before: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Turn stored images upright, shape (N, 3, H, W), behind those that are so already."""
    start = 0 if before is None else len(before)
    x = np.empty((start + len(stored), *_SHAPE), dtype=np.uint8)
    if before is not None:
        x[:start] = before
    for place in range(0, len(stored), _BLOCK):
        block = stored[place : place + _BLOCK].transpose(0, 1, 3, 2)
        x[start + place : start + place + len(block)] = block
    return x
