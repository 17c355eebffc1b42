"""The three files of docs/add-a-method.md are a method: no other file knows of it."""

import json
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
PAGE = (REPO / "docs" / "add-a-method.md").read_text(encoding="utf-8")
FILES = ("clients/weighted.py", "strategies/momentum.py", "configs/method/weighted.yaml")
TINY = (
    "run", "plugins=my_package", "method=weighted", "dataset=digits", "model=mlp",
    "model.hidden=[16]", "clients=8",
    "per_round=4", "rounds=40", "labels.fraction=0.3", "checkpoint_every=1",
)  # fmt: skip


def write_files(package):
    """Write the three files of the page into a package."""
    for name in FILES:
        section = PAGE.split(f"`my_package/{name}`", 1)[1]
        code = re.search(r"```(?:python|yaml)\n(.*?)```", section, re.DOTALL).group(1)
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        assert not (package / name).exists()
        (package / name).write_text(code, encoding="utf-8")


@pytest.fixture(scope="module")
def folder_of_user(tmp_path_factory):
    """A folder with the package in it, and nothing else."""
    root = tmp_path_factory.mktemp("user")
    write_files(root / "my_package")
    (root / "my_package" / "__init__.py").touch()
    return root


def start(root, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO)}
    # as for the installed program, the folder of the call is not on the path
    script = "import sys, fedlabels.command as c; sys.path.remove(''); sys.exit(c.main())"
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], cwd=root, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def run(root, *arguments):
    process = start(root, *arguments)
    output = process.communicate(timeout=LIMIT)[0].decode()
    return process.returncode, output


def prints(folder):
    return file_sha256(folder / "model.safetensors"), rounds_hash(folder / "rounds.csv")


@pytest.fixture(scope="module")
def serial(folder_of_user, tmp_path_factory):
    """Fingerprints of the serial runs by execution."""
    found = {}
    for execution in ("looped", "stacked"):
        folder = tmp_path_factory.mktemp("serial") / execution
        status, output = run(
            folder_of_user, *TINY, f"run_dir={folder}", "backend=serial",
            f"backend.execution={execution}",
        )  # fmt: skip
        assert status == 0, output
        found[execution] = prints(folder)
    return found


@pytest.mark.ray
@pytest.mark.parametrize("backend", ["ray", "processes"])
@pytest.mark.parametrize("execution", ["looped", "stacked"])
def test_it_runs_everywhere_with_the_same_bits(
    folder_of_user, serial, backend, execution, tmp_path
):
    status, output = run(
        folder_of_user, *TINY, f"run_dir={tmp_path / 'run'}", f"backend={backend}",
        "backend.num_workers=2", f"backend.execution={execution}",
    )  # fmt: skip
    assert status == 0, output
    assert prints(tmp_path / "run") == serial[execution]


def test_it_is_killed_and_resumed(folder_of_user, serial, tmp_path):
    folder = tmp_path / "run"
    process = start(
        folder_of_user, *TINY, f"run_dir={folder}", "backend=serial", "backend.execution=looped"
    )
    # a round is done, and there is something to go on from
    wait_for(lambda: any(folder.glob("checkpoints/round-*/manifest.json")), pause=0.002)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    client = folder_of_user / "my_package" / "clients" / "weighted.py"
    as_it_was = client.read_text(encoding="utf-8")
    client.write_text(f"{as_it_was}\n# changed\n", encoding="utf-8")
    status, output = run(folder_of_user, "resume", folder, "rounds=41")
    assert status == 1
    assert "resume_code=any" in output
    assert "my_package" in output
    client.write_text(as_it_was, encoding="utf-8")
    status, output = run(folder_of_user, "resume", folder)
    assert status == 0, output
    assert prints(folder) == serial["looped"]
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert set(manifest["code"]["plugins"]) == {"my_package"}


def test_it_may_lie_in_a_checkout(serial, tmp_path):
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPO / "fedlabels", tmp_path / "fedlabels", ignore=ignore)
    write_files(tmp_path / "fedlabels")
    shutil.copy(REPO / "run_sim.py", tmp_path)
    ended = subprocess.run(
        [sys.executable, "run_sim.py", *TINY[2:], "run_dir=run", "backend=serial",
         "backend.execution=looped"],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert prints(tmp_path / "run") == serial["looped"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("client.power=0", "client.power must be > 0"),
        ("strategy.beta=1", "strategy.beta must be in [0, 1)"),
        ("client.pwer=2", "pwer"),
    ],
)
def test_its_settings_are_checked(folder_of_user, override, said, tmp_path):
    status, output = run(
        folder_of_user, *TINY, f"run_dir={tmp_path / 'run'}", "backend=serial", override
    )
    assert status != 0
    assert said in output
    assert "Traceback" not in output
