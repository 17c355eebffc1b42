"""Who is which client: a client_id belongs to the key that first took it.

The table is a file of the run folder, `devices.json`, and is in every checkpoint. A key is what
Flower registers a SuperNode by; where SuperNodes have none, a device that restarts has another one
and is known by the number in its state folder.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedlabels.errors import CheckpointError, ConfigError
from fedlabels.machine.files import json_bytes, write_atomic

FILE = "devices.json"
ORDERS = "devices.free"
"""File beside it, with client_ids that are to be freed, one a line."""
REFUSED = 1000
"""Refused devices that the file names, the newest."""


@dataclass(frozen=True)
class Claim:
    """What a device says that it is, and what it is known by.

    Parameters
    ----------
    client_id : int
        Which client it says it is, >= 0.
    key : str
        Fingerprint of its key.
    mark : str
        Digest of the number in its state folder; empty where it said none.
    """

    client_id: int
    key: str
    mark: str = ""

    def same_device(self, other: "Claim") -> bool:
        """Whether both are of one device: of one key, or of one state folder."""
        return self.key == other.key or bool(self.mark and self.mark == other.mark)


class Bindings:
    """The table of a run.

    Parameters
    ----------
    path : Path or None
        Its file; None keeps it in memory.
    before : mapping
        What a checkpoint knows; counts where the file is missing or damaged.
    """

    def __init__(self, path: Path | None = None, before: Mapping[str, Any] | None = None) -> None:
        self._path = path
        self._owners: dict[int, Claim] = {}
        self._refused: dict[str, dict[str, Any]] = {}
        found = None if path is None else _read(path)
        for client_id, entry in ((before or {}) if found is None else found).items():
            self._owners[int(client_id)] = Claim(int(client_id), entry["key"], entry["mark"])

    def problem(self, claim: Claim, present: bool) -> str | None:
        """Return why a device cannot be the client that it says it is; None where it can.

        The owner's key always can. Another key can only where nobody is connected as the client,
        and only with the number of the owner's state folder: it is the owner's replacement, or
        the owner after a restart where SuperNodes have no keys.

        Parameters
        ----------
        claim : Claim
            What it says.
        present : bool
            Whether another node is connected as this client.
        """
        owner = self._owners.get(claim.client_id)
        if owner is None or owner.key == claim.key:
            return None
        who = f"client {claim.client_id} belongs to the device with key {owner.key}"
        if not owner.same_device(claim):
            return (
                f"{who}, not to the one with key {claim.key}: correct client-id, or see 'Replace a "
                "device' in docs/deploy.md"
            )
        return f"{who}, which is connected" if present else None

    def take(self, claim: Claim) -> None:
        """Bind a client to a device that may be it; a device that was another one is it no more."""
        before = dict(self._owners)
        for client_id, owner in before.items():
            if client_id != claim.client_id and owner.same_device(claim):
                del self._owners[client_id]
        bound = self._owners.get(claim.client_id)
        if bound is None or (bound.key == claim.key and claim.mark):
            self._owners[claim.client_id] = claim
        self._refused.pop(claim.key, None)
        if self._owners != before:
            self._write()

    def refuse(self, key: str, problem: str, node: int) -> bool:
        """Note that a device was refused, and say whether that is new."""
        entry = {"node": node, "problem": problem}
        new = self._refused.get(key) != entry
        if new:
            self._refused.pop(key, None)
            self._refused[key] = entry
            while len(self._refused) > REFUSED:
                del self._refused[next(iter(self._refused))]
            self._write()
        return new

    def freed(self) -> list[int]:
        """Free the clients that an operator wants free, and return them."""
        if self._path is None:
            return []
        orders = self._path.with_name(ORDERS)
        try:
            lines = orders.read_text("utf-8").split()
            orders.unlink()
        except FileNotFoundError:
            return []
        wanted = [int(line) for line in lines if line.isdigit()]
        free = [client_id for client_id in wanted if self._owners.pop(client_id, None) is not None]
        if free:
            self._write()
        return free

    def table(self) -> dict[str, dict[str, str]]:
        """Return client_id -> key and mark, for a checkpoint."""
        entries = {str(k): asdict(claim) for k, claim in sorted(self._owners.items())}
        return {k: {n: v for n, v in e.items() if n != "client_id"} for k, e in entries.items()}

    def _write(self) -> None:
        if self._path is not None:
            write_atomic(
                self._path, json_bytes({"clients": self.table(), "refused": self._refused})
            )


def order_free(run_folder: Path, client_id: int) -> str:
    """Ask the server of a run to free a client_id; it does at its next look, or when it resumes.

    Returns
    -------
    str
        The key that the client belongs to so far.

    Raises
    ------
    CheckpointError
        If the folder has no table.
    ConfigError
        If the client belongs to nobody.
    """
    owners = _read(run_folder / FILE)
    if owners is None:
        raise CheckpointError(f"{run_folder} has no {FILE}: is it the run folder of a server?")
    if str(client_id) not in owners:
        known = ", ".join(owners) or "none"
        raise ConfigError(f"client {client_id} belongs to nobody; those that do: {known}")
    with (run_folder / ORDERS).open("a", encoding="utf-8") as file:
        file.write(f"{client_id}\n")
    return owners[str(client_id)]["key"]


def _read(path: Path) -> dict[str, dict[str, str]] | None:
    """Return the owners of a file; None where it is missing or damaged."""
    try:
        owners = json.loads(path.read_bytes())["clients"]
        for client_id, entry in owners.items():
            Claim(int(client_id), str(entry["key"]), str(entry["mark"]))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return dict(owners)
