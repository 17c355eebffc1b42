"""Who holds which samples, from files as papers and other tools publish them.

Every reader gives lists of sample indices by client, or one value a sample; what a file means is
told by its name and its keys alone, and what leaves a doubt is refused.
"""

import csv
import hashlib
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlabels.errors import DataError
from fedlabels.federation.federation import Federation
from fedlabels.federation.ragged import Indices, Ragged

FORMATS = (
    ".json, .npz, .npy, .txt (FedML), .csv, .pth or .pt (torch.save), .pkl, a folder of CSV files, "
    "a run folder"
)
RUN = "federation.npz"  # of a run folder
_NUMBERED = re.compile(r"(?:client[_-]?)?([0-9]+)")
_ENTRY = re.compile(r"([0-9]+)\s*:\s*\[([0-9,\s]*)\]")


@dataclass(frozen=True)
class Lists:
    """Sample indices by client.

    Parameters
    ----------
    lists : Ragged
        In the order of the clients' numbers; nothing is checked but that they are whole numbers.
    names : tuple of str
        One name a client; none where the file numbers them from 0.
    """

    lists: Ragged
    names: tuple[str, ...] = ()

    def shown(self, client: int) -> str:
        """Return a client's name or number, for messages."""
        return repr(self.names[client]) if self.names else str(client)


Content = Lists | NDArray[Any] | Federation
"""What a file holds: lists by client, one flat array, or another run's federation."""


def read_content(key: str, path: str) -> Content:
    """Read a file, or a folder, of any format.

    Parameters
    ----------
    key : str
        The setting that names it, for messages.
    path : str
        The file or folder.

    Raises
    ------
    DataError
        If it is missing, damaged, or holds anything else.
    """
    place = Path(path)
    if not place.exists():
        raise DataError(f"{key}={path} does not exist; give {FORMATS}")
    try:
        return _read(place)
    except DataError as error:
        raise DataError(f"{key}={path}: {error}") from error
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{key}={path} cannot be read ({error}); make it again") from error


def content_sha256(path: Path) -> str:
    """Fingerprint a file, or the files of a folder that :func:`read_content` reads.

    Parameters
    ----------
    path : Path
        The file or folder.

    Returns
    -------
    str
        SHA-256 in hexadecimal, of a folder that of its files' names and contents.
    """
    if not path.is_dir():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    if (path / RUN).is_file():
        return content_sha256(path / RUN)
    lines = [f"{file.name} {content_sha256(file)}" for file in _tables(path)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _read(path: Path) -> Content:
    if path.is_dir():
        return _folder(path)
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return _npz(path)
    if suffix == ".npy":
        with path.open("rb") as file:
            kind = _npy_kind(file)
        return _content(_pickled(path, skip_npy_header=True) if kind == "O" else np.load(path))
    if suffix == ".json":
        return _content(json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once))
    if suffix == ".txt":
        return _content(_fedml(path.read_text(encoding="utf-8")))
    if suffix == ".csv":
        return _column(path)
    if suffix in (".pth", ".pt"):
        return _content(_pickled(path, torch=zipfile.is_zipfile(path)))
    if suffix in (".pkl", ".pickle"):
        return _content(_pickled(path))
    raise DataError(f"is none of {FORMATS}")


def _pickled(path: Path, *, torch: bool = False, skip_npy_header: bool = False) -> Any:
    """Read a pickle without running what it may ask for."""
    # here, because it brings torch, which nothing else of this room needs
    from fedlabels.data.pickles import load_pickle, load_torch

    return load_torch(path) if torch else load_pickle(path, skip_npy_header=skip_npy_header)


def _npy_kind(file: Any) -> str:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0
    header = read if version == (1, 0) else np.lib.format.read_array_header_2_0
    return str(header(file)[2].kind)


def _folder(path: Path) -> Content:
    if (path / RUN).is_file():
        return Federation.load(path / RUN)
    files = _tables(path)
    if not files:
        below = sorted(str(p.parent.relative_to(path)) for p in path.glob("**/client_*.csv"))
        hint = f"; give the folder that holds them: {below[0]}" if below else ""
        raise DataError(f"holds neither {RUN} of a run nor a CSV file for each client{hint}")
    return _by_name({file.stem: _column(file) for file in files})


def _tables(path: Path) -> list[Path]:
    """Return the CSV files of the clients: those called so, else all of them."""
    return sorted(path.glob("client_*.csv")) or sorted(path.glob("*.csv"))


def _column(path: Path) -> Indices:
    """Read the first column of a CSV file; a first line that is no number is its head."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        cells = [row[0].strip() for row in csv.reader(file) if row and row[0].strip()]
    body = cells[1:] if cells and not _is_number(cells[0]) else cells
    for line, cell in enumerate(body, start=len(cells) - len(body) + 1):
        if not _is_number(cell):
            raise DataError(
                f"{path.name}, entry {line}: {cell!r} is no index of a training sample; the first "
                "column is to hold whole numbers"
            )
    return np.array([int(cell) for cell in body], dtype=np.int64)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?[0-9]{1,18}", text) is not None


def _npz(path: Path) -> Content:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    if {"labeled_index", "labeled_offsets"} <= arrays.keys():
        return Federation.load(path)
    for only in ("owner", "labeled"):
        if arrays.keys() == {only}:
            return np.asarray(arrays[only])
    if arrays.keys() == {"indices", "offsets"}:
        return Lists(Ragged(*(_whole(arrays[name], name) for name in ("indices", "offsets"))))
    return _by_name(arrays)


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict, without a key that stands twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DataError(f"client {twice!r} stands in it twice; join its lists")
    return found


def _fedml(text: str) -> dict[str, Any]:
    """Read a map as FedML writes it: ``0: [``, indices with commas, ``]``."""
    rest = re.sub(r"[{},\s]", "", _ENTRY.sub("", text))
    if rest:
        raise DataError(
            f"is no map of FedML: {rest[:40]!r} stands beside entries of the form '0: [ 4, 8 ]'"
        )
    entries = [(number, cells.replace(",", " ").split()) for number, cells in _ENTRY.findall(text)]
    return _once([(number, [int(cell) for cell in cells]) for number, cells in entries])


def _content(value: Any) -> Content:
    """Understand what JSON or a pickle holds."""
    if isinstance(value, Mapping):
        if isinstance(value.get("data_partition"), Mapping):  # RSCFed keeps other lists beside it
            value = value["data_partition"]
        return _by_name({_text(key): item for key, item in value.items()})
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, list | tuple):
        if any(isinstance(item, list | tuple | np.ndarray) for item in value):
            return Lists(Ragged.from_lists([_whole(x, f"client {k}") for k, x in enumerate(value)]))
        return np.asarray(value) if value else np.zeros(0, dtype=np.int64)
    raise DataError(f"holds a {type(value).__name__}, not lists of sample indices by client")


def _text(key: Any) -> str:
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)


def _by_name(parts: Mapping[str, Any]) -> Lists:
    """Order clients by number where all have one, else as they stand."""
    if not parts:
        raise DataError("names no client")
    numbers = {name: _NUMBERED.fullmatch(name) for name in parts}
    order = list(parts)
    if all(numbers.values()):
        order.sort(key=lambda name: int(numbers[name].group(1)))  # type: ignore[union-attr]
    plain = all(
        match is not None and int(match.group(1)) == place
        for place, match in enumerate(numbers[name] for name in order)
    )
    lists = Ragged.from_lists([_whole(parts[name], f"client {name}") for name in order])
    return Lists(lists, () if plain else tuple(order))


def _whole(value: Any, who: str) -> Indices:
    """Return a list of whole numbers >= 0."""
    try:
        found = np.asarray(value)
    except ValueError as error:  # lists of different lengths inside
        raise DataError(f"{who} has no flat list of sample indices") from error
    if not found.size:
        return np.zeros(0, dtype=np.int64)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise DataError(
            f"{who} is to have a flat list of whole numbers, its sample indices, got "
            f"{found.dtype} of shape {found.shape}"
        )
    if int(found.min()) < 0:
        raise DataError(f"{who} names sample {int(found.min())}; samples are numbered from 0")
    return found.astype(np.int64)
