"""Named arrays as the bytes of a safetensors file: equal arrays give equal bytes."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save

from fedlabels.errors import CheckpointError


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
