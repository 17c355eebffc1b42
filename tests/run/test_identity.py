"""A run goes on with its own data, code and plan, or says what differs."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedlabels.data import load
from fedlabels.data.content import content_hash
from fedlabels.errors import CheckpointError
from fedlabels.run import code, identity, latest_checkpoint
from fedlabels.run.folder.checkpoint import _self_hash
from tests.end_to_end.harness import config_of, contents, prints, simulate

SETTINGS = (
    "backend=serial", "dataset=npz", "model=mlp", "model.hidden=[8]", "clients=4", "per_round=2",
    "partition=iid", "labels.fraction=0.5", "method=fedavg", "training.lr=0.1",
    "training.steps=3", "checkpoint_every=1",
)  # fmt: skip


def write_data(folder: Path, shift: float = 0.0) -> Path:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(80, 3)).astype(np.float32) + np.float32(shift), np.arange(80) % 2
    folder.mkdir(exist_ok=True)
    for split in ("train", "test"):
        np.savez(folder / f"{split}.npz", x=x, y=y)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "run"
    simulate(folder, settings(data))
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def settings(data: Path, *more: str) -> dict[str, Any]:
    return config_of(*SETTINGS, f"dataset.root={data}", "rounds=2", *more)


def rewrite(folder: Path, **changes: Any) -> None:
    """Change the manifest of the newest checkpoint, as another version would have written it."""
    newest = latest_checkpoint(folder)
    assert newest is not None
    file = newest / "manifest.json"
    manifest = json.loads(file.read_text()) | changes
    manifest = {key: value for key, value in manifest.items() if value is not None}
    file.write_text(json.dumps(manifest | {"sha256": _self_hash(manifest)}))


def test_the_hash_is_that_of_the_content(data: Path, tmp_path: Path) -> None:
    first = content_hash(load("npz", root=str(data)))
    assert content_hash(load("npz", root=str(write_data(tmp_path / "other place")))) == first
    assert content_hash(load("npz", root=str(write_data(tmp_path / "x", 0.5)))) != first


def test_moved_data_go_on(made: Path, data: Path, copy: Path, tmp_path: Path) -> None:
    manifest = json.loads((made / "manifest.json").read_text())
    assert manifest["content"] == {"dataset": content_hash(load("npz", root=str(data)))}
    moved = write_data(tmp_path / "moved")
    simulate(copy, settings(moved, "rounds=3"), resume=True)
    simulate(tmp_path / "whole", settings(data, "rounds=3"))
    assert prints(copy) == prints(tmp_path / "whole")


def test_other_data_are_refused(copy: Path, tmp_path: Path) -> None:
    before = contents(copy)
    other = write_data(tmp_path / "other", 1.0)
    with pytest.raises(CheckpointError, match=r"another content.*\n  dataset: \w{12} -> \w{12}"):
        simulate(copy, settings(other, "rounds=3"), resume=True)
    assert contents(copy) == before


def test_a_file_that_a_setting_names_counts_by_its_content(tmp_path: Path) -> None:
    rows = (*DIGITS, "model=mlp", "method=fedsa", "training.epochs=1", "model.feature_dim=4",
            "strategy.anchor_init=file")  # fmt: skip
    anchors = np.random.default_rng(0).normal(size=(10, 4))
    for name, values in (("a", anchors), ("b", anchors), ("c", anchors + 1)):
        np.save(tmp_path / f"{name}.npy", values)

    def of(name: str, rounds: int) -> dict[str, Any]:
        path = tmp_path / f"{name}.npy"
        return config_of(*rows, f"strategy.anchor_file={path}", f"rounds={rounds}")

    simulate(tmp_path / "run", of("a", 1))
    with pytest.raises(CheckpointError, match=r"another content.*\n  strategy\.anchor_file: "):
        simulate(tmp_path / "run", of("c", 2), resume=True)
    simulate(tmp_path / "run", of("b", 2), resume=True)


def test_a_checkpoint_of_an_earlier_version_goes_on_with_a_warning(
    copy: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(copy, content=None, code=None)
    simulate(copy, settings(data, "rounds=3"), resume=True)
    said = "says nothing of the data's content"
    assert said in capsys.readouterr().err
    assert said in (copy / "run.log").read_text()
    assert said in json.loads((copy / "manifest.json").read_text())["resume_notes"][0]


def test_another_code_is_refused_unless_it_is_allowed(
    copy: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = {"version": "9.9.9", "commit": "c" * 40, "changes": "d" * 12}
    monkeypatch.setattr(identity, "code_of", lambda config: now)
    before = contents(copy)
    with pytest.raises(
        CheckpointError, match=r"version 9\.9\.9, commit c{12} with.*resume_code=any"
    ):
        simulate(copy, settings(data, "rounds=3"), resume=True)
    assert contents(copy) == before
    simulate(copy, settings(data, "rounds=3", "resume_code=any"), resume=True)
    assert "9.9.9" in capsys.readouterr().err


def commit(root: Path, **files: str) -> None:
    """Make a repository with these Python files."""
    git = ("git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b.c")
    for name, text in files.items():
        (root / f"{name}.py").write_text(text)
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "a"]):
        subprocess.run([*git, *command], check=True)
    code.code_version.cache_clear()


def test_the_code_is_a_version_and_a_commit(tmp_path: Path) -> None:
    assert code.code_version(tmp_path) == {"version": code.__version__}
    inside = tmp_path / "lib" / "site-packages"
    inside.mkdir(parents=True)
    commit(tmp_path, a="a = 1\n")
    clean = code.code_version(tmp_path)
    assert len(clean["commit"]) == 40
    assert "changes" not in clean
    (tmp_path / "a.py").write_text("a = 2\n")
    code.code_version.cache_clear()
    assert code.code_version(tmp_path)["changes"]
    # somebody else's repository around an installed package says nothing about the package
    assert code.code_version(inside) == {"version": code.__version__}


def test_files_that_git_does_not_know_yet_are_part_of_the_code(tmp_path: Path) -> None:
    commit(tmp_path, a="a = 1\n")

    def changes(name: str, text: str) -> str | None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        code.code_version.cache_clear()
        return code.code_version(tmp_path).get("changes")

    assert changes("scratch.py", "b = 1\n") is None  # nothing that a run would read
    assert changes("fedlabels/clients/notes.txt", "b") is None
    mine = changes("fedlabels/clients/mine.py", "b = 1\n")
    assert mine is not None
    assert changes("fedlabels/clients/mine.py", "b = 2\n") != mine
    assert changes("fedlabels/clients/mine.py", "b = 1\n") == mine
    assert changes("fedlabels/strategies/support/own.py", "c = 1\n") != mine
    (tmp_path / "fedlabels/strategies/support/own.py").unlink()
    assert changes("fedlabels/configs/method/mine.yaml", "d: 1\n") != mine
    (tmp_path / "fedlabels/configs/method/mine.yaml").unlink()
    (tmp_path / ".gitignore").write_text("fedlabels/clients/mine.py\n")
    assert changes("fedlabels/clients/mine.py", "b = 3\n") is None


def test_threads_are_refused_and_the_execution_is_told(
    copy: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CheckpointError, match=r"backend\.threads: 1 -> 2"):
        simulate(copy, settings(data, "rounds=3", "backend.threads=2"), resume=True)
    simulate(copy, settings(data, "rounds=3", "backend.execution=stacked"), resume=True)
    assert 'backend.execution: "auto" -> "stacked"' in capsys.readouterr().err


DIGITS = (
    "backend=serial", "dataset=digits", "clients=4", "per_round=2", "partition=iid",
    "labels.fraction=0.1", "checkpoint_every=1",
)  # fmt: skip
SCHEDULES = [
    ("method=fedavg", "model=mlp", "training.steps=2", "training.schedule=cosine"),
    ("method=fixbn", "model=lenet", "model.norm=batch", "training.steps=2"),
    ("method=uda", "model=mlp", "training.steps=2", "client.tsa=exp"),
]


@pytest.mark.parametrize("method", SCHEDULES, ids=lambda method: method[0])
def test_more_rounds_leave_a_schedule_as_it_was(method: tuple[str, ...], tmp_path: Path) -> None:
    rows = (*DIGITS, *method)
    simulate(tmp_path / "run", config_of(*rows, "rounds=2"))
    simulate(tmp_path / "run", config_of(*rows, "rounds=4"), resume=True)
    simulate(tmp_path / "whole", config_of(*rows, "rounds=4", "schedule_rounds=2"))
    simulate(tmp_path / "stretched", config_of(*rows, "rounds=4"))
    assert prints(tmp_path / "run") == prints(tmp_path / "whole")
    assert prints(tmp_path / "run") != prints(tmp_path / "stretched")
    assert "schedule_rounds: 2\n" in (tmp_path / "run" / "config.yaml").read_text()
    with pytest.raises(CheckpointError, match="schedule_rounds: 2 -> 5"):
        simulate(tmp_path / "run", config_of(*rows, "rounds=5", "schedule_rounds=5"), resume=True)
