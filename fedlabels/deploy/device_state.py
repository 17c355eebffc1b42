"""What a device remembers between rounds, on its own disk.

The files are those of a simulation, ``<client_id>/<round>.safetensors``; beside them ``owner.json``
says to which run and client they belong, and ``device.json`` holds a number by which the server
knows the device again. A file holds the SHA-256 of its state, too: no checkpoint of the server's
knows it. A state that is damaged or belongs to another run is set aside, the newest few of them are
kept, and the device takes part as one that is new. Whatever else lies in the folder is left alone,
and a folder that holds only other things is not taken.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import time
from pathlib import Path

import numpy as np

from fedlabels.errors import CheckpointError, ConfigError
from fedlabels.worker.state import Arrays, StateStore, verify

OWNER, DEVICE, ASIDE = "owner.json", "device.json", "aside"
SUM = "sha256"
"""Array of a state's file beside those of the state, whose names have a ``/``."""
FORMAT = 1
KEPT = 5
"""States that were set aside and are kept, the newest."""
_OURS = re.compile(r"(owner|device)\.(json|tmp)|aside|[0-9]+")
_SYSTEM = re.compile(r"\..*|lost\+found")  # of file systems and desktops
_STAMP = re.compile(r"[0-9]{8}-[0-9]{6}x*")


class DeviceState:
    """The state folder of one device.

    Parameters
    ----------
    folder : Path
        Made when it does not exist.
    run : str
        Name of the run.
    client_id : int
        Which client this device is.

    Attributes
    ----------
    notes : list of str
        What had to be set aside, and where it is; for the device's own log.
    kinds : list of str
        The same without names; for the server's log.

    Raises
    ------
    ConfigError
        If the folder cannot be written, or holds other things and no state.
    """

    def __init__(self, folder: Path, run: str, client_id: int) -> None:
        self._folder, self._run, self._client = folder, run, client_id
        self.notes: list[str] = []
        self.kinds: list[str] = []
        stranger = foreign(folder)
        if stranger is not None:
            raise ConfigError(
                f"state-dir {folder} holds {stranger.name}, which is no device's state: give an "
                "empty folder, or one that does not exist yet"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._claim()
        except OSError as error:
            raise ConfigError(
                f"state-dir {folder} cannot be used ({error}): give a folder on a disk that this "
                "device may write to and that outlives restarts"
            ) from error

    def read(self, committed: int) -> Arrays | None:
        """Return the newest state, flat; None for a new device.

        Parameters
        ----------
        committed : int
            Last round whose state counts. Later ones are removed: the server has gone back to an
            older checkpoint.
        """
        self._store = StateStore(self._folder, committed)
        try:
            kept = self._store.read(self._client)
            return None if kept is None else unsealed(kept)
        except CheckpointError as error:
            self._set_aside("damaged", f"damaged ({error})")
            self._claim()
            self._store = StateStore(self._folder, committed)
            return None

    def write(self, round_index: int, state: Arrays, kept_from: int) -> None:
        """Write a round's state, atomically and to disk, after `read`; remove what nobody needs.

        Parameters
        ----------
        round_index : int
            The round.
        state : Arrays
            Flat.
        kept_from : int
            The oldest round that the server may go back to.
        """
        self._store.write(self._client, round_index, sealed(state))
        self._store.sync()
        self._store.prune(kept_from)

    def mark(self) -> str:
        """Return the number by which the server knows this device again; made at the first call."""
        file = self._folder / DEVICE
        known = (_read(file) or {}).get("mark")
        if isinstance(known, str) and known:
            return known
        identity = secrets.token_hex(16)
        _write(file, {"format": FORMAT, "mark": identity})
        return identity

    def _claim(self) -> None:
        file, own = self._folder / OWNER, self._identity()
        if file.exists() or states(self._folder):
            found = _read(file)
            if found == own:
                return
            if found is None:
                self._set_aside("of unknown origin", "of unknown origin")
            else:
                text = f"of run {found.get('run')}, client {found.get('client_id')}"
                self._set_aside("of another run or client", text)
        _write(file, own)

    def _identity(self) -> dict[str, object]:
        return {"format": FORMAT, "run": self._run, "client_id": self._client}

    def _set_aside(self, kind: str, what: str) -> None:
        place = self._folder / ASIDE
        place.mkdir(exist_ok=True)
        stamp, before = time.strftime("%Y%m%d-%H%M%S"), _stamped(place)
        if before and before[-1].name >= stamp:
            stamp = f"{before[-1].name}x"
        aside = place / stamp
        aside.mkdir()
        for entry in sorted(self._folder.iterdir()):
            if entry.name == OWNER or _number(entry.name):
                entry.rename(aside / entry.name)
        for old in _stamped(place)[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        self.notes.append(f"the state in {self._folder} was {what}; it is now in {aside}")
        self.kinds.append(f"its state was {kind}, and was set aside")


def sealed(state: Arrays) -> Arrays:
    """Return a state with its checksum, as a file holds it."""
    return {**state, SUM: np.frombuffer(_sha256(state), dtype=np.uint8)}


def unsealed(held: Arrays) -> Arrays:
    """Return the state that a file holds.

    One without a checksum is taken as it is: earlier versions and simulations write none.

    Raises
    ------
    CheckpointError
        If the checksum is not the state's.
    """
    state = dict(held)
    digest = state.pop(SUM, None)
    strange = next((name for name in state if "/" not in name), None)
    if strange is not None:
        raise CheckpointError(f"it holds {strange!r}, which is no part of a state")
    if digest is not None and digest.tobytes() != _sha256(state):
        raise CheckpointError("its SHA-256 is not that of its content")
    return state


def _sha256(state: Arrays) -> bytes:
    found = hashlib.sha256()
    for name, value in sorted(state.items()):
        found.update(f"{name} {value.dtype.name} {value.shape}\n".encode())
        found.update(value.tobytes())
    return found.digest()


def states(folder: Path) -> list[Path]:
    """Return the states in a folder, by client and round; files of others are none."""
    found = [p for p in folder.glob("*/*.safetensors") if _number(p.parent.name)]
    return sorted((p for p in found if _number(p.stem)), key=lambda p: (int(p.parent.name), p.stem))


def foreign(folder: Path) -> Path | None:
    """Return something that is not of a device's state, in a folder that holds nothing of one."""
    if not folder.is_dir() or (folder / OWNER).exists():
        return None
    entries = [e for e in sorted(folder.iterdir()) if not _SYSTEM.fullmatch(e.name)]
    return next((e for e in entries if not _OURS.fullmatch(e.name)), None)


def _stamped(aside: Path) -> list[Path]:
    """Return what was set aside, from old to new."""
    return sorted(entry for entry in aside.iterdir() if _STAMP.fullmatch(entry.name))


def _number(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _write(file: Path, values: dict[str, object]) -> None:
    temporary = file.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as text:
        json.dump(values, text)
    temporary.replace(file)


def adopt(run_folder: Path, client_id: int, state_dir: Path) -> Path:
    """Carry the state of a simulated client to its device.

    Parameters
    ----------
    run_folder : Path
        The simulation's; the deployed server resumes it.
    client_id : int
        Which client the device is.
    state_dir : Path
        The device's state folder; must not hold a state yet.

    Returns
    -------
    Path
        The state that was copied.

    Raises
    ------
    CheckpointError
        If the run or the client has no state, it is not the one that the newest checkpoint counts
        on, or there is one already.
    """
    from fedlabels.run.folder.checkpoint import newest_checkpoint

    try:
        run = str(json.loads((run_folder / "manifest.json").read_bytes())["run_id"])
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{run_folder} is no run folder ({error})") from error
    found = sorted((run_folder / "state" / str(client_id)).glob("*.safetensors"))
    if not found:
        raise CheckpointError(
            f"{run_folder} has no state of client {client_id}: the method keeps none, or the client"
            " never took part; its device starts as a new one"
        )
    newest = newest_checkpoint(run_folder)
    known = (newest.states if newest else None) or {}
    verify(run_folder / "state", {k: known[k] for k in {client_id} & known.keys()})
    if (stranger := foreign(state_dir)) is not None:
        raise CheckpointError(f"{state_dir} holds {stranger.name}: give an empty folder")
    if states(state_dir):
        raise CheckpointError(f"{state_dir} holds a state already: empty it or give another folder")
    (state_dir / str(client_id)).mkdir(parents=True, exist_ok=True)
    for path in found:
        target = state_dir / str(client_id) / path.name
        temporary = target.with_suffix(".tmp")
        temporary.write_bytes(path.read_bytes())
        temporary.replace(target)
    _write(state_dir / OWNER, {"format": FORMAT, "run": run, "client_id": client_id})
    return state_dir / str(client_id) / found[-1].name


def _read(file: Path) -> dict[str, object] | None:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
