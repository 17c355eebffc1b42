"""The package as others get it: a wheel in its own environment, and no checkout near."""

import csv
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
QUICK = ("preset=quickstart", "rounds=4", "model=mlp", "model.hidden=[32]")


def run(*command, cwd, **environment):
    """Run a command without any variable that leads to the checkout."""
    plain = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [str(word) for word in command], cwd=cwd, env={**plain, **environment}, text=True,
        capture_output=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist of what git knows, and the wheel that is made of it."""
    source = tmp_path_factory.mktemp("source") / "fedlabels"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPO, capture_output=True, check=True, text=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (REPO / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPO / name, source / name, follow_symlinks=False)
    folder = tmp_path_factory.mktemp("dist")
    made = run(
        sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source, cwd=source
    )
    assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-2000:]
    return folder


@pytest.fixture(scope="module")
def programs(built, tmp_path_factory):
    """The programs of an environment that has the wheel, and the libraries of this one."""
    root = tmp_path_factory.mktemp("environment")
    venv.create(root, with_pip=False)
    python = root / "bin" / "python"
    (wheel,) = built.glob("*.whl")
    made = run(
        sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index",
        wheel, cwd=root,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    (packages,) = root.glob("lib/python*/site-packages")
    # Their .pth files are not read from here: an editable install of the checkout stays unseen.
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return root / "bin"


@pytest.fixture
def users(tmp_path):
    """A folder of somebody whose own code has the names of ours."""
    for name in ("clients", "strategies", "configs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('not to be imported')\n")
    (tmp_path / "configs" / "config.yaml").write_text("not: ours\n")
    return tmp_path


def test_a_wheel_has_everything_under_one_name(built):
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {
        "fedlabels",
        "hydra_plugins",
    }
    files = {str(p.relative_to(REPO)) for p in (REPO / "fedlabels").rglob("*") if p.is_file()}
    expected = {name for name in files if "__pycache__" not in name}
    assert expected - set(names) == set()
    checked = run(sys.executable, "-m", "twine", "check", "--strict", *built.iterdir(), cwd=built)
    assert checked.returncode == 0, checked.stdout


def test_the_quickstart_is_that_of_a_checkout_bit_for_bit(programs, users):
    ended = run(programs / "fedlabels", "run", *QUICK, "run_dir=mine", cwd=users)
    assert ended.returncode == 0, ended.stderr
    whole = users / "whole"
    here = run(sys.executable, "run_sim.py", *QUICK, f"run_dir={whole}", cwd=REPO)
    assert here.returncode == 0, here.stderr

    def results(folder):
        rows = list(csv.DictReader((folder / "rounds.csv").open()))
        kept = [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]
        return kept, sha256((folder / "model.safetensors").read_bytes()).hexdigest()

    assert results(users / "mine") == results(whole)
    code = json.loads((users / "mine" / "manifest.json").read_text())["code"]
    assert set(code) == {"version"}
    assert "fedlabels run preset=fashion" in ended.stdout + ended.stderr

    reported = run(programs / "fedlabels", "report", "mine", cwd=users)
    assert reported.returncode == 0, reported.stderr
    assert (users / "mine" / "report.html").stat().st_size > 10_000
    more = run(
        programs / "python", "-m", "fedlabels", "resume", "mine", "rounds=5",
        "backend=processes", "backend.num_workers=1", cwd=users,
    )  # fmt: skip
    assert more.returncode == 0, more.stderr
    assert len(results(users / "mine")[0]) == 5


def test_help_and_mistakes_import_nothing_heavy(programs, users):
    script = "import sys, fedlabels.command as c; s = c.main(sys.argv[1:]); print(sorted(\
{m.split('.')[0] for m in sys.modules} & {'torch', 'numpy', 'flwr', 'ray', 'hydra', 'sklearn'}), s)"
    for given, text, status in (
        (("--help",), "usage: fedlabels COMMAND", 0),
        (("--version",), "fedlabels ", 0),
        (("rum",), "did you mean run?", 2),
        (("method=fedavg",), "fedlabels run method=fedavg", 2),
    ):
        ended = run(programs / "python", "-c", script, *given, cwd=users)
        assert text in ended.stdout + ended.stderr
        assert ended.stdout.splitlines()[-1] == f"[] {status}"
