"""Sweeps that are killed, interrupted, fail in part, or run on Ray end with the same tables."""

import contextlib
import csv
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fedlabels.run import file_sha256, rounds_hash
from tests.end_to_end.harness import REPO
from tests.waiting import LIMIT, wait_for

TINY = (
    "sweep=smoke", "rounds=60", "evaluate_every=20", "clients=8", "per_round=4", "model=mlp",
    "model.hidden=[16]", "seed=0,1", "partition.alpha=1.0", "method=labeled_only,fedlabel_stable",
    "checkpoint_every=5", "training.steps=30",
)  # fmt: skip


def start(folder, *overrides):
    arguments = [sys.executable, "run_sim.py", "-m", *TINY, f"sweep.dir={folder}", *overrides]
    return subprocess.Popen(
        arguments, cwd=REPO, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def run(folder, *overrides):
    process = start(folder, *overrides)
    output, _ = process.communicate(timeout=LIMIT)
    return process.returncode, output


def prints(folder):
    """Fingerprints of every cell of a sweep."""
    cells = [path.parent for path in folder.glob("*/rounds.csv")]
    return {
        cell.name: (file_sha256(cell / "model.safetensors"), rounds_hash(cell / "rounds.csv"))
        for cell in cells
    }


def table(folder):
    with (folder / "cells.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def compared(folder):
    """What the comparison says of every cell, but for the seconds that it took."""
    with (folder / "comparison" / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: row[key] for key in row if "seconds" not in key} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "sweep"
    status, output = run(folder)
    assert status == 0, output
    return folder, output


def test_every_cell_runs_and_is_skipped_the_next_time(whole):
    folder, output = whole
    rows = table(folder)
    assert len(rows) == len(prints(folder)) == 4
    assert {row["status"] for row in rows} == {"finished"}
    assert all(0 <= float(row["accuracy"]) <= 1 for row in rows)
    assert "cell 4/4" in output
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/manifest.json")}
    status, again = run(folder)
    assert status == 0
    assert "4 finished, 0 to resume" in again
    assert before == {path: path.stat().st_mtime_ns for path in folder.glob("*/manifest.json")}


def test_a_sweep_ends_with_its_comparison(whole):
    folder, output = whole
    page = folder / "comparison" / "comparison.html"
    assert f"comparison: {page}" in output
    assert "<title>Comparison of 4 runs" in page.read_text()
    rows = compared(folder)
    assert [(row["method"], row["n"], row["baseline"]) for row in rows] == [
        ("fedlabel_stable", "2", "labeled_only"),
        ("labeled_only", "2", "labeled_only"),
    ]


def test_a_cell_says_how_to_run_it_alone(whole, tmp_path):
    folder, _ = whole
    cell = next(p.parent for p in folder.glob("fedlabel_stable-*/manifest.json"))
    manifest = json.loads((cell / "manifest.json").read_text())
    assert manifest["method"] == "fedlabel_stable"
    words = shlex.split(manifest["command"])
    assert words[:2] == ["python", "run_sim.py"]
    assert not any(word.startswith(("sweep.", "hydra.")) for word in words)
    alone = tmp_path / "alone"
    done = subprocess.run(
        [sys.executable, *words[1:], f"run_dir={alone}"], cwd=REPO, text=True, check=False,
        capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=LIMIT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert file_sha256(alone / "model.safetensors") == file_sha256(cell / "model.safetensors")


def wait_for_rounds(folder, number, process):
    def rounds():
        return sum(len(p.read_text().splitlines()) - 1 for p in folder.glob("*/rounds.csv"))

    wait_for(lambda: rounds() >= number, process, pause=0.01)


def wait_until_gone(session):
    """Wait for the end of all processes of a session, which a sweep and its cells are."""

    def living():
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                state, _, _, number = path.read_text().rpartition(")")[2].split()[:4]
                if state != "Z" and int(number) == session:
                    return True
        return False

    wait_for(lambda: not living())


def test_killed_twice_is_the_same_as_never(whole, tmp_path):
    folder = tmp_path / "sweep"
    for number in (20, 110):
        process = start(folder)
        wait_for_rounds(folder, number, process)
        process.kill()  # the sweep alone: its cells must not go on without it
        process.communicate()
        wait_until_gone(process.pid)
    status, output = run(folder)
    assert status == 0, output
    assert "0 finished" not in output or "to resume" in output
    assert prints(folder) == prints(whole[0])
    assert table(folder) == table(whole[0])
    assert compared(folder) == compared(whole[0])


def test_no_cell_goes_on_without_its_sweep(tmp_path):
    folder = tmp_path / "sweep"
    process = start(folder, "rounds=20000", "seed=0")
    wait_for_rounds(folder, 20, process)
    process.kill()
    process.communicate()
    wait_until_gone(process.pid)
    states = {json.loads(p.read_text())["status"] for p in folder.glob("*/manifest.json")}
    assert "finished" not in states, "a cell went on to its end"


def test_two_sweeps_of_one_folder_share_its_cells(whole, tmp_path):
    folder = tmp_path / "sweep"
    both = [start(folder), start(folder)]
    outputs = [process.communicate(timeout=LIMIT)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert prints(folder) == prints(whole[0])


def test_interrupted_and_gone_on(whole, tmp_path):
    folder = tmp_path / "sweep"
    process = start(folder)
    wait_for_rounds(folder, 30, process)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 130, output
    assert run(folder)[0] == 0
    assert prints(folder) == prints(whole[0])


def test_a_failing_cell_does_not_end_the_sweep(tmp_path):
    folder = tmp_path / "sweep"
    status, output = run(
        folder, "rounds=2", "seed=0", "clients=8,100000", "method=labeled_only",
    )  # fmt: skip
    assert status == 1, output
    assert "FAILED" in output
    assert sorted(row["status"] for row in table(folder)) == ["finished", "new"]
    (error,) = folder.glob("*.error")
    assert "100000 clients" in error.read_text()


def test_a_wrong_key_is_refused_before_anything_runs(tmp_path):
    status, output = run(tmp_path / "sweep", "client.nothing=1,2")
    assert status != 0
    assert "nothing" in output
    assert not list((tmp_path / "sweep").glob("*/rounds.csv"))


def test_settings_of_a_method_reach_its_cells_alone(tmp_path):
    folder = tmp_path / "sweep"
    status, output = run(
        folder, "rounds=1", "seed=0", "+sweep.per_method.labeled_only=['training.lr=0.01']"
    )
    assert status == 0, output
    found = {}
    for path in folder.glob("*/config.yaml"):
        config = yaml.safe_load(path.read_text())
        found[config["client"]["name"]] = config["training"]["lr"]
    assert found == {"fedavg": 0.01, "fedlabel": 0.1}


@pytest.mark.ray
def test_cells_on_ray_are_the_same(whole, tmp_path):
    folder = tmp_path / "sweep"
    status, output = run(folder, "sweep.address=local")
    assert status == 0, output
    assert prints(folder) == prints(whole[0])
