"""``fedlabels verify``: whether a run folder is whole, and comes out again bit for bit."""

import csv
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import load_file

from fedlabels.answers import JSON
from fedlabels.command.output import answer
from fedlabels.errors import CheckpointError, ConfigError, FedLabelsError
from fedlabels.federation import Federation
from fedlabels.machine.differences import differing
from fedlabels.machine.kernels import hardware
from fedlabels.run.folder.checkpoint import check_origin, newest_checkpoint
from fedlabels.run.main import execute, pin_kernels
from fedlabels.settings.hashing import config_hash, schedule_of
from fedlabels.worker.state import verify as verify_states

USAGE = """usage: fedlabels verify RUN [--again [ROUNDS]] [--json]

Checks a run folder: settings and federation against the hashes in its manifest, its newest
checkpoint with the clients' states, its tables round by round, its model, its report.
--again simulates its first ROUNDS rounds anew (all without a number) in a folder that is removed
afterwards, and compares tables and model bit for bit. The exit status is 1 where something is
wrong, and the first difference is named.
"""
AGAIN = "--again"


@dataclass(frozen=True)
class Finding:
    """The outcome of one check: what was looked at, whether it is right, what was found."""

    name: str
    ok: bool
    text: str


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    ok = True

    def facts(_given: Sequence[str]) -> dict[str, Any]:
        nonlocal ok
        folder, again = _request(arguments)
        with redirect_stdout(sys.stderr):
            found = list(examine(folder, again, machine=JSON in arguments))
        ok = all(finding.ok for finding in found)
        return {"ok": ok, "run_dir": folder, "findings": [asdict(finding) for finding in found]}

    plain = [a for a in arguments if a != AGAIN]
    return answer(plain, USAGE, facts, _shown) or int(not ok)


def _request(arguments: Sequence[str]) -> tuple[Path, int | None]:
    """Return the folder, and how many rounds are simulated anew: 0 is all, None is none."""
    given = [argument for argument in arguments if argument != JSON]
    again = None
    if AGAIN in given:
        at = given.index(AGAIN)
        number = given[at + 1] if at + 1 < len(given) and given[at + 1].isdecimal() else None
        again = int(number) if number is not None else 0
        if number == "0":
            raise ConfigError(f"{AGAIN} must be >= 1 round, got 0; without a number it is all")
        del given[at : at + (1 if number is None else 2)]
    if len(given) != 1:
        raise ConfigError(f"give one run folder, got {len(given)}; {USAGE.splitlines()[0]}")
    folder = Path(given[0]).absolute()
    if not (folder / "config.yaml").exists():
        raise CheckpointError(f"{folder} holds no run (no config.yaml there)")
    return folder, again


def _shown(facts: Mapping[str, Any]) -> str:
    lines = [
        f"{'ok     ' if f['ok'] else 'PROBLEM'}  {f['name']}: {f['text']}"
        for f in facts["findings"]
    ]
    return "\n".join([*lines, "the run is as it was written" if facts["ok"] else "see above", ""])


def examine(folder: Path, again: int | None, *, machine: bool = False) -> Iterator[Finding]:
    """Look a run folder over.

    Parameters
    ----------
    folder : Path
        The run.
    again : int or None
        Rounds that are simulated anew; 0 is all, None is none.
    machine : bool
        Whether the answer is for programs.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        status, done = str(manifest["status"]), int(manifest.get("rounds_done") or 0)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        yield Finding("manifest", False, f"cannot be read ({error}): restore it")
        return
    yield Finding("manifest", True, f"{status}, {done} rounds done")
    yield from _guarded("settings", lambda: _settings(config, manifest))
    yield from _guarded("federation", lambda: _federation(folder, manifest))
    yield from _guarded("checkpoint", lambda: _checkpoint(folder, config, manifest))
    yield from _guarded("tables", lambda: _tables(folder, done))
    if status == "finished":
        yield from _guarded("model", lambda: _model(folder))
        report = folder / "report.html"
        yield Finding("report", report.exists(), str(report) if report.exists() else "missing")
    if again is not None:
        yield from _guarded("again", lambda: _again(folder, config, manifest, again, machine))


def _guarded(name: str, check: Callable[[], tuple[bool, str]]) -> Iterator[Finding]:
    try:
        yield Finding(name, *check())
    except (FedLabelsError, OSError, ValueError, KeyError) as error:
        yield Finding(name, False, str(error))


def _settings(config: Mapping[str, Any], manifest: Mapping[str, Any]) -> tuple[bool, str]:
    ok = config_hash(config) == manifest["config_hash"]
    return ok, "config.yaml has the manifest's hash" if ok else "config.yaml was changed"


def _federation(folder: Path, manifest: Mapping[str, Any]) -> tuple[bool, str]:
    found = Federation.load(folder / "federation.npz").hash
    ok = found == manifest["federation_hash"]
    return ok, found[:16] if ok else f"{found[:16]}, and {manifest['federation_hash'][:16]} before"


def _checkpoint(
    folder: Path, config: Mapping[str, Any], manifest: Mapping[str, Any]
) -> tuple[bool, str]:
    checkpoint = newest_checkpoint(folder)
    if checkpoint is None:
        return False, "there is none"
    check_origin(checkpoint, config=config, federation_hash=manifest["federation_hash"])
    states = checkpoint.states or {}
    verify_states(folder / "state", states)
    return True, f"round {checkpoint.round}, its files and {len(states)} client states are whole"


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, restkey="beyond"))
    torn = next((k for k, r in enumerate(rows, 1) if "beyond" in r or None in r.values()), None)
    if torn is not None:
        raise CheckpointError(f"{path.name}: row {torn} has not as many cells as the head")
    return rows


def _tables(folder: Path, done: int) -> tuple[bool, str]:
    rounds = _rows(folder / "rounds.csv")
    numbers = [int(row["round"]) for row in rounds]
    if numbers != list(range(1, done + 1)):
        return False, f"rounds.csv has {len(numbers)} rows for {done} rounds, or not in order"
    clients = [int(row["round"]) for row in _rows(folder / "clients.csv")]
    for row in rounds:
        held, sampled = clients.count(int(row["round"])), int(row["sampled"])
        if held < sampled:
            return False, f"clients.csv has {held} of {sampled} clients of round {row['round']}"
    for path in sorted(folder.glob("*.csv")):
        _rows(path)
    return True, f"{done} rounds, {len(clients)} rows of clients"


def _model(folder: Path) -> tuple[bool, str]:
    checkpoint = newest_checkpoint(folder)
    if checkpoint is None:
        return False, "no checkpoint to compare with"
    name = _other_tensor(load_file(folder / "model.safetensors"), checkpoint.arrays)
    said = "the checkpoint's" if name is None else f"{name} is not that of the checkpoint"
    return name is None, f"model.safetensors: {said}"


def _other_tensor(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Return the first tensor whose bits differ."""
    for name in sorted({*one, *other}):
        if name not in one or name not in other:
            return name
        if np.asarray(one[name]).tobytes() != np.asarray(other[name]).tobytes():
            return name
    return None


def _again(
    folder: Path, config: dict[str, Any], manifest: Mapping[str, Any], again: int, machine: bool
) -> tuple[bool, str]:
    done = int(manifest["rounds_done"])
    rounds = min(again or done, done)
    if config["backend"].get("portable"):
        pin_kernels(machine=machine)
    repeated = {
        **config,
        "rounds": rounds,
        "schedule_rounds": schedule_of(config),
        "resume": None,
        "early_stop": {**config["early_stop"], "target": None, "patience": None},
        "tracker": {**config["tracker"], "name": "none"},
    }
    with tempfile.TemporaryDirectory(prefix="fedlabels-verify-") as place:
        new = Path(place) / "run"
        execute({**repeated, "run_dir": str(new)}, new)
        difference = _difference(folder, new, whole=rounds == done)
    if difference is None:
        return True, f"{rounds} rounds came out bit for bit"
    causes = differing(manifest.get("hardware") or {}, hardware(config["backend"]["threads"]))
    because = f"; that may explain it: {', '.join(causes)}" if causes else ""
    return False, f"{difference}{because}"


def _difference(old: Path, new: Path, *, whole: bool) -> str | None:
    """Name the first difference between a run and its beginning, simulated anew."""
    for name in ("rounds.csv", "clients.csv"):
        before, now = _rows(old / name), _rows(new / name)
        for row, other in zip(before, now, strict=False):
            for column, value in row.items():
                # the last round anew is tested in any case: what was not tested is not compared
                other_value = other.get(column, "")
                if "seconds" not in column and value not in ("", other_value):
                    place = f"{name}, round {row['round']}, {column}"
                    return f"{place}: {value} in the run, {other_value} now"
    if whole:
        models = (load_file(place / "model.safetensors") for place in (old, new))
        tensor = _other_tensor(*models)
        return None if tensor is None else f"model.safetensors: {tensor} has other bits"
    return None
