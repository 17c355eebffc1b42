"""Pickled arrays of published data sets, read without running what a pickle may ask for.

Unpickling calls whatever a file names, so a file from the net can run any code. Here only numpy's
arrays, dtypes and scalars are known, and even those are not numpy's own: small records take the
raw bytes, which are then read as plain numbers. Everything else is refused by name before it is
looked up.
"""

import io
import math
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlabels.errors import DataError

_KINDS = "biufSUO"


def load_pickle(path: Path, *, skip_npy_header: bool = False) -> Any:
    """Read a pickle that holds numpy arrays, bytes, text, numbers, lists, tuples and dicts.

    Parameters
    ----------
    path : Path
        The file. Text that Python 2 wrote comes back as bytes.
    skip_npy_header : bool
        Whether the pickle is the body of an ``.npy`` file of objects.

    Returns
    -------
    Any
        The value. Arrays of objects become lists (nested as the array was), an array of objects
        without dimensions becomes the object.

    Raises
    ------
    DataError
        If the file cannot be read or names anything else; nothing of it is run.
    """
    return _load(path, lambda raw: _body(raw) if skip_npy_header else raw)


def load_torch(path: Path) -> Any:
    """Read what ``torch.save`` wrote, as far as it holds no tensors; see :func:`load_pickle`."""
    return _load(path, _zipped)


def _load(path: Path, pickled: Callable[[bytes], bytes]) -> Any:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}); get the file again") from error
    return _unpickle(str(path), raw, pickled)


def load_objects(where: str, raw: bytes) -> Any:
    """Read an ``.npy`` file of objects from memory; see :func:`load_pickle`.

    Parameters
    ----------
    where : str
        Where it comes from, for messages.
    raw : bytes
        The file.
    """
    return _unpickle(where, raw, _body)


def _unpickle(where: str, raw: bytes, pickled: Callable[[bytes], bytes]) -> Any:
    try:
        raw = pickled(raw)
        return _plain(_Unpickler(io.BytesIO(raw), encoding="bytes").load())
    except _Refused as refused:
        raise DataError(
            f"{where} asks for {refused}, which no data set needs: it was not run; "
            "get the file again from its publisher"
        ) from refused
    # A damaged pickle can raise nearly anything while its records are put together.
    except Exception as error:
        raise DataError(
            f"{where} cannot be read ({type(error).__name__}: {error}); get the file again"
        ) from error


class _Refused(Exception):
    """A pickle names something that is not allowed."""


def _body(raw: bytes) -> bytes:
    file = io.BytesIO(raw)
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        _, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        _, _, dtype = np.lib.format.read_array_header_2_0(file)
    if dtype != np.dtype(object):
        raise ValueError(f"an .npy file of objects was expected, this one holds {dtype}")
    return raw[file.tell() :]


def _zipped(raw: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        return archive.read(name)


class _Type:
    """Stands for a numpy dtype: its name and byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any, *_flags: Any) -> None:
        self.code, self.order = _text(code), "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if any(part is not None for part in state[2:5]):
            raise _Refused(f"an array of structures ({self.code})")
        self.order = _text(state[1])

    def dtype(self) -> np.dtype[Any]:
        """Make the real dtype; only plain numbers, text and objects are known."""
        found = np.dtype(self.code)
        if found.kind not in _KINDS:
            raise _Refused(f"an array of type {self.code}")
        order: Any = "=" if self.order == "|" else self.order
        return found.newbyteorder(order)


class _Array:
    """Stands for a numpy array: its shape, type and raw content."""

    __slots__ = ("content", "fortran", "kind", "shape")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.shape, self.kind, self.fortran, self.content = state[-4:]

    def value(self) -> Any:
        """Make the real array, or nested lists of objects."""
        dtype, shape = self.kind.dtype(), tuple(self.shape)
        if dtype == np.dtype(object):
            return _nested([_plain(item) for item in self.content], shape)
        flat = np.frombuffer(_bytes(self.content), dtype=dtype)
        return flat.reshape(shape, order="F" if self.fortran else "C").copy()


class _Scalar:
    """Stands for a numpy scalar."""

    __slots__ = ("content", "kind")

    def __init__(self, kind: _Type, content: Any) -> None:
        self.kind, self.content = kind, content

    def value(self) -> Any:
        """Make the number."""
        dtype = self.kind.dtype()
        if dtype == np.dtype(object):
            raise _Refused("a scalar of type object")
        return np.frombuffer(_bytes(self.content), dtype=dtype)[0].item()


class _Marker:
    """Stands for the class numpy.ndarray, which a pickle names but never needs."""

    __slots__ = ()


class _Call:
    """A function that a pickle may call; it has no attributes that a pickle could set."""

    __slots__ = ("__function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__function = function

    def __call__(self, *arguments: Any) -> Any:
        return self.__function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise _Refused("a change of a function")


def _encode(text: Any, encoding: Any) -> bytes:
    # Python 3 writes bytes this way in pickle protocol 2, always with this one codec.
    if _text(encoding) not in ("latin1", "latin-1"):
        raise _Refused(f"the codec {encoding!r}")
    return str(text).encode("latin1")


class _Unpickler(pickle.Unpickler):
    """Knows numpy's arrays, under the names of numpy 1 and 2, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the record that stands for a name."""
        place = module.replace("numpy._core.", "numpy.core.")
        known: dict[tuple[str, str], Any] = {
            ("numpy", "ndarray"): _Call(_Marker),
            ("numpy", "dtype"): _Call(_Type),
            ("numpy.core.multiarray", "_reconstruct"): _Call(lambda *_: _Array()),
            ("numpy.core.multiarray", "scalar"): _Call(_Scalar),
            ("_codecs", "encode"): _Call(_encode),
        }
        if (place, name) not in known:
            raise _Refused(f"{module}.{name}")
        return known[place, name]


def _plain(value: Any) -> Any:
    if isinstance(value, _Array | _Scalar):
        return value.value()
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)
    if value is None or isinstance(value, bytes | str | int | float):
        return value
    raise _Refused(f"a {type(value).__name__.lstrip('_')}")


def _nested(items: list[Any], shape: tuple[int, ...]) -> Any:
    if len(items) != math.prod(shape):
        raise ValueError(f"{len(items)} objects do not fill an array of shape {shape}")
    if not shape:
        return items[0]
    for size in reversed(shape[1:]):
        items = [items[i : i + size] for i in range(0, len(items), size)]
    return items


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _bytes(value: Any) -> bytes:
    return value.encode("latin1") if isinstance(value, str) else bytes(value)


def as_array(value: Any, dtype: type[Any]) -> NDArray[Any]:
    """Make an array of what :func:`load_pickle` gave for an array or a list of numbers.

    Raises
    ------
    ValueError
        If the value holds no numbers, or is ragged.
    """
    found = np.asarray(value)
    if found.dtype.kind not in "biuf":
        raise ValueError(f"numbers were expected, got {found.dtype}")
    return found.astype(dtype, copy=False)
