"""What data are, wherever they lie: a hash of their content."""

import hashlib
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.dataset import ArrayDataset, DataSource

_ARRAYS = ("x", "y", "domain", "owner", "given")
_VALUES = ("num_classes", "class_names", "mean", "std", "domain_names", "owner_names")
_CHUNK = 1 << 22  # bytes hashed at once


def content_hash(source: DataSource) -> str:
    """Return the SHA-256 of all that a data set holds.

    Parameters
    ----------
    source : DataSource
        Both splits.

    Returns
    -------
    str
        In hexadecimal; of samples, labels, origins, names and constants, not of the data set's name
        or place. The same on every machine: arrays count as little-endian bytes with dtype and
        shape. About a second or two a GB.
    """
    digest = hashlib.sha256()
    for split in (source.train, source.test):
        _add(digest, split)
    return digest.hexdigest()


def _add(digest: Any, split: ArrayDataset) -> None:
    values = {name: getattr(split, name) for name in _VALUES}
    digest.update(json.dumps(values, sort_keys=True, default=str).encode())
    for name in _ARRAYS:
        array = getattr(split, name)
        if array is not None:
            digest.update(f"{name}{array.dtype.newbyteorder('<').str}{array.shape};".encode())
            _add_array(digest, array)


def _add_array(digest: Any, array: NDArray[Any]) -> None:
    flat = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).reshape(-1)
    raw = flat.view(np.uint8)
    for start in range(0, len(raw), _CHUNK):
        digest.update(raw[start : start + _CHUNK].data)
