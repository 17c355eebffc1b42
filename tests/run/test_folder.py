"""The run folder is laid out, never overwritten, and its manifest is whole."""

import os
from pathlib import Path

import pytest

from fedlabels.errors import DataError, RunError
from fedlabels.run import RunFolder, differing_keys, flatten


def test_layout(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "new" / "run")
    assert sorted(p.name for p in folder.path.iterdir()) == ["checkpoints", "figures", "state"]
    assert folder.rounds.path == folder.path / "rounds.csv"
    assert folder.read_manifest() == {}


def test_a_folder_with_other_files_is_fine(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / "run.log").write_text("hello\n")
    RunFolder(tmp_path)
    RunFolder(tmp_path)  # nothing was run yet


@pytest.mark.parametrize("trace", ["manifest.json", "rounds.csv", "checkpoints/round-00000001"])
def test_a_run_is_not_overwritten(tmp_path: Path, trace: str) -> None:
    RunFolder(tmp_path)
    (tmp_path / trace).mkdir()
    with pytest.raises(RunError, match=r"already holds a run.*resume="):
        RunFolder(tmp_path)
    assert RunFolder(tmp_path, resume=True).path == tmp_path


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(RunError, match="is a file"):
        RunFolder(tmp_path / "x", resume=True)


def test_manifest_keeps_what_is_not_set(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.update_manifest(status="running", seed=1)
    folder.update_manifest(status="finished", package={"numpy": "2"})
    assert folder.read_manifest() == {
        "status": "finished",
        "seed": 1,
        "package": {"numpy": "2"},
    }


def test_a_failing_rename_leaves_the_old_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path)
    folder.update_manifest(status="running")

    def refuse(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        folder.update_manifest(status="finished")
    assert folder.read_manifest() == {"status": "running"}
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_damaged_manifest_is_named(tmp_path: Path, text: str) -> None:
    folder = RunFolder(tmp_path)
    folder.manifest.write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json"):
        folder.read_manifest()


def test_cut_back_reaches_every_table(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    tables = (folder.rounds, folder.clients, folder.test_class)
    for table in tables:
        table.append([{"round": index, "client_id": 0} for index in (1, 2, 3)])
    folder.cut_back(1)
    assert [[row["round"] for row in table.rows()] for table in tables] == [["1"]] * 3


def test_flatten_and_compare() -> None:
    nested = {"b": {"c": 1, "d": {}}, "a": [1, {"x": 2}]}
    assert flatten(nested) == {"a": [1, {"x": 2}], "b.c": 1, "b.d": {}}
    assert flatten(flatten(nested)) == flatten(nested)
    assert differing_keys(nested, {"b": {"c": 2, "d": {}}}) == [
        'a: [1, {"x": 2}] -> (absent)',
        "b.c: 1 -> 2",
    ]


def test_rows_are_flushed_with_a_checkpoint_not_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.rounds.append([{"round": 1}])  # a new file is flushed at once
    synced: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda handle: synced.append(os.readlink(f"/proc/self/fd/{handle}"))
    )
    folder.rounds.append([{"round": 2}])
    folder.rounds.append([{"round": 3}])
    assert synced == []
    assert [row["round"] for row in folder.rounds.rows()] == ["1", "2", "3"]
    folder.sync()
    folder.sync()
    assert synced == [str(folder.rounds.path)]
