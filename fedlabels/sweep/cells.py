"""Cells of a sweep: one setting each, in a folder whose name is a fingerprint of the setting."""

import contextlib
import csv
import hashlib
import io
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fedlabels.errors import FedLabelsError
from fedlabels.program import RUN
from fedlabels.run.data import contents_of, read_content
from fedlabels.run.folder.checkpoint import latest_checkpoint
from fedlabels.run.main import is_finished
from fedlabels.settings.hashing import deciding, flatten

Status = Literal["new", "begun", "finished"]

_PLAN = ("rounds", "early_stop")  # which round is the last: a resume may change that
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
        return status_of(self.folder)

    def code(self) -> dict[str, Any] | None:
        """Return the version and commit that finished it; None where that is not known."""
        manifest = read_json(self.folder / "manifest.json")
        code = manifest.get("code") if manifest.get("status") == "finished" else None
        return code if isinstance(code, dict) else None

    def changes(self) -> list[str]:
        """Return what its run has of the plan, when that was resumed with another one."""
        newest = latest_checkpoint(self.folder)
        saved = read_json(newest / "manifest.json").get("config", {}) if newest else {}
        plan = flatten({key: self.config[key] for key in _PLAN})
        return [f"{k}={saved[k]}" for k, v in plan.items() if k in saved and saved[k] != v]

    def accuracy(self) -> float | None:
        """Return the last accuracy in its table, in [0, 1]; None where there is none."""
        return accuracy_of(self.folder)


def status_of(folder: Path) -> Status:
    """Say how far a cell is, from its folder alone; without its report it is not finished."""
    if is_finished(folder):
        return "finished"
    return "begun" if (folder / "config.yaml").exists() else "new"


def accuracy_of(folder: Path) -> float | None:
    """Return the last accuracy in a cell's table, in [0, 1]; None where there is none."""
    path = folder / "rounds.csv"
    if not path.exists():
        return None
    text = path.read_text(encoding="utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1]  # a cell that was killed may not have ended its last line
    rows = list(csv.DictReader(io.StringIO(whole)))
    for key in ("test_accuracy", "personal_accuracy"):
        if rows and key in rows[-1]:
            with contextlib.suppress(ValueError, TypeError):  # blank, or damaged
                return float(rows[-1][key])
            return None
    return None


def fingerprint(config: Mapping[str, Any], contents: Mapping[str, str] | None = None) -> str:
    """Return the fingerprint of a setting: equal for equal results, wherever it runs.

    Parameters
    ----------
    config : mapping
        Resolved settings.
    contents : mapping of str to str, or None
        Hashes of the data, as `fedlabels.run.data.contents_of` returns them.
    """
    decides = {
        **deciding(config),
        **{key: config[key] for key in _PLAN},
        "content": dict(contents or {}),
    }
    decomposition = (config.get("callbacks") or {}).get("decomposition") or {}
    if decomposition.get("enabled"):  # a cell that finished without it lacks these results
        decides["decomposition"] = decomposition
    return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()


class Contents:
    """Content of what settings name by a path; a data set is read once for all cells of a sweep."""

    def __init__(self) -> None:
        self._read: dict[str, str] = {}

    def of(self, config: Mapping[str, Any]) -> dict[str, str]:
        """Return hashes; none of data that cannot be read: their cells say why."""
        dataset = config["dataset"]
        place = {key: dataset[key] for key in ("name", "root", "options")}
        key = json.dumps(place, sort_keys=True, default=str)
        try:
            if key not in self._read:
                self._read[key] = ""
                self._read[key] = read_content(config)
            return contents_of(config, self._read[key])
        except (FedLabelsError, OSError):
            return {}


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
    cells, contents = dict[str, Cell](), Contents()
    common = set.intersection(*(set(overrides) for overrides, _ in configs)) if configs else set()
    for overrides, config in configs:
        mark = fingerprint(config, contents.of(config))
        facts = facts_of(with_method(config["sweep"]["per_method"], overrides), config)
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", str(facts["method"]))
        shown = tuple(o for o in overrides if o not in common)
        folder = root / f"{name}-{mark[:12]}"
        cells.setdefault(mark, Cell(shown, config, folder, facts))
    return list(cells.values())


def facts_of(overrides: Sequence[str], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the manifest of a cell says beside its settings.

    Parameters
    ----------
    overrides : sequence of str
        All of them: a cell can be resumed alone.
    config : mapping
        Resolved settings.
    """
    own = [override for override in overrides if not override.startswith(_PLACES)]
    command = shlex.join([*RUN, *own])
    method = method_of(overrides) or config["client"]["name"]
    return {"overrides": own, "command": command, "method": method}


def method_of(overrides: Sequence[str]) -> str | None:
    """Return the preset that overrides choose, None where they choose none."""
    methods = [o.partition("=")[2] for o in overrides if o.startswith("method=")]
    return methods[-1] if methods else None


def with_method(per_method: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    """Put what goes with the chosen method before overrides: rates have other names in others."""
    method = method_of(overrides)
    also = per_method.get(method, ()) if method is not None else ()
    return [*map(str, also), *overrides]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty where it is missing or damaged."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
