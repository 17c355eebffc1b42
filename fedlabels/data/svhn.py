"""Street View House Numbers (Netzer et al., 2011), cropped digits in Matlab files.

``train_32x32.mat`` and ``test_32x32.mat`` as torchvision keeps them; label 10 means the digit 0.
The ``extra`` split is not read.
"""

from pathlib import Path
from typing import Any

import numpy as np

from fedlabels.data.dataset import DataSource
from fedlabels.data.hub import HubSet
from fedlabels.data.options import library
from fedlabels.data.published import OR_DOWNLOAD, Part, Published
from fedlabels.data.roots import Roots
from fedlabels.errors import DataError

_FILES = ("train_32x32.mat", "test_32x32.mat")
_SITE = "http://ufldl.stanford.edu/housenumbers"
_SVHN = Published(
    name="svhn",
    folders=("svhn", "SVHN"),
    files=_FILES,
    remedy="curl -L --create-dirs --output-dir $FEDLABELS_DATA/svhn --remote-name-all "
    f"{_SITE}/{{{','.join(_FILES)}}}, {OR_DOWNLOAD}",
    hub=HubSet("ufldl-stanford/svhn", config="cropped_digits"),
    # Of the 73,257 training images, over all pixels of a channel, scaled to [0, 1].
    mean=(0.4377, 0.4438, 0.4728),
    std=(0.1980, 0.2010, 0.1970),
    class_names=tuple("0123456789"),
)


def read_svhn(roots: Roots, /, *, download: bool = False) -> DataSource:
    """Read SVHN: 73,257 + 26,032 colour images of 32 x 32 pixels, the ten digits.

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
        If the files are missing or damaged, or scipy is not installed.
    """
    return _SVHN.read(roots, _read, download=download)


def _read(folder: Path) -> tuple[Part, Part, tuple[str, ...]]:
    train, test = (_read_part(folder / file) for file in _FILES)
    return train, test, _SVHN.class_names


def _read_part(path: Path) -> Part:
    content = _load(path)
    absent = [key for key in ("X", "y") if not isinstance(content.get(key), np.ndarray)]
    if absent:
        raise DataError(f"{path} lacks {' and '.join(absent)}; get the file again")
    x, y = content["X"], content["y"]
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[:3] != (32, 32, 3):
        raise DataError(
            f"{path}: X must be uint8 of shape (32, 32, 3, N), got {x.dtype} {x.shape}; "
            "get the file again"
        )
    if y.size != x.shape[3] or y.dtype.kind not in "iuf":
        raise DataError(f"{path}: {x.shape[3]} images but y is {y.dtype} {y.shape}; get it again")
    labels = y.reshape(-1).astype(np.int64)
    if len(labels) and not 0 <= labels.min() <= labels.max() <= 10:
        raise DataError(f"{path}: labels must be in 1..10, got {labels.min()}..{labels.max()}")
    return np.ascontiguousarray(x.transpose(3, 2, 0, 1)), labels % 10  # (N, 3, 32, 32), (N,)


def _load(path: Path) -> dict[str, Any]:
    matlab = library("scipy.io", reader=_SVHN.name, install="scipy")
    try:
        content: dict[str, Any] = matlab.loadmat(path, variable_names=["X", "y"])
    # scipy has no common class for what a damaged file can raise.
    except Exception as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}: {error}); get the file again"
        ) from error
    return content
