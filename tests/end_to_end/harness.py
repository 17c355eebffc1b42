"""Runs of tiny federations in this process: settings, worlds with other clients, fingerprints."""

import contextlib
import csv
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from fedlabels.cohort import Client
from fedlabels.machine.tensors import read_tensors, tensors_sha256
from fedlabels.run import file_sha256, rounds_hash
from fedlabels.run import main as entry
from fedlabels.run.callbacks import Callback
from fedlabels.run.world import World
from fedlabels.worker.population import Group, Population

REPO = Path(__file__).resolve().parents[2]
TINY = (
    "backend=serial", "dataset=digits", "model=mlp", "model.hidden=[32]", "clients=10",
    "per_round=5", "partition.alpha=1.0", "labels.fraction=0.5",
)  # fmt: skip
FEDAVG = (*TINY, "method=fedavg", "training.lr=0.1", "training.steps=20", "rounds=4")

logging.getLogger("flwr").setLevel(logging.WARNING)


def config_of(*overrides: str) -> dict[str, Any]:
    """Compose and check settings as ``run_sim.py`` does."""
    return entry.compose_settings(overrides)


def with_client(client: Client, *, also: Client | None = None) -> Callable[[World], World]:
    """Change who is simulated; ``also`` becomes every second client, as a group of its own."""

    def changed(world: World) -> World:
        first = world.population.groups[0]
        groups = (Group(client, first.model, first.settings),)
        members = world.population.members.copy()
        if also is not None:
            groups += (Group(also, first.model, first.settings),)
            members[1::2] = 1
        return replace(world, client=client, population=Population(groups, members))

    return changed


def simulate(
    folder: Path,
    config: dict[str, Any],
    change: Callable[[World], World] = lambda world: world,
    *,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Run settings in a folder and return the last round's record."""
    build = entry.build_world
    with mock.patch.object(entry, "build_world", lambda c: change(build(c))):
        return entry.execute(
            {**config, "resume": str(folder) if resume else None}, folder, callbacks=list(callbacks)
        )


def model_print(folder: Path) -> str:
    """Fingerprint the tensors of a run's model: its header also says which method made it."""
    return tensors_sha256(read_tensors(folder / "model.safetensors")[0])


def prints(folder: Path) -> tuple[str, str]:
    """Fingerprint the model and the rounds of a run."""
    return model_print(folder), rounds_hash(folder / "rounds.csv")


def table(folder: Path, name: str = "rounds") -> list[dict[str, str]]:
    """Read a table of a run."""
    with (folder / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def column(folder: Path, name: str) -> list[float]:
    """Read one column of the rounds; blanks are left out."""
    return [float(row[name]) for row in table(folder) if row.get(name)]


def newest_states(folder: Path) -> dict[str, str]:
    """Return the hash of every client's newest state; a resumed run may keep an older one, too."""
    found = contents(folder / "state")
    return {Path(name).parent.name: f"{Path(name).name} {found[name]}" for name in sorted(found)}


def contents(folder: Path) -> dict[str, str]:
    """Fingerprint every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): file_sha256(path) for path in files}


@contextlib.contextmanager
def changed_once(path: Path, position: int) -> Iterator[None]:
    """Flip a byte of a file, and put it back."""
    content = path.read_bytes()
    path.write_bytes(
        content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :]
    )
    try:
        yield
    finally:
        path.write_bytes(content)
