"""Client states: atomic, committed with the round, flushed before a checkpoint counts on them."""

import os

import numpy as np
import pytest

from fedlabels.errors import CheckpointError
from fedlabels.worker.state import StateStore, flatten, pack, unflatten, unpack, verify

STATE = {"model": {"w": np.arange(6.0).reshape(2, 3)}, "optimizer": {"steps": np.array(3)}}


def test_round_trip_of_names():
    again = unflatten(flatten(STATE))
    assert {k: list(v) for k, v in again.items()} == {"model": ["w"], "optimizer": ["steps"]}
    assert np.array_equal(again["model"]["w"], STATE["model"]["w"])


def test_newest_committed_state_is_read(tmp_path):
    store = StateStore(tmp_path)
    assert store.read(3) is None
    for index in (1, 2, 5):
        store.write(3, index, {"w": np.full(2, float(index))})
    assert store.read(3)["w"].tolist() == [5.0, 5.0]
    assert StateStore(tmp_path, committed=2).read(3)["w"].tolist() == [2.0, 2.0]
    assert StateStore(tmp_path, committed=5).read(3)["w"].tolist() == [2.0, 2.0]  # 5 is gone


def test_prune_keeps_what_a_resume_needs(tmp_path):
    store = StateStore(tmp_path)
    for index in (1, 2, 4, 6):
        store.write(0, index, {"w": np.zeros(1)})
    store.prune(4)
    assert sorted(p.stem for p in (tmp_path / "0").iterdir()) == ["00000004", "00000006"]


def rounds_on_disk(folder):
    return [int(path.stem) for path in sorted(folder.iterdir())]


def test_between_checkpoints_only_the_newest_is_kept(tmp_path):
    store = StateStore(tmp_path)
    most = 0
    for index in range(1, 31):
        store.write(0, index, {"w": np.zeros(1)})
        most = max(most, len(rounds_on_disk(tmp_path / "0")))
        if index % 10 == 0:
            store.prune(index - 10, index)
            assert rounds_on_disk(tmp_path / "0") == [r for r in (index - 10, index) if r]
    assert most == 4  # two checkpoints, the round that is done and the one that is not
    store.sync()


def test_versions_are_those_of_a_round_that_is_done(tmp_path):
    store = StateStore(tmp_path)
    for client_id, index in ((0, 1), (0, 2), (5, 2), (0, 3), (9, 3)):
        store.write(client_id, index, {"w": np.full(2, float(index))})
    found = store.versions(2)
    assert {k: v.round for k, v in found.items()} == {0: 2, 5: 2}
    assert unpack(pack(found)) == found
    assert unpack(pack({})) == {}
    verify(tmp_path, found)
    again = StateStore(tmp_path, 2, found)
    assert again.versions(2) == found
    assert StateStore(tmp_path, 2).versions(2) == found  # of an earlier version: read once


def test_a_state_that_the_checkpoint_does_not_count_on_is_not_read(tmp_path):
    store = StateStore(tmp_path)
    store.write(0, 1, {"w": np.zeros(1)})
    found = store.versions(1)
    store.write(4, 1, {"w": np.zeros(1)})
    assert StateStore(tmp_path, 1, found).read(4) is None


def test_a_checkpoint_finds_states_on_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(
        os, "fsync", lambda handle: synced.append(os.readlink(f"/proc/self/fd/{handle}"))
    )
    store = StateStore(tmp_path)
    for client_id in (0, 7):
        store.write(client_id, 1, {"w": np.zeros(1)})
    assert synced == []  # a round of a thousand clients would wait a thousand times
    store.sync()
    files = [str(tmp_path / k / "00000001.safetensors") for k in ("0", "7")]
    assert synced == [*files, str(tmp_path / "0"), str(tmp_path / "7"), str(tmp_path)]
    store.sync()
    assert len(synced) == 5


def test_damaged_file_is_named(tmp_path):
    store = StateStore(tmp_path)
    store.write(1, 1, {"w": np.zeros(4)})
    path = tmp_path / "1" / "00000001.safetensors"
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(CheckpointError, match=r"state of client 1 in .* is damaged"):
        store.read(1)
