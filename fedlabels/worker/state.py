"""What clients keep between rounds: one file per client and round, committed with the round.

A state is a value. It is read as of the last committed round, so a block that is run again and a
run that is resumed see the same state, whatever was written in between.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from fedlabels.errors import CheckpointError, writing
from fedlabels.machine.files import sync_folder

Arrays = dict[str, NDArray[np.generic]]
States = dict[str, Arrays]
_SEPARATOR = "/"
_NOTHING: Arrays = {"": np.zeros(0, dtype=np.uint8)}


def flatten(state: Mapping[str, Arrays]) -> Arrays:
    """Join a mapping of trees into named arrays, ``tree/name``.

    The name of a tree has no ``/``, that of a tensor is not empty; a tree without tensors is an
    empty array ``tree/``.
    """
    return {
        f"{tree}{_SEPARATOR}{k}": v
        for tree, arrays in state.items()
        for k, v in (arrays or _NOTHING).items()
    }


def unflatten(arrays: Arrays) -> States:
    """Invert `flatten`."""
    state: States = {}
    for name, value in arrays.items():
        tree, _, key = name.partition(_SEPARATOR)
        found = state.setdefault(tree, {})
        if key:
            found[key] = value
    return state


class Version(NamedTuple):
    """Which state of a client it is.

    Parameters
    ----------
    round : int
        Round that left it, from 1.
    sha256 : bytes
        Of its file.
    """

    round: int
    sha256: bytes


def pack(versions: Mapping[int, Version]) -> Arrays:
    """Turn client_id -> version into arrays, which stay small for a million clients.

    Returns
    -------
    dict of str to ndarray
        ``client_id`` and ``round``, int64, shape (N,); ``sha256``, uint8, shape (N, 32).
    """
    ids = sorted(versions)
    marks = b"".join(versions[k].sha256 for k in ids)
    return {
        "client_id": np.array(ids, dtype=np.int64),
        "round": np.array([versions[k].round for k in ids], dtype=np.int64),
        "sha256": np.frombuffer(marks, dtype=np.uint8).reshape(len(ids), 32),
    }


def unpack(arrays: Mapping[str, NDArray[Any]]) -> dict[int, Version]:
    """Invert `pack`."""
    ids, rounds = arrays["client_id"].tolist(), arrays["round"].tolist()
    marks = (row.tobytes() for row in arrays["sha256"])
    return {k: Version(r, mark) for k, r, mark in zip(ids, rounds, marks, strict=True)}


def verify(folder: Path, versions: Mapping[int, Version]) -> None:
    """Check that all states that a checkpoint counts on are there, as they were written.

    Parameters
    ----------
    folder : Path
        Of the states.
    versions : mapping of int to Version
        The newest state of every client that has one.

    Raises
    ------
    CheckpointError
        If a file is missing or has another content.
    """
    for client_id, version in sorted(versions.items()):
        path = _path(folder, client_id, version.round)
        try:
            found = hashlib.sha256(path.read_bytes()).digest()
        except OSError as error:
            reason = "is missing" if isinstance(error, FileNotFoundError) else f"({error})"
            raise _unusable(client_id, path, reason) from error
        if found != version.sha256:
            raise _unusable(client_id, path, "is damaged (its SHA-256 is not the checkpoint's)")


def _path(folder: Path, client_id: int, round_index: int) -> Path:
    return folder / str(client_id) / f"{round_index:08d}.safetensors"


def _unusable(client_id: int, path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"the state of client {client_id} in {path} {reason}: restore the file, or delete the "
        "newest folder in checkpoints to resume from the one before, or start the run anew"
    )


class StateStore:
    """States of all clients below one folder, ``<client_id>/<round>.safetensors``.

    Parameters
    ----------
    folder : Path
        Made when the first state is written.
    committed : int
        Last round that counts; files of later rounds are leftovers of a killed run and removed.
    versions : mapping of int to Version or None
        The states that the checkpoint of that round counts on: those of other clients are not
        read. None takes what is there.
    """

    def __init__(
        self, folder: Path, committed: int = 0, versions: Mapping[int, Version] | None = None
    ) -> None:
        self._folder, self._saved = folder, committed
        self._rounds: dict[int, list[int]] = {}
        self._marks: dict[tuple[int, int], bytes] = {}
        self._unsynced: set[Path] = set()
        with writing(folder):
            for path in sorted(folder.glob("*/*")):  # what others keep in the folder is theirs
                numbered = (path.parent.name + path.stem).isdecimal()
                if numbered and path.suffix == ".safetensors":
                    self._index(path, committed, versions)
                elif numbered and path.suffix == ".tmp":
                    path.unlink()
        for client_id, version in (versions or {}).items():
            self._marks[client_id, version.round] = version.sha256

    def _index(self, path: Path, committed: int, versions: Mapping[int, Version] | None) -> None:
        client_id, round_index = int(path.parent.name), int(path.stem)
        known = versions.get(client_id) if versions is not None else None
        if round_index > committed:
            path.unlink()
        elif versions is None or (known is not None and round_index <= known.round):
            self._rounds.setdefault(client_id, []).append(round_index)

    def _path(self, client_id: int, round_index: int) -> Path:
        return _path(self._folder, client_id, round_index)

    @property
    def empty(self) -> bool:
        """Whether no client has a state."""
        return not self._rounds

    def read(self, client_id: int) -> Arrays | None:
        """Return a client's newest state, flat, or None for a client never seen.

        Raises
        ------
        CheckpointError
            If its file is damaged.
        """
        rounds = self._rounds.get(client_id)
        if not rounds:
            return None
        path = self._path(client_id, rounds[-1])
        try:
            arrays: Arrays = load_file(path)
        except Exception as error:
            raise _unusable(client_id, path, f"is damaged ({error})") from error
        return arrays

    def write(self, client_id: int, round_index: int, state: Arrays) -> None:
        """Write a client's state of the running round, atomically; see :meth:`sync`.

        The rounds before are done. Of what they left since the last checkpoint only the newest is
        kept: a run that is interrupted in this round writes its checkpoint of the round before.
        """
        path = self._path(client_id, round_index)
        temporary = path.with_suffix(".tmp")
        # not save_file: its files are the owner's alone, whatever the umask
        content = save({k: np.asarray(v, order="C") for k, v in state.items()})
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_bytes(content)
                temporary.replace(path)
            except OSError:
                temporary.unlink(missing_ok=True)  # whoever ends the run needs the room
                raise
        self._unsynced.add(path)
        self._marks[client_id, round_index] = hashlib.sha256(content).digest()
        rounds = self._rounds.setdefault(client_id, [])
        if not rounds or rounds[-1] != round_index:
            rounds.append(round_index)
            self._drop(client_id, [r for r in rounds[:-2] if r > self._saved])

    def sync(self) -> None:
        """Flush what was written to disk: a checkpoint that names these states comes after it.

        A process that is killed loses nothing that it wrote; only a machine that goes down would,
        and then the run goes on from the checkpoint before.
        """
        with writing(self._folder):
            for path in sorted(self._unsynced):
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            # New names are lost with a folder that is not flushed, and with it the state's file.
            for folder in sorted({path.parent for path in self._unsynced}):
                sync_folder(folder)
            if self._unsynced:
                sync_folder(self._folder)
        self._unsynced.clear()

    def versions(self, round_index: int) -> dict[int, Version]:
        """Return what a checkpoint of a round counts on: each client's newest state up to then."""
        found = {}
        for client_id, rounds in self._rounds.items():
            past = [r for r in rounds if r <= round_index]
            if past:
                found[client_id] = Version(past[-1], self._mark(client_id, past[-1]))
        return found

    def _mark(self, client_id: int, round_index: int) -> bytes:
        """Return the SHA-256 of a state; it is read only where an earlier version wrote it."""
        key = client_id, round_index
        if key not in self._marks:
            self._marks[key] = hashlib.sha256(self._path(*key).read_bytes()).digest()
        return self._marks[key]

    def prune(self, *saved: int) -> None:
        """Remove what no resume can need.

        Parameters
        ----------
        *saved : int
            Rounds whose checkpoints are kept. Of each client the newest state up to each of them
            stays, and what is later than all of them.
        """
        self._saved = max(saved)
        for client_id, rounds in self._rounds.items():
            needed = {max((r for r in rounds if r <= bound), default=0) for bound in saved}
            past = [r for r in rounds if r <= self._saved]
            self._drop(client_id, [r for r in past if r not in needed])

    def _drop(self, client_id: int, gone: Sequence[int]) -> None:
        for round_index in gone:
            path = self._path(client_id, round_index)
            with writing(path):
                path.unlink(missing_ok=True)
            self._unsynced.discard(path)
            self._marks.pop((client_id, round_index), None)
        if gone:
            kept = [r for r in self._rounds[client_id] if r not in gone]
            self._rounds[client_id] = kept
