"""Cells of a sweep: one setting each, in a folder whose name is a fingerprint of the setting."""

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fedlabels.run.hashing import flatten

Status = Literal["new", "begun", "finished"]

# What changes no result, or says where a run is: not part of the fingerprint.
_APART = ("resume", "run_dir", "sweep", "backend", "callbacks", "tracker", "deploy", "name")
_APART_KEYS = ("checkpoint_every",)
_PLACES = ("sweep.", "hydra.", "run_dir=", "resume=")  # of the sweep, not of one run


@dataclass(frozen=True)
class Cell:
    """One setting of a sweep.

    Parameters
    ----------
    overrides : tuple of str
        What distinguishes it, as on the command line.
    config : mapping
        Resolved settings.
    folder : Path
        Its run folder.
    facts : mapping of str to Any
        For its manifest: the method's name, and the command that runs it alone.
    """

    overrides: tuple[str, ...]
    config: Mapping[str, Any]
    folder: Path
    facts: Mapping[str, Any]

    @property
    def label(self) -> str:
        """What distinguishes it, for messages."""
        return " ".join(self.overrides) or "default"

    def status(self) -> Status:
        """Say how far it is, from its folder alone."""
        manifest = read_json(self.folder / "manifest.json")
        if manifest.get("status") == "finished":
            return "finished"
        return "begun" if (self.folder / "config.yaml").exists() else "new"

    def accuracy(self) -> float | None:
        """Return the last accuracy in its table, in [0, 1]; None where there is none."""
        path = self.folder / "rounds.csv"
        if not path.exists():
            return None
        lines = path.read_text(encoding="utf-8").splitlines()
        names = lines[0].split(",") if lines else []
        for key in ("test_accuracy", "personal_accuracy"):
            if key in names and len(lines) > 1:
                text = lines[-1].split(",")[names.index(key)]
                return float(text) if text else None
        return None


def fingerprint(config: Mapping[str, Any]) -> str:
    """Return the fingerprint of a setting: equal for equal results, wherever it runs."""
    flat = {
        key: value
        for key, value in flatten(config).items()
        if key.split(".", 1)[0] not in _APART and key not in _APART_KEYS
    }
    return hashlib.sha256(json.dumps(flat, sort_keys=True, default=str).encode()).hexdigest()


def make_cells(
    configs: Sequence[tuple[Sequence[str], Mapping[str, Any]]], root: Path
) -> list[Cell]:
    """Name a folder for every setting; settings that are equal are one cell.

    Parameters
    ----------
    configs : sequence of (overrides, resolved settings)
        In the order in which they are to run.
    root : Path
        The sweep's folder.
    """
    cells: dict[str, Cell] = {}
    common = set.intersection(*(set(overrides) for overrides, _ in configs)) if configs else set()
    for overrides, config in configs:
        mark = fingerprint(config)
        method = method_of(overrides)
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", method or str(config["client"]["name"]))
        shown = tuple(o for o in overrides if o not in common)
        folder = root / f"{name}-{mark[:12]}"
        facts = {
            "overrides": list(shown),
            "command": _command(with_method(config["sweep"]["per_method"], overrides)),
            "method": method or config["client"]["name"],
        }
        cells.setdefault(mark, Cell(shown, config, folder, facts))
    return list(cells.values())


def method_of(overrides: Sequence[str]) -> str | None:
    """Return the preset that overrides choose, None where they choose none."""
    methods = [o.partition("=")[2] for o in overrides if o.startswith("method=")]
    return methods[-1] if methods else None


def with_method(per_method: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    """Put what goes with the chosen method before overrides: rates have other names in others."""
    method = method_of(overrides)
    also = per_method.get(method, ()) if method is not None else ()
    return [*map(str, also), *overrides]


def _command(overrides: Sequence[str]) -> str:
    told = [override for override in overrides if not override.startswith(_PLACES)]
    return shlex.join(["python", "run_sim.py", *told])


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty where it is missing or damaged."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
