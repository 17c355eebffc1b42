"""Arrays in a ``.npz`` file, written whole or not at all and read without pickle."""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlabels.errors import DataError, writing
from fedlabels.machine.files import replacing

# What a damaged archive makes of itself: a flipped bit can also ask for an unknown compression
# (NotImplementedError) or a password (RuntimeError).
_DAMAGE = (
    OSError,
    ValueError,
    TypeError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


def write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays to a temporary file beside the target, then rename it.

    Parameters
    ----------
    path : Path
        The target; its folder is made if need be.
    arrays : mapping
        Name -> array; no objects.

    Raises
    ------
    DiskError
        If the disk refuses; what was there before is untouched then.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read(path: Path, names: Sequence[str], optional: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """Read named arrays.

    Parameters
    ----------
    path : Path
        The file.
    names : sequence of str
        Arrays that it must hold.
    optional : sequence of str
        Arrays that it may lack.

    Returns
    -------
    dict
        Name -> array.

    Raises
    ------
    DataError
        If the file is missing, damaged or lacks an array.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    try:
        with np.load(path, allow_pickle=False) as archive:
            there = [name for name in optional if name in archive.files]
            return {name: archive[name] for name in (*names, *there)}
    except KeyError as error:
        raise DataError(f"{path} is no federation: it lacks {error}") from error
    except _DAMAGE as error:
        raise DataError(f"{path} is damaged ({error}); make it again") from error
