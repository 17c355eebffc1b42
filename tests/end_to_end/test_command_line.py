"""What a user sees of ``run_sim.py``: one clear line for a mistake, and an orderly end."""

import contextlib
import csv
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from hydra.errors import ConfigCompositionException

from tests.end_to_end.harness import FEDAVG, REPO, TINY, contents, prints, table
from tests.waiting import LIMIT, wait_for

WRONG = {
    "nonsense=1": "nonsense is no setting; docs/settings.md lists all",
    "roundz=3": "roundz is no setting (did you mean rounds?)",
    "methd=fedavg": "methd is no setting (did you mean method?)",
    "client.nonsense=1": "client.nonsense is no setting of client=fedavg; allowed: client.name, cl",
    "training.momentun=1": "of client=fedavg (did you mean training.momentum?); allowed: training",
    "labels.fraktion=3": "labels.fraktion is no setting of labels=uniform (did you mean labels.fr",
    "strategy.rule=Krum": "strategy.rule is no setting of strategy=fedavg (strategy=stock would ha",
    "training.lr=abc": "training.lr must be a number, got 'abc'",
    "clients=abc": "clients must be a whole number, got 'abc'",
    "backend.portable=maybe": "backend.portable must be true or false, got 'maybe'",
    "backend=nonsense": "backend=nonsense is not known; allowed: processes, ray, serial",
    "dataset.root": "dataset.root is no setting with a value: give KEY=VALUE",
    "method=stock,fedavg": "method=stock,fedavg has several values: add -m to run all of them",
    "+clients=4": "clients is a setting already: give it as clients=VALUE, without the plus",
    "method=fedlabel_stable client=fedavg": "method=fedlabel_stable sets client.threshold, which "
    "client=fedavg does not have; fitting: client=fedlabel; or leave client= out",
    "strategy=stock strategy.rule=FedProx": "strategy=stock strategy.rule=FedAvg",
    "training.lr=-1": "training.lr must be > 0, got -1",
    "method=fedavgg": "method=fedavgg is not known (did you mean fedavg?); allowed: fedadam, fed",
    "client=nonsense": "client=nonsense is not known; allowed: fedavg, ",
    "strategy=nonsense": "strategy=nonsense is not known; allowed: ",
    "partition.alpha=0": "error: partition.alpha must be > 0",
    "labels.fraction=1.5": "error: labels.fraction must be in [0, 1], got 1.5",
    "method=fedprox strategy.proximal_mu=-1": "error: strategy.proximal_mu must be >= 0, got -1",
    "per_round=11": "per_round=11 is more than clients=10",
    "rounds=0": "rounds must be >= 1, got 0",
    "clients=5000": "partition.reuse=true",
    "backend.execution=fast": "backend.execution must be one of looped, stacked",
    "dataset.views=nonsense": "dataset.views=nonsense is not known",
    "dataset=fashion_mnist dataset.root=/nonexistent": "/nonexistent",
    "max_client_failures=2": "share in [0, 1]",
    "model.hidden=[0]": "hidden",
    "resume=nowhere": "resume=nowhere holds no run",
    "resume='nowhere": "cannot be read; put one with brackets, quotes, commas or blanks into",
    "+evaluate_evry=5": "evaluate_evry is no setting, nothing would read it; did you mean evalu",
    "+client.local_step=5": "client.local_step is no setting, nothing would read it; did you mean",
    "+callbacks.profile.enable=true": "did you mean callbacks.profile.enabled?",
    "+model.hiden=[3]": "model.hiden is no setting, nothing would read it; did you mean model",
    "+dataset.options.colour=1": "has no option colour",
    "model.hidden=32": "model.hidden must be a list of whole numbers, got 32",
    "model.norm=3": "model.norm must be a text, got 3",
    "architectures.models=5": "architectures.models must be a list of names of models",
    "shift.sigma_max=0.3": "shift.sigma_max=0.3 has no effect without shift.preset=noise",
    "test_shards.by=domain": "test_shards.by=domain has no effect without test_shards.share ab",
    "architectures.assign=random": "has no effect without architectures.models",
    "partition=domain partition.alpha=0.3": "has no effect with partition.within=iid",
    "training.epochs=1": "exactly one of training.steps and training.epochs",
    "strategy=stock strategy.rule=Nonsense": "strategy.rule=Nonsense is not known; allowed: ",
    "strategy=stock strategy.rule=FedAdam strategy.options={nonsense: 1}": "options are",
}


class Ended(NamedTuple):
    status: int
    output: str


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> Ended:
    """Run ``run_sim.py`` in this process: starting one costs seconds."""
    before, status = sys.argv, 0
    sys.argv = ["run_sim.py", *arguments]
    try:
        runpy.run_path(str(REPO / "run_sim.py"), run_name="__main__")
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.argv = before
    captured = capsys.readouterr()
    return Ended(status, captured.out + captured.err)


@pytest.mark.parametrize("wrong", WRONG)
def test_a_mistake_gets_one_clear_line(
    wrong: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fedlabels.data.roots.SYSTEM", tmp_path / "system")
    folder = tmp_path / "run"
    given = [*FEDAVG, "dataset=digits", f"run_dir={folder}", *_words(wrong)]
    if "resume" in wrong:
        given = [g.replace("nowhere", str(folder)) for g in given]
    ended = run(given, capsys)
    assert ended.status == 1
    expected = WRONG[wrong].replace("nowhere", str(folder))
    assert expected in ended.output
    assert "Traceback" not in ended.output
    lines = [line for line in ended.output.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "HYDRA_FULL_ERROR" not in ended.output

    assert not folder.exists() or not list(folder.rglob("*.*"))


def test_what_fits_names_the_variant_that_is_to_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = ["method=fedlabel", "client.variant=joint", "strategy=fedlabel_anchors"]
    ended = run([*TINY, *wrong, f"run_dir={tmp_path / 'run'}"], capsys)
    assert ended.status == 1
    fitting = ended.output.partition("What fits: ")[2]
    assert "client=fedlabel client.variant=" in fitting
    assert "strategy=fedlabel_anchors," not in fitting


def test_hydra_s_own_errors_are_shown_whole_when_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ConfigCompositionException, match="Could not override"):
        run([f"run_dir={tmp_path}", "client.nonsense=1"], capsys)


def test_a_refused_run_leaves_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for wrong in ("rounds=0", "clients=5000"):  # before its folder is chosen, and after
        assert run([wrong, "backend=serial"], capsys).status == 1
        assert run([wrong, "backend=serial", "run_dir=a/b/c"], capsys).status == 1
    sweep = ["-m", "seed=0,1", "sweep.jobs=0", "sweep.dir=a/b"]
    assert run(sweep, capsys).output.startswith("error: sweep.jobs must be >= 1")
    assert not list(tmp_path.iterdir())


def test_a_refused_sweep_leaves_the_folder_of_an_earlier_one_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("multirun.yaml", "cells.csv"):
        (tmp_path / name).write_text("of an earlier call")
    before = contents(tmp_path)
    sweep = ["-m", "seed=0,1", "training.lr=0.1,x", f"sweep.dir={tmp_path}", "method=fedavg"]
    assert run(sweep, capsys).output.startswith("error: training.lr must be a number")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("given", [["run_dir={}"], ["seed=0,1", "sweep.dir={}", "-m"]])
def test_a_folder_that_cannot_be_made_is_one_line(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    ended = run([*FEDAVG, *(text.format(tmp_path / "file") for text in given)], capsys)
    assert (ended.status, ended.output.count("\n")) == (1, 1)
    assert ended.output.startswith(f"error: cannot write {tmp_path / 'file'}")
    assert "a file stands where a folder is to be" in ended.output


def test_settings_that_are_none_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ("", "[1, 2]", "rounds: ["):
        (tmp_path / "config.yaml").write_text(text)
        ended = run([f"resume={tmp_path}"], capsys)
        assert ended.status == 1
        assert ended.output.startswith(f"error: {tmp_path / 'config.yaml'} ")


def test_a_run_whose_method_is_gone_cannot_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text("rounds: 1\n")
    (tmp_path / "manifest.json").write_text('{"overrides": ["strategy=scaf"]}')
    ended = run([f"resume={tmp_path}"], capsys)
    assert ended.status == 1
    assert ended.output.startswith("error: the run's strategy scaf is not in this checkout")


def _words(text: str) -> list[str]:
    return re.split(r" (?=[a-z_.]+=)", text)


def test_missing_data_says_where_it_was_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedlabels.data.roots.SYSTEM", tmp_path / "system")
    monkeypatch.setenv("FEDLABELS_DATA", "/nonexistent")
    given = ["dataset=fashion_mnist", f"run_dir={tmp_path / 'run'}", "backend=serial"]
    ended = run(given, capsys)
    assert ended.status == 1
    assert ended.output.startswith("error: data set 'fashion_mnist' was not found")
    assert "\n  /nonexistent/FashionMNIST/raw\n" in ended.output
    assert f"\n  {tmp_path / 'system'}" in ended.output
    assert "apt-get install" in ended.output or "make data" in ended.output
    typo = run([*given, "dataset.root=/typo"], capsys)
    assert typo.status == 1
    assert "\n  /typo/FashionMNIST/raw\n" in typo.output
    assert "/nonexistent" not in typo.output


def test_a_run_its_resume_and_its_neighbour(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, whole = tmp_path / "a run", tmp_path / "whole"
    place = f"run_dir='{folder}'"
    first = run([*FEDAVG, "rounds=2", place], capsys)
    assert first.status == 0
    assert "accuracy on the global test set" in first.output
    assert (folder / "report.html").exists()
    assert not list(folder.glob("*.log")) or (folder / "run.log").stat().st_size > 0
    before = contents(folder)

    again = run([*FEDAVG, "rounds=2", place], capsys)
    assert again.status == 1
    assert "already holds a run" in again.output
    other = run([f"resume='{folder}'", "rounds=4", "training.lr=0.2"], capsys)
    assert other.status == 1
    assert "training.lr: 0.1 -> 0.2" in other.output
    method = run([f"resume='{folder}'", "rounds=4", "method=fedprox"], capsys)
    assert method.status == 1
    assert 'client.name: "fedavg" -> "fedprox"' in method.output
    assert contents(folder) == before

    assert run([f"resume='{folder}'", "rounds=4"], capsys).status == 0
    assert run([*FEDAVG, "rounds=4", f"run_dir={whole}"], capsys).status == 0
    assert prints(folder) == prints(whole)
    finished = run([f"resume='{folder}'"], capsys)
    assert finished.status == 1
    assert "has finished its 4 rounds" in finished.output


def test_dicts_take_new_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = run(
        [*FEDAVG, "rounds=1", "strategy=stock", "strategy.rule=FedAdam", "method=stock",
         "strategy.options={eta: 0.01}", "dataset.view_options={shift: 0.0}",
         f"run_dir={tmp_path / 'run'}"],
        capsys,
    )  # fmt: skip
    assert ended.status == 0, ended.output


def _hear_interrupts() -> None:
    """Undo what a shell does to commands in its background: they ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def started(arguments: list[str]) -> Iterator["subprocess.Popen[str]"]:
    """Start ``run_sim.py`` as a process group of its own, as a shell does."""
    process = subprocess.Popen(
        [sys.executable, "run_sim.py", *arguments],
        cwd=REPO,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_hear_interrupts,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for_rounds(process: "subprocess.Popen[str]", folder: Path, count: int) -> None:
    file = folder / "rounds.csv"
    wait_for(lambda: file.exists() and len(table(folder)) >= count, process, pause=0.02)


def descendants(pid: int) -> set[int]:
    """Return the processes below a process, from /proc."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found, new = set[int](), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


def alive(pids: set[int]) -> set[int]:
    living = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            state = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z":
                living.add(pid)
    return living


def wait_until_gone(pids: set[int]) -> None:
    wait_for(lambda: not alive(pids), pause=0.1)


CASES = [
    pytest.param("serial", "process", signal.SIGINT),
    pytest.param("serial", "process", signal.SIGTERM),
    pytest.param("ray", "process", signal.SIGINT, marks=pytest.mark.ray),
    pytest.param("ray", "group", signal.SIGINT, marks=pytest.mark.ray),
    pytest.param("ray", "process", signal.SIGTERM, marks=pytest.mark.ray),
]


@pytest.mark.parametrize(("backend", "target", "number"), CASES)
def test_one_interrupt_ends_a_run_in_order(
    backend: str,
    target: str,
    number: signal.Signals,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, whole = tmp_path / "run", tmp_path / "whole"
    workers = ["backend.num_workers=2"] if backend == "ray" else []
    given = [*FEDAVG, f"backend={backend}", *workers, "rounds=5000", f"run_dir={folder}"]
    with started(given) as process:
        wait_for_rounds(process, folder, 3)
        below = descendants(process.pid)
        # a terminal sends the signal to every process of the group, workers included
        (os.killpg if target == "group" else os.kill)(process.pid, number)
        _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    (line,) = [line for line in errors.splitlines() if "stopped" in line]
    command = shlex.split(line.partition("go on with: ")[2])
    assert command == ["python", "run_sim.py", f"resume={folder}"]
    assert len(below) > 4 or backend == "serial"
    wait_until_gone(below)

    rounds = len(table(folder)) + 1
    assert rounds < 5000
    assert run([command[2], f"rounds={rounds}", "backend=serial"], capsys).status == 0
    assert run([*FEDAVG, f"rounds={rounds}", f"run_dir={whole}"], capsys).status == 0
    assert prints(folder) == prints(whole)


def test_a_failed_run_ends_with_status_1(tmp_path: Path) -> None:
    """In a process of its own: no traceback, and the checkpoint of the last good round."""
    script = (
        "import runpy, fedlabels.clients.fedavg as f; fit = f.FedAvg.fit\n"
        "def bad(self, cohort, request):\n"
        "    if request.round > 1: raise OSError('no luck')\n"
        "    return fit(self, cohort, request)\n"
        "f.FedAvg.fit = bad; runpy.run_path('run_sim.py', run_name='__main__')\n"
    )
    arguments = [*FEDAVG, f"run_dir={tmp_path / 'run'}"]
    ended = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=REPO, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "error: 5 of 5 clients failed in round 2 (train)" in ended.stderr
    assert "OSError: no luck" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert (tmp_path / "run" / "checkpoints" / "round-00000001").is_dir()
    rows = list(csv.DictReader((tmp_path / "run" / "clients.csv").open()))
    assert [row["status"] for row in rows if row["round"] == "2"] == ["failed"] * 5
    assert "no luck" in rows[-1]["error"]


def test_resume_of_what_is_no_run_leaves_nothing_behind(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "run_sim.py", f"resume={tmp_path / 'typo'}"], cwd=REPO,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert (
        ended.stderr == f"error: resume={tmp_path / 'typo'} holds no run (no config.yaml there)\n"
    )
    assert not (tmp_path / "typo").exists()


def test_a_run_of_an_older_version_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Groups of settings that it did not know, and that change no result, have their defaults."""
    folder, whole = tmp_path / "run", tmp_path / "whole"
    assert run([*FEDAVG, "rounds=2", f"run_dir={folder}"], capsys).status == 0
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    for key in ("deploy", "sweep"):
        del saved[key]
    (folder / "config.yaml").write_text(yaml.safe_dump(saved))
    ended = run([f"resume='{folder}'", "rounds=3"], capsys)
    assert ended.status == 0, ended.output
    assert run([*FEDAVG, "rounds=3", f"run_dir={whole}"], capsys).status == 0
    assert prints(folder) == prints(whole)
