"""Named arrays as the bytes of a safetensors file: equal arrays give equal bytes."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from fedlabels.errors import CheckpointError, DataError

Arrays = dict[str, NDArray[Any]]


def tensor_bytes(
    arrays: Mapping[str, NDArray[Any]], header: Mapping[str, str] | None = None
) -> bytes:
    """Write arrays as a safetensors file.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Equal arrays give equal bytes, whatever their order.
    header : mapping of str to str, or None
        At most one entry: the library writes several in an order that changes.

    Raises
    ------
    CheckpointError
        If an array has a dtype that cannot be stored.
    """
    # asarray(order="C"): safetensors writes a transposed array in memory order, that is, wrongly;
    # ascontiguousarray would make 0-d arrays 1-d.
    ordered = {name: np.asarray(arrays[name], order="C") for name in sorted(arrays)}
    try:
        return bytes(save(ordered, None if header is None else dict(header)))
    except (SafetensorError, KeyError, ValueError) as error:
        kinds = ", ".join(sorted({str(value.dtype) for value in ordered.values()}))
        raise CheckpointError(
            f"cannot store arrays of dtypes {kinds} ({error}): use numbers or bool"
        ) from error


def tensors_sha256(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the SHA-256 of arrays: of their safetensors file without a header of its own."""
    return hashlib.sha256(tensor_bytes(arrays)).hexdigest()


def read_tensors(path: Path) -> tuple[Arrays, dict[str, str]]:
    """Read a safetensors file.

    Returns
    -------
    dict of str to ndarray, dict of str to str
        Tensors, and what the header says beside them.

    Raises
    ------
    DataError
        If there is none, or it is damaged.
    """
    if not path.is_file():
        is_run = path.name == "model.safetensors" and path.parent.is_dir()
        then = "; a run has it from its first checkpoint on" if is_run else ""
        raise DataError(f"there is no {path}{then}")
    try:
        with safe_open(path, "np") as file:
            header = file.metadata() or {}
        return dict(load(path.read_bytes())), dict(header)
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} cannot be read as safetensors ({error}): restore it") from error
