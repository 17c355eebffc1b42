"""A resumed run is the uninterrupted one, bit for bit; what cannot be resumed says why."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fedlabels.errors import CheckpointError, RunError
from fedlabels.run import latest_checkpoint, saving
from fedlabels.run.folder import checkpoint
from fedlabels.simulation.serial import SerialBackend
from tests.end_to_end.harness import (
    FEDAVG,
    REPO,
    TINY,
    changed_once,
    config_of,
    contents,
    prints,
    simulate,
    table,
    with_client,
)
from tests.end_to_end.kill_run import CLIENT, SETTINGS, WHERE

REMEMBER = with_client(CLIENT)


class StopAfter:
    """A user who presses Ctrl-C when a round is shown."""

    def __init__(self, round_index: int) -> None:
        self.round_index = round_index

    def on_run_start(self, *, folder: Any, config: Mapping[str, Any]) -> None:
        """Do nothing."""

    def on_round_end(self, *, record: Mapping[str, Any]) -> bool:
        if record["round"] == self.round_index:
            raise KeyboardInterrupt
        return False

    def on_run_end(self, *, folder: Any) -> None:
        """Do nothing."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    simulate(folder, config_of(*SETTINGS), REMEMBER)
    return folder


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, interrupted after round 3."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(KeyboardInterrupt):
        simulate(folder, config_of(*SETTINGS), REMEMBER, callbacks=[StopAfter(3)])
    return folder


@pytest.fixture
def copy(stopped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "run"))


@pytest.mark.parametrize("where", WHERE)
def test_killed_without_warning(where: str, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "tests.end_to_end.kill_run", str(folder), where]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    died = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    before = table(folder) if (folder / "rounds.csv").exists() else []
    newest = latest_checkpoint(folder)
    assert (newest and newest.name) == (
        None if where == "before_the_first_checkpoint" else "round-00000002"
    )
    if where == "after_two_states":
        assert len(list((folder / "state").glob("*/00000004.safetensors"))) == 2
    simulate(folder, config_of(*SETTINGS), REMEMBER, resume=True)
    assert prints(folder) == prints(whole)
    # rounds before the checkpoint were not computed again: their clock times are the old ones
    assert table(folder)[:2] == before[:2] or not before
    assert [row["round"] for row in table(folder)] == ["1", "2", "3", "4", "5"]
    assert contents(folder / "state") == contents(whole / "state")
    assert last_test(folder) == last_test(whole)
    assert not list(folder.rglob("*.tmp*"))


def last_test(folder: Path) -> dict[str, str]:
    """Fingerprint what the last evaluation left."""
    found = contents(folder)
    return {name: found[name] for name in ("confusion.csv", "calibration.csv", "predictions.npz")}


def without_seconds(folder: Path, name: str) -> list[dict[str, str]]:
    rows = table(folder, name)
    return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in rows]


def test_interrupted(whole: Path, copy: Path) -> None:
    newest = latest_checkpoint(copy)
    assert newest is not None
    assert newest.name == "round-00000003"  # a checkpoint of its own
    assert '"status": "stopped"' in (copy / "manifest.json").read_text()
    before = table(copy)
    simulate(copy, config_of(*SETTINGS), REMEMBER, resume=True)
    assert prints(copy) == prints(whole)
    assert table(copy)[:3] == before
    assert without_seconds(copy, "clients") == without_seconds(whole, "clients")
    assert table(copy, "test_class") == table(whole, "test_class")
    assert last_test(copy) == last_test(whole)


def test_a_damaged_checkpoint_and_then_the_one_before(whole: Path, copy: Path) -> None:
    newest = latest_checkpoint(copy)
    assert newest is not None
    before = contents(copy)
    for name, position in (("model.safetensors", -40), ("manifest.json", 100)):
        with changed_once(newest / name, position):
            damaged = contents(copy)
            with pytest.raises(CheckpointError, match=r"damaged.*delete the folder round-00000003"):
                simulate(copy, config_of(*SETTINGS), REMEMBER, resume=True)
            assert contents(copy) == damaged
    assert contents(copy) == before
    shutil.rmtree(newest)  # as the error says
    simulate(copy, config_of(*SETTINGS), REMEMBER, resume=True)
    assert prints(copy) == prints(whole)


def test_states_of_both_checkpoints_are_kept(whole: Path, tmp_path: Path) -> None:
    """The checkpoint before the last one needs client states that the last one does not."""
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        simulate(folder, config_of(*SETTINGS), REMEMBER, callbacks=[StopAfter(4)])
    newest = latest_checkpoint(folder)
    assert newest is not None
    assert newest.name == "round-00000004"
    shutil.rmtree(newest)
    simulate(folder, config_of(*SETTINGS), REMEMBER, resume=True)
    assert prints(folder) == prints(whole)


@pytest.fixture(scope="module")
def remembering(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of clients with models of their own, all of them in each of two rounds."""
    folder = tmp_path_factory.mktemp("remembering") / "run"
    simulate(folder, config_of(*LOCAL, "rounds=2"))
    return folder


LOCAL = (
    *TINY, "method=local_training", "clients=4", "per_round=4",
    "checkpoint_every=1",
)  # fmt: skip


def flip(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])


def put_back(path: Path) -> None:
    path.write_bytes(path.with_name("00000001.safetensors").read_bytes())


@pytest.mark.parametrize(
    ("change", "said"),
    [(Path.unlink, "is missing"), (flip, "is damaged"), (put_back, "is damaged")],
)
def test_a_state_that_is_not_the_checkpoints_is_refused_by_name(
    change: Any, said: str, remembering: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(remembering, tmp_path / "run"))
    path = folder / "state" / "3" / "00000002.safetensors"
    change(path)
    before = contents(folder)
    with pytest.raises(CheckpointError, match=f"state of client 3 in .*{said}.*restore the file"):
        simulate(folder, config_of(*LOCAL, "rounds=3"), resume=True)
    assert contents(folder) == before
    shutil.rmtree(folder / "checkpoints" / "round-00000002")  # as the error says
    simulate(folder, config_of(*LOCAL, "rounds=3"), resume=True)
    simulate(tmp_path / "whole", config_of(*LOCAL, "rounds=3"))
    assert prints(folder) == prints(tmp_path / "whole")


def test_a_checkpoint_of_an_earlier_version_names_no_states(
    remembering: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(remembering, tmp_path / "run"))
    newest = latest_checkpoint(folder)
    assert newest is not None
    (newest / "states.safetensors").unlink()
    manifest = json.loads((newest / "manifest.json").read_text())
    del manifest["files"]["states.safetensors"]
    manifest["sha256"] = checkpoint._self_hash(manifest)
    (newest / "manifest.json").write_text(json.dumps(manifest))
    simulate(folder, config_of(*LOCAL, "rounds=3"), resume=True)
    simulate(tmp_path / "whole", config_of(*LOCAL, "rounds=3"))
    assert prints(folder) == prints(tmp_path / "whole")


def test_other_settings_are_named(copy: Path) -> None:
    before = contents(copy)
    with pytest.raises(CheckpointError, match=r"training\.lr: 0\.1 -> 0\.2") as caught:
        simulate(copy, config_of(*SETTINGS, "training.lr=0.2"), REMEMBER, resume=True)
    assert str(caught.value).count("->") == 2  # the heading, and one key
    assert contents(copy) == before


def test_another_backend_is_allowed(whole: Path, copy: Path) -> None:
    config = config_of(*SETTINGS, "backend.execution=stacked", "backend.stack_size=4")
    simulate(copy, config, REMEMBER, resume=True)
    accuracy = [[float(row["test_accuracy"]) for row in table(f)] for f in (copy, whole)]
    assert accuracy[0] == pytest.approx(accuracy[1], abs=0.02)


def test_more_rounds_are_allowed(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    simulate(folder, config_of(*SETTINGS, "rounds=2"), REMEMBER)
    simulate(folder, config_of(*SETTINGS), REMEMBER, resume=True)
    assert prints(folder) == prints(whole)


def test_a_finished_run_is_finished(whole: Path) -> None:
    before = contents(whole)
    with pytest.raises(RunError, match=r"has finished its 5 rounds; give a larger rounds="):
        simulate(whole, config_of(*SETTINGS), REMEMBER, resume=True)
    assert contents(whole) == before


def test_a_run_is_not_overwritten(whole: Path) -> None:
    before = contents(whole)
    with pytest.raises(RunError, match=r"already holds a run: go on with it \(resume="):
        simulate(whole, config_of(*SETTINGS), REMEMBER)
    assert contents(whole) == before


def test_seconds_add_up(copy: Path) -> None:
    first = json.loads((copy / "manifest.json").read_text())["seconds"]
    simulate(copy, config_of(*SETTINGS, "rounds=4"), REMEMBER, resume=True)
    assert json.loads((copy / "manifest.json").read_text())["seconds"] > first > 0


def test_a_full_disk_leaves_the_last_checkpoint(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, closed = tmp_path / "run", []
    write, close = checkpoint.write_checkpoint, SerialBackend.close

    def full(path: Path, round_index: int, *rest: Any, **more: Any) -> Path:
        if round_index == 4:
            raise CheckpointError("no space left on device")
        return write(path, round_index, *rest, **more)

    def counted(backend: SerialBackend) -> None:
        closed.append(backend)
        close(backend)

    with monkeypatch.context() as patch:
        patch.setattr(saving, "write_checkpoint", full)
        patch.setattr(SerialBackend, "close", counted)
        with pytest.raises(CheckpointError, match="no space left"):
            simulate(folder, config_of(*SETTINGS), REMEMBER)
    assert len(closed) == 1
    assert '"status": "failed"' in (folder / "manifest.json").read_text()
    simulate(folder, config_of(*SETTINGS), REMEMBER, resume=True)
    assert prints(folder) == prints(whole)


@pytest.mark.parametrize(
    "method", [("fedadam", ()), ("stock", ("strategy.rule=FedAdam", "strategy.options={eta: 0.1}"))]
)
def test_server_optimizers_remember(method: tuple[str, tuple[str, ...]], tmp_path: Path) -> None:
    name, options = method
    config = config_of(*TINY, f"method={name}", *options, "rounds=4", "training.steps=3")
    simulate(tmp_path / "whole", config)
    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path / "run", config, callbacks=[StopAfter(2)])
    simulate(tmp_path / "run", config, resume=True)
    assert prints(tmp_path / "run") == prints(tmp_path / "whole")


def test_what_could_not_start_holds_no_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    config = config_of(*FEDAVG, "rounds=1")
    wrong = {**config, "dataset": {**config["dataset"], "views": "nonsense"}}
    with pytest.raises(ValueError, match="nonsense"):
        simulate(folder, wrong)
    simulate(folder, config)
