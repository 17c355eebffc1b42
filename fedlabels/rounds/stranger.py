"""Arrays that anybody may have made: nothing is allocated that is not due."""

from fedlabels import telemetry

telemetry.disable()  # before Flower is imported

# ruff: noqa: E402
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

from fedlabels.errors import WireError
from fedlabels.rounds.job import Arrays

_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?(?:b1|[iu][1248]|f[248]))', 'fortran_order': (False|True),"
    rb" 'shape': \(((?:[0-9]{1,18}(?:, ?[0-9]{1,18})*,?)?)\),? ?\} *\n"
)
_LONGEST_HEADER, _MOST_AXES = 2048, 32


def from_stranger(record: ArrayRecord, like: Mapping[str, NDArray[Any]] | None = None) -> Arrays:
    """Turn a record that anybody may have made into named arrays.

    The header of every array is read first, by a parser that knows numbers only; nothing is
    allocated for an array that is not of the right name, type and shape, or whose bytes are not
    all there.

    Parameters
    ----------
    record : flwr.app.ArrayRecord
        The record.
    like : mapping of str to ndarray or None
        Arrays of the names, shapes and dtypes that are due; None takes any.

    Returns
    -------
    dict of str to ndarray
        Copies.

    Raises
    ------
    WireError
        If an array is damaged, is not what it says it is, or not what is due.
    """
    if like is not None and set(record) != set(like):
        wrong = sorted(map(str, set(record) ^ set(like)))
        raise WireError(f"it has other tensors than are due: {', '.join(wrong[:3])[:200]}")
    return {
        k: _from_bytes(k, array, None if like is None else like[k]) for k, array in record.items()
    }


def _from_bytes(name: str, array: Array, like: NDArray[Any] | None) -> NDArray[Any]:
    data = array.data
    version = data[6:8] if data[:6] == b"\x93NUMPY" else b""
    wide = {b"\x01\x00": 2, b"\x02\x00": 4}.get(version)
    start = 0 if wide is None else 8 + wide
    size = int.from_bytes(data[8:start], "little") if start else 0
    found = _HEADER.fullmatch(data[start : start + size]) if 0 < size <= _LONGEST_HEADER else None
    if found is None:
        raise WireError(f"array {name!r} cannot be read: it has no header of a plain array")
    dtype = np.dtype(found[1].decode())
    shape = tuple(int(length) for length in found[3].split(b",") if length.strip())
    if array.dtype != str(dtype) or tuple(array.shape) != shape:
        raise WireError(f"array {name!r} is not what it says: {array.dtype}{tuple(array.shape)}")
    if like is not None and (dtype != like.dtype or shape != like.shape):
        raise WireError(f"tensor {name!r} is {dtype}{shape}, due is {like.dtype}{like.shape}")
    entries = math.prod(shape)
    if len(shape) > _MOST_AXES or len(data) - start - size != entries * dtype.itemsize:
        raise WireError(f"array {name!r} cannot be read: it is cut or has bytes too many")
    flat = np.frombuffer(data, dtype, entries, start + size)
    value = flat.reshape(shape, order="F" if found[2] == b"True" else "C")
    return np.array(value, dtype=dtype.newbyteorder("="), order="C")
