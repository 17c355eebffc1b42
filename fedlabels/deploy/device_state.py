"""What a device remembers between rounds, on its own disk.

The files are those of a simulation, ``<client_id>/<round>.safetensors``; beside them ``owner.json``
says to which run and client they belong. A state that is damaged or belongs to another run is set
aside, never deleted, and the device takes part as one that is new.
"""

import json
import time
from pathlib import Path

from fedlabels.errors import CheckpointError, ConfigError
from fedlabels.simulation.state import Arrays, StateStore

OWNER = "owner.json"
FORMAT = 1


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
        What had to be set aside, for the server's log.

    Raises
    ------
    ConfigError
        If the folder cannot be written.
    """

    def __init__(self, folder: Path, run: str, client_id: int) -> None:
        self._folder, self._run, self._client = folder, run, client_id
        self.notes: list[str] = []
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
            return self._store.read(self._client)
        except CheckpointError as error:
            self._set_aside(f"damaged ({error})")
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
        self._store.write(self._client, round_index, state)
        self._store.sync()
        self._store.prune(kept_from)

    def _claim(self) -> None:
        file, mine = self._folder / OWNER, self._identity()
        files = [*self._folder.glob("*/*.safetensors")]
        if file.exists() or files:
            found = _read(file)
            if found == mine:
                return
            said = "of unknown origin" if found is None else f"of run {found.get('run')}, client "
            self._set_aside(said if found is None else f"{said}{found.get('client_id')}")
        temporary = file.with_suffix(".tmp")
        temporary.write_text(json.dumps(mine))
        temporary.replace(file)

    def _identity(self) -> dict[str, object]:
        return {"format": FORMAT, "run": self._run, "client_id": self._client}

    def _set_aside(self, what: str) -> None:
        aside = self._folder / "aside" / time.strftime("%Y%m%d-%H%M%S")
        while aside.exists():
            aside = aside.with_name(f"{aside.name}x")
        aside.mkdir(parents=True)
        for entry in sorted(self._folder.iterdir()):
            if entry.name == OWNER or entry.name.isdigit():
                entry.rename(aside / entry.name)
        self.notes.append(f"the state in {self._folder} was {what}; it is now in {aside}")


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
        If the run or the client has no state, or there is one already.
    """
    try:
        run = str(json.loads((run_folder / "manifest.json").read_bytes())["run_id"])
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{run_folder} is no run folder ({error})") from error
    states = sorted((run_folder / "state" / str(client_id)).glob("*.safetensors"))
    if not states:
        raise CheckpointError(
            f"{run_folder} has no state of client {client_id}: the method keeps none, or the client"
            " never took part; its device starts as a new one"
        )
    if [*state_dir.glob("*/*.safetensors")]:
        raise CheckpointError(f"{state_dir} holds a state already: empty it or give another folder")
    (state_dir / str(client_id)).mkdir(parents=True, exist_ok=True)
    for path in states:
        target = state_dir / str(client_id) / path.name
        temporary = target.with_suffix(".part")
        temporary.write_bytes(path.read_bytes())
        temporary.replace(target)
    owner = {"format": FORMAT, "run": run, "client_id": client_id}
    (state_dir / OWNER).write_text(json.dumps(owner))
    return state_dir / str(client_id) / states[-1].name


def _read(file: Path) -> dict[str, object] | None:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
