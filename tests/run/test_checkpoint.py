"""Checkpoints are whole or refused, and say why."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedlabels.errors import CheckpointError, DiskError
from fedlabels.run import (
    Checkpoint,
    config_hash,
    file_sha256,
    latest_checkpoint,
    read_checkpoint,
    write_checkpoint,
    write_model,
)

CONFIG = {"seed": 1, "rounds": 10, "training": {"lr": 0.1}, "backend": {"num_workers": 2}}
ARRAYS = {
    "w": np.arange(12, dtype=np.float32).reshape(3, 4),
    "transposed": np.arange(6.0).reshape(2, 3).T,
    "strided": np.arange(10, dtype=np.int16)[::3],
    "counter": np.array(7, dtype=np.int64),
    "flag": np.array(True),
    "half": np.float16([0.5, -0.0]),
    "none": np.zeros((0, 3)),
    "big_endian": np.arange(3, dtype=">f4"),
}
STATE = ({"momentum": np.float64([1e-300, np.inf])}, {"step": 3, "best": 0.1, "names": ["a", None]})


def write(folder: Path, index: int, *, keep: int = 2, **more: Any) -> Path:
    manifest = {"config": CONFIG, "federation_hash": "f" * 64, "method": "fedlabel"} | more
    return write_checkpoint(folder, index, ARRAYS, STATE, manifest, keep=keep)


def flip(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(bytes(content))


def rewritten(path: Path) -> Checkpoint:
    return read_checkpoint(path, config=CONFIG, federation_hash="f" * 64)


def test_everything_round_trips(tmp_path: Path) -> None:
    checkpoint = rewritten(write(tmp_path, 12))
    assert checkpoint.path.name == "round-00000012"
    assert checkpoint.round == 12
    assert checkpoint.strategy_values == STATE[1]
    assert checkpoint.manifest["method"] == "fedlabel"
    assert checkpoint.manifest["config"]["training.lr"] == 0.1
    for got, given in ((checkpoint.arrays, ARRAYS), (checkpoint.strategy_arrays, STATE[0])):
        assert set(got) == set(given)
        for name, value in given.items():
            assert got[name].dtype == value.dtype.newbyteorder("=")
            assert got[name].shape == value.shape
            assert np.array_equal(got[name], value)


def test_the_last_ones_stay(tmp_path: Path) -> None:
    for index in range(1, 5):
        write(tmp_path, index, keep=2)
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == ["round-00000003", "round-00000004"]
    latest = latest_checkpoint(tmp_path)
    assert latest is not None
    assert latest.name == "round-00000004"


def test_an_abandoned_future_goes(tmp_path: Path) -> None:
    write(tmp_path, 4)
    write(tmp_path, 8)
    write(tmp_path, 6)
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == ["round-00000004", "round-00000006"]


def test_rounds_beyond_eight_digits_are_in_order(tmp_path: Path) -> None:
    write(tmp_path, 99_999_999)
    newest = write(tmp_path, 100_000_000)
    assert latest_checkpoint(tmp_path) == newest


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None


def test_unfinished_ones_are_skipped_and_removed(tmp_path: Path) -> None:
    first = write(tmp_path, 1)
    leftover = first.with_name(".tmp-round-00000002-abc")
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"half")
    assert latest_checkpoint(tmp_path) == first
    write(tmp_path, 2)
    assert not leftover.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "strategy.safetensors", "manifest.json"])
def test_a_flipped_bit_is_found(tmp_path: Path, name: str) -> None:
    write(tmp_path, 1)
    path = write(tmp_path, 2)
    size = (path / name).stat().st_size
    for position in (0, size // 2, size - 2):
        flip(path / name, position)
        with pytest.raises(CheckpointError, match=rf"{name} is damaged.*resumes from round 1"):
            rewritten(path)
        flip(path / name, position)
    assert rewritten(path).round == 2


@pytest.mark.parametrize("name", ["model.safetensors", "strategy.safetensors", "manifest.json"])
def test_a_missing_or_short_file_is_found(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, 1)
    (path / name).write_bytes((path / name).read_bytes()[:-3])
    with pytest.raises(CheckpointError, match=rf"{name} is damaged.*starts the run over"):
        rewritten(path)
    (path / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} is damaged"):
        rewritten(path)


def test_a_foreign_config_is_refused_with_its_keys(tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    other = CONFIG | {"seed": 2, "client": {"mu": 1.0}, "rounds": 99}
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path, config=other)
    text = str(caught.value)
    assert "seed: 1 -> 2" in text
    assert "client.mu: (absent) -> 1.0" in text
    assert "rounds" not in text


@pytest.mark.parametrize(
    "change",
    [
        {"rounds": 99},
        {"backend": {"num_workers": 8, "address": "auto"}},
        {"tracker": {"kind": "none"}},
        {"callbacks": ["x"]},
        {"checkpoint_every": 3},
        {"report": {"open": True}, "report_every": 2},
    ],
)
def test_what_changes_no_result_may_differ(tmp_path: Path, change: dict[str, Any]) -> None:
    path = write(tmp_path, 1)
    assert read_checkpoint(path, config=CONFIG | change).round == 1
    assert config_hash(CONFIG | change) == config_hash(CONFIG)


def test_another_federation_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    with pytest.raises(CheckpointError, match="another federation"):
        read_checkpoint(path, federation_hash="0" * 64)
    labels = {"labels": {"file": "labels.json"}}
    other = write(tmp_path / "other", 1, config=CONFIG | labels)
    with pytest.raises(CheckpointError, match=r"what labels\.file=labels\.json held then"):
        read_checkpoint(other, federation_hash="0" * 64)


def test_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedlabels.run.folder.checkpoint.FORMAT_VERSION", 9)
    path = write(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"has format 9.*resume with fedlabels"):
        read_checkpoint(path)


def test_the_same_round_can_be_written_again(tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    flip(path / "model.safetensors", 9)
    assert rewritten(write(tmp_path, 1)).round == 1
    assert [p.name for p in path.parent.iterdir()] == ["round-00000001"]


def test_a_failing_rename_leaves_the_old_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write(tmp_path, 1)
    rename = os.rename

    def refuse(source: Path, target: Path) -> None:
        if Path(source).name.startswith(".tmp-") and not refused:
            refused.append(True)
            raise OSError("disk full")
        rename(source, target)

    for index in (2, 1):  # a new name, and the swap with a folder that is there
        refused: list[bool] = []
        monkeypatch.setattr(os, "rename", refuse)
        with pytest.raises(DiskError, match="disk full"):
            write(tmp_path, index)
        monkeypatch.undo()
        assert latest_checkpoint(tmp_path) == first
        assert rewritten(first).round == 1
        assert [p.name for p in first.parent.iterdir()] == ["round-00000001"]


def test_a_kill_while_writing_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write(tmp_path, 1)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fedlabels.run.folder.checkpoint.sync_folder", die)
    monkeypatch.setattr("shutil.rmtree", lambda *a, **k: None)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, 2)
    monkeypatch.undo()
    assert len(list(first.parent.iterdir())) == 2
    assert latest_checkpoint(tmp_path) == first


@pytest.mark.parametrize("bad", [(1, 2), {1: "a"}, np.float64(1.0), b"x", [{"a": np.int64(1)}]])
def test_state_that_json_would_change_is_refused(tmp_path: Path, bad: Any) -> None:
    manifest = {"config": CONFIG, "federation_hash": ""}
    with pytest.raises(CheckpointError, match="strategy state"):
        write_checkpoint(tmp_path, 1, ARRAYS, ({}, {"value": bad}), manifest)
    assert latest_checkpoint(tmp_path) is None


def test_what_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    manifest = {"config": CONFIG, "federation_hash": ""}
    with pytest.raises(CheckpointError, match="cannot store arrays"):
        write_checkpoint(tmp_path, 1, {"a": np.array(["x"])}, ({}, {}), manifest)
    with pytest.raises(CheckpointError, match="lacks"):
        write_checkpoint(tmp_path, 1, ARRAYS, ({}, {}), {})
    with pytest.raises(CheckpointError, match="reserved"):
        write_checkpoint(tmp_path, 1, ARRAYS, ({}, {}), manifest | {"round": 3})
    with pytest.raises(CheckpointError, match="keep >= 1"):
        write_checkpoint(tmp_path, 1, ARRAYS, ({}, {}), manifest, keep=0)


def test_model_bytes_do_not_depend_on_order_or_layout(tmp_path: Path) -> None:
    fortran = {name: np.asarray(value, order="F") for name, value in ARRAYS.items()}
    write_model(tmp_path / "a.safetensors", ARRAYS)
    write_model(tmp_path / "b.safetensors", dict(reversed(fortran.items())))
    assert file_sha256(tmp_path / "a.safetensors") == file_sha256(tmp_path / "b.safetensors")


def test_the_manifest_is_readable_json(tmp_path: Path) -> None:
    path = write(tmp_path, 3)
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["round"] == 3
    assert manifest["files"]["model.safetensors"] == file_sha256(path / "model.safetensors")
    assert manifest["config_hash"] == config_hash(CONFIG)
