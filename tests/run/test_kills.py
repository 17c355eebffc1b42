"""A run that is killed on the way from its last round to its end is ended by a resume."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fedlabels.errors import RunError
from tests.end_to_end.harness import FEDAVG, config_of, prints, simulate, table

SETTINGS = (*FEDAVG, "client.local_steps=2", "rounds=6", "checkpoint_every=3")
CASES = {
    "fedavg": (),
    "stops": ("early_stop.target=0.0001", "early_stop.metric=test_accuracy"),
    "own": ("method=local_training", "client.local_epochs=null", "early_stop.patience=2"),
}


class Killed(BaseException):
    """What ends a process at once: from then on nothing on the disk changes."""


@contextmanager
def killed_at(number: int | None) -> Iterator[list[str]]:
    """Die in place of the call with a number that changes a file; give the calls so far."""
    calls = list[str]()

    def guarded(call: Any) -> Any:
        def counted(*arguments: Any, **more: Any) -> Any:
            name = str(arguments[0])
            if Path(name).name == ".lock":  # the kernel's part: the process is there no more
                return call(*arguments, **more)
            calls.append(name)
            if number is not None and len(calls) >= number:
                raise Killed
            return call(*arguments, **more)

        return counted

    opened = Path.open

    def open_counted(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        changes = bool(set(mode) & set("wax+"))
        return (guarded(opened) if changes else opened)(path, mode, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("replace", "rename", "mkdir", "unlink"):
            patch.setattr(os, name, guarded(getattr(os, name)))
        patch.setattr(Path, "open", open_counted)
        yield calls


@pytest.mark.parametrize("case", CASES)
def test_an_end_that_was_killed_is_made_up_for(case: str, tmp_path: Path) -> None:
    config, whole = config_of(*SETTINGS, *CASES[case]), tmp_path / "whole"
    with killed_at(None) as calls:
        simulate(whole, config)
    last = max(i for i, name in enumerate(calls, 1) if "rounds.csv" in name)
    kept = ("status", "rounds_done", "stopped_early", "execution", "num_parameters", "config_hash")
    expected = json.loads((whole / "manifest.json").read_text())
    _, renamed, _ = (i for i, name in enumerate(calls, 1) if ".tmp-report.html-" in name)
    ends = range(last + 1, renamed + 1)
    for number in (*ends[:: max(1, len(ends) // 3)], ends[-1]):
        folder = tmp_path / f"run-{number}"
        with pytest.raises(Killed), killed_at(number):
            simulate(folder, config)
        simulate(folder, config, resume=True)
        assert prints(folder) == prints(whole)
        manifest = json.loads((folder / "manifest.json").read_text())
        assert {key: manifest[key] for key in kept} == {key: expected[key] for key in kept}
        assert len(table(folder, "clients")) == len(table(whole, "clients"))
        assert (folder / "report.html").exists()
        assert not list(folder.rglob(".tmp-*"))
        with pytest.raises(RunError, match="has finished"):
            simulate(folder, config, resume=True)
