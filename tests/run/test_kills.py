"""A run that is killed on the way from its last round to its end is ended by a resume."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fedlabels.errors import RunError
from fedlabels.report.comparison.runs import read_runs
from fedlabels.run import saving
from tests.end_to_end.harness import FEDAVG, config_of, prints, simulate, table

SETTINGS = (*FEDAVG, "training.steps=2", "rounds=6", "checkpoint_every=3")
CASES = {
    "fedavg": (),
    "stops": ("early_stop.target=0.0001", "early_stop.metric=test_accuracy"),
    "own": ("method=local_training", "early_stop.patience=2"),
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


def test_an_old_checkpoint_whose_removal_was_killed_goes_with_the_resume(tmp_path: Path) -> None:
    config, whole, folder = (
        config_of(*SETTINGS, "checkpoint_every=1"),
        tmp_path / "a",
        tmp_path / "b",
    )
    with killed_at(None) as calls:
        simulate(whole, config)
    removed = max(i for i, name in enumerate(calls, 1) if name == "manifest.json")
    with pytest.raises(Killed), killed_at(removed):
        simulate(folder, config)
    assert list((folder / "checkpoints").glob(".tmp-*"))
    simulate(folder, config, resume=True)
    assert prints(folder) == prints(whole)
    assert not list(folder.rglob(".tmp-*"))


def test_a_run_that_was_killed_as_it_began_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    config, folder = config_of(*SETTINGS), tmp_path / "run"
    with killed_at(None) as calls:
        simulate(tmp_path / "whole", config)
    settings = next(i for i, name in enumerate(calls, 1) if ".tmp-config.yaml-" in name)
    with pytest.raises(Killed), killed_at(settings + 1):
        simulate(folder, config)
    assert list(folder.glob(".tmp-*"))
    simulate(folder, config)
    assert prints(folder) == prints(tmp_path / "whole")
    assert not list(folder.rglob(".tmp-*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_a_run_is_saved_waits(number: int, tmp_path: Path) -> None:
    config, folder = config_of(*SETTINGS, "checkpoint_every=99"), tmp_path / "run"
    write = saving.write_checkpoint

    def signalled(*given: Any, **more: Any) -> Any:
        os.kill(os.getpid(), number)
        return write(*given, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "write_checkpoint", signalled)
        with pytest.raises(KeyboardInterrupt):
            simulate(folder, config)
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["round-00000006"]
    assert json.loads((folder / "manifest.json").read_text())["status"] == "finished"
    simulate(folder, config, resume=True)
    assert (folder / "report.html").exists()


class Interrupt:
    """Ctrl-C in a round, after which the run waits for a resume."""

    def __init__(self, index: int) -> None:
        self.index = index

    def on_run_start(self, *, folder: Any, config: Any) -> None:
        """Do nothing."""

    def on_round_end(self, *, record: Any) -> bool:
        if record["round"] == self.index:
            raise KeyboardInterrupt
        return False

    def on_run_end(self, *, folder: Any) -> None:
        """Do nothing."""


@pytest.mark.parametrize(("index", "other"), [(4, "rounds=4"), (6, "backend.stack_size=3")])
def test_an_end_under_other_settings_is_one_run(index: int, other: str, tmp_path: Path) -> None:
    """What may differ at a resume, differs; files that name two settings would be called damage."""
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        simulate(folder, config_of(*SETTINGS), callbacks=[Interrupt(index)])
    simulate(folder, config_of(*SETTINGS, other), resume=True)
    (run,), left = read_runs([folder], "test_accuracy")
    assert (run.rounds[-1], left) == (index, [])
    simulate(
        folder, config_of(*SETTINGS, "rounds=7", *([other] if index == 6 else [])), resume=True
    )
    assert len(table(folder)) == 7


def test_a_clock_that_goes_back_makes_no_negative_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(10**9, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    simulate(tmp_path / "run", config_of(*SETTINGS))
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["seconds"] > 0
