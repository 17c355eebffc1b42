"""What clients keep between rounds: one file per client and round, committed with the round.

A state is a value. It is read as of the last committed round, so a block that is run again and a
run that is resumed see the same state, whatever was written in between.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from fedlabels.errors import CheckpointError, writing

Arrays = dict[str, NDArray[np.generic]]
States = dict[str, Arrays]
_SEPARATOR = "/"


def flatten(state: Mapping[str, Arrays]) -> Arrays:
    """Join a mapping of trees into named arrays, ``tree/name``."""
    return {
        f"{tree}{_SEPARATOR}{k}": v for tree, arrays in state.items() for k, v in arrays.items()
    }


def unflatten(arrays: Arrays) -> States:
    """Invert `flatten`."""
    state: States = {}
    for name, value in arrays.items():
        tree, _, key = name.partition(_SEPARATOR)
        state.setdefault(tree, {})[key] = value
    return state


class StateStore:
    """States of all clients below one folder, ``<client_id>/<round>.safetensors``.

    Parameters
    ----------
    folder : Path
        Made when the first state is written.
    committed : int
        Last round that counts; files of later rounds are leftovers of a killed run and removed.
    """

    def __init__(self, folder: Path, committed: int = 0) -> None:
        self._folder = folder
        self._rounds: dict[int, list[int]] = {}
        self._unsynced: set[Path] = set()
        for path in sorted(folder.glob("*/*.safetensors")):
            self._index(path, committed)
        for path in folder.glob("*/*.tmp"):
            path.unlink()

    def _index(self, path: Path, committed: int) -> None:
        client_id, round_index = int(path.parent.name), int(path.stem)
        if round_index > committed:
            path.unlink()
        else:
            self._rounds.setdefault(client_id, []).append(round_index)

    def _path(self, client_id: int, round_index: int) -> Path:
        return self._folder / str(client_id) / f"{round_index:08d}.safetensors"

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
            raise CheckpointError(
                f"the state of client {client_id} in {path} is damaged ({error}); resume from an "
                "older checkpoint, or start the run anew"
            ) from error
        return arrays

    def write(self, client_id: int, round_index: int, state: Arrays) -> None:
        """Write a client's state of the running round, atomically; see :meth:`sync`."""
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
        rounds = self._rounds.setdefault(client_id, [])
        if not rounds or rounds[-1] != round_index:
            rounds.append(round_index)

    def sync(self) -> None:
        """Flush what was written to disk: a checkpoint that names these states comes after it.

        A process that is killed loses nothing that it wrote; only a machine that goes down would,
        and then the run goes on from the checkpoint before.
        """
        for path in sorted(self._unsynced):
            if path.exists():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        self._unsynced.clear()

    def prune(self, kept_from: int) -> None:
        """Remove files that no resume from round ``kept_from`` or later can need."""
        for client_id, rounds in self._rounds.items():
            needed = [r for r in rounds if r <= kept_from][-1:] + [
                r for r in rounds if r > kept_from
            ]
            for round_index in set(rounds) - set(needed):
                self._path(client_id, round_index).unlink(missing_ok=True)
            self._rounds[client_id] = needed
