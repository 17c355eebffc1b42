"""The three files of docs/add-a-method.md are a method: no other file knows of it."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fedlabels.run import file_sha256, rounds_hash
from tests.waiting import LIMIT, wait_for

REPO = Path(__file__).resolve().parents[2]
FILES = (
    "fedlabels/clients/weighted.py",
    "fedlabels/strategies/momentum.py",
    "fedlabels/configs/method/weighted.yaml",
)
TINY = (
    "method=weighted", "dataset=digits", "model=mlp", "model.hidden=[16]", "clients=8",
    "per_round=4", "rounds=40", "labels.fraction=0.3", "checkpoint_every=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout with the three files in it."""
    text = (REPO / "docs" / "add-a-method.md").read_text(encoding="utf-8")
    root = tmp_path_factory.mktemp("checkout")
    ignore = shutil.ignore_patterns("__pycache__")
    for package in ("fedlabels",):
        shutil.copytree(REPO / package, root / package, ignore=ignore)
    shutil.copy(REPO / "run_sim.py", root)
    for name in FILES:
        section = text.split(f"`{name}`", 1)[1]
        assert not (root / name).exists()
        code = re.search(r"```(?:python|yaml)\n(.*?)```", section, re.DOTALL).group(1)
        (root / name).write_text(code, encoding="utf-8")
    return root


def start(root, folder, *overrides):
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "run_sim.py", *TINY, *overrides]
    if folder is not None:
        arguments.append(f"run_dir={folder}")
    return subprocess.Popen(
        arguments, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def run(root, folder, *overrides):
    process = start(root, folder, *overrides)
    output = process.communicate(timeout=LIMIT)[0].decode()
    return process.returncode, output


def prints(folder):
    return file_sha256(folder / "model.safetensors"), rounds_hash(folder / "rounds.csv")


@pytest.fixture(scope="module")
def serial(checkout, tmp_path_factory):
    """Fingerprints of the serial runs by execution."""
    found = {}
    for execution in ("looped", "stacked"):
        folder = tmp_path_factory.mktemp("serial") / execution
        status, output = run(checkout, folder, "backend=serial", f"backend.execution={execution}")
        assert status == 0, output
        found[execution] = prints(folder)
    return found


@pytest.mark.ray
@pytest.mark.parametrize("backend", ["ray", "processes"])
@pytest.mark.parametrize("execution", ["looped", "stacked"])
def test_it_runs_everywhere_with_the_same_bits(checkout, serial, backend, execution, tmp_path):
    status, output = run(
        checkout, tmp_path / "run", f"backend={backend}", "backend.num_workers=2",
        f"backend.execution={execution}",
    )  # fmt: skip
    assert status == 0, output
    assert prints(tmp_path / "run") == serial[execution]


def test_it_is_killed_and_resumed(checkout, serial, tmp_path):
    folder = tmp_path / "run"
    process = start(checkout, folder, "backend=serial", "backend.execution=looped")
    table = folder / "rounds.csv"
    # a header, and at least one round
    wait_for(lambda: table.exists() and len(table.read_text().splitlines()) > 1, pause=0.002)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    status, output = run(checkout, None, f"resume={folder}")
    assert status == 0, output
    assert prints(folder) == serial["looped"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("client.power=0", "client.power must be > 0"),
        ("strategy.beta=1", "strategy.beta must be in [0, 1)"),
        ("client.pwer=2", "pwer"),
    ],
)
def test_its_settings_are_checked(checkout, override, said, tmp_path):
    status, output = run(checkout, tmp_path / "run", "backend=serial", override)
    assert status != 0
    assert said in output
    assert "Traceback" not in output
