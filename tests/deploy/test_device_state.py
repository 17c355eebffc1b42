"""A device's state outlives restarts, goes back with the server, and is never lost."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fedlabels.deploy.device_state import KEPT, OWNER, DeviceState, adopt, sealed, unsealed
from fedlabels.errors import CheckpointError, ConfigError
from fedlabels.run.folder.checkpoint import write_checkpoint
from fedlabels.worker.state import StateStore

NEW = {"kept/w": np.arange(3.0)}


def test_it_outlives_a_restart(tmp_path):
    state = DeviceState(tmp_path / "s", "run1", 2)
    assert state.read(0) is None
    state.write(1, NEW, 0)
    again = DeviceState(tmp_path / "s", "run1", 2)
    np.testing.assert_array_equal(again.read(1)["kept/w"], NEW["kept/w"])
    assert again.notes == []


def test_it_goes_back_with_the_server(tmp_path):
    state = DeviceState(tmp_path, "run1", 2)
    for round_index in (1, 2, 3):
        state.read(round_index - 1)
        state.write(round_index, {"kept/w": np.full(2, float(round_index))}, 0)
    again = DeviceState(tmp_path, "run1", 2)
    np.testing.assert_array_equal(again.read(2)["kept/w"], [2.0, 2.0])
    assert sorted(p.stem for p in (tmp_path / "2").iterdir()) == ["00000001", "00000002"]


def test_what_no_resume_needs_is_removed(tmp_path):
    state = DeviceState(tmp_path, "run1", 0)
    for round_index in range(1, 8):
        state.read(round_index - 1)
        state.write(round_index, NEW, kept_from=max(0, round_index - 2))
    assert sorted(p.stem for p in (tmp_path / "0").iterdir()) == [
        "00000005", "00000006", "00000007",
    ]  # fmt: skip


@pytest.mark.parametrize(("run", "client_id"), [("run2", 2), ("run1", 3)])
def test_foreign_state_is_set_aside(tmp_path, run, client_id):
    first = DeviceState(tmp_path, "run1", 2)
    first.read(0)
    first.write(1, NEW, 0)
    other = DeviceState(tmp_path, run, client_id)
    assert other.read(5) is None
    assert "of run run1, client 2" in other.notes[0]
    (kept,) = tmp_path.glob("aside/*/2/00000001.safetensors")
    assert kept.stat().st_size > 0
    other.write(1, NEW, 0)
    assert DeviceState(tmp_path, run, client_id).notes == []


@pytest.mark.parametrize("content", [b"", b"no tensors at all"])
def test_damaged_state_is_set_aside(tmp_path, content):
    state = DeviceState(tmp_path, "run1", 2)
    state.read(0)
    state.write(1, NEW, 0)
    (tmp_path / "2" / "00000001.safetensors").write_bytes(content)
    again = DeviceState(tmp_path, "run1", 2)
    assert again.read(1) is None
    assert "damaged" in again.notes[0]
    (kept,) = tmp_path.glob("aside/*/2/00000001.safetensors")
    assert kept.read_bytes() == content
    again.write(2, NEW, 0)
    assert DeviceState(tmp_path, "run1", 2).read(2) is not None


def test_a_flipped_bit_is_damage(tmp_path):
    state = DeviceState(tmp_path, "run1", 2)
    state.read(0)
    state.write(1, NEW, 0)
    file = tmp_path / "2" / "00000001.safetensors"
    whole = file.read_bytes()
    for place in (len(whole) - 40, whole.index(b"kept/w")):  # in a value, in a name: both parse
        damaged = bytearray(whole)
        damaged[place] ^= 1
        file.write_bytes(damaged)
        assert load_file(file)
        again = DeviceState(tmp_path, "run1", 2)
        assert again.read(1) is None
        assert "SHA-256" in again.notes[0]
        assert again.kinds == ["its state was damaged, and was set aside"]
        file.parent.mkdir()


def test_states_of_earlier_versions_are_read(tmp_path):
    state = DeviceState(tmp_path, "run1", 2)
    state.read(0)
    (tmp_path / "2").mkdir()
    save_file(NEW, tmp_path / "2" / "00000001.safetensors")
    again = DeviceState(tmp_path, "run1", 2)
    np.testing.assert_array_equal(again.read(1)["kept/w"], NEW["kept/w"])
    again.write(2, again.read(1), 0)
    assert again.read(2).keys() == NEW.keys()  # the checksum is no part of it
    for odd in ({}, {"kept/w": np.array(1.5)}, {"kept/": np.zeros(0, np.uint8)}):
        assert unsealed(sealed(odd)).keys() == odd.keys()


def test_states_without_an_owner_are_set_aside(tmp_path):
    state = DeviceState(tmp_path, "run1", 2)
    state.read(0)
    state.write(1, NEW, 0)
    (tmp_path / OWNER).write_text("{")
    again = DeviceState(tmp_path, "run1", 2)
    assert again.read(1) is None
    assert "unknown origin" in again.notes[0]


def test_a_folder_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="state-dir"):
        DeviceState(tmp_path / "file", "run1", 0)


def test_a_simulated_state_is_carried_over(tmp_path):
    run = tmp_path / "run"
    (run / "state").mkdir(parents=True)
    (run / "manifest.json").write_text(json.dumps({"run_id": "run1"}))
    simulated = DeviceState(run / "state", "any", 2)  # writes the very files of a simulation
    simulated.read(0)
    simulated.write(4, NEW, 0)
    copied = adopt(run, 2, tmp_path / "device")
    assert copied.name == "00000004.safetensors"
    device = DeviceState(tmp_path / "device", "run1", 2)
    np.testing.assert_array_equal(device.read(4)["kept/w"], NEW["kept/w"])
    assert device.notes == []
    with pytest.raises(CheckpointError, match="holds a state already"):
        adopt(run, 2, tmp_path / "device")
    with pytest.raises(CheckpointError, match="no state of client 5"):
        adopt(run, 5, tmp_path / "other")
    with pytest.raises(CheckpointError, match="no run folder"):
        adopt(tmp_path, 2, tmp_path / "other")


def test_a_simulated_state_that_is_not_the_checkpoints_is_refused(tmp_path):
    run = tmp_path / "run"
    (run / "state").mkdir(parents=True)
    (run / "manifest.json").write_text(json.dumps({"run_id": "run1"}))
    store = StateStore(run / "state")
    store.write(2, 4, NEW)
    manifest = {"config": {"seed": 0}, "federation_hash": ""}
    write_checkpoint(run, 4, NEW, ({}, {}), manifest, states=store.versions(4))
    file = run / "state" / "2" / "00000004.safetensors"
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(CheckpointError, match="SHA-256 is not the checkpoint's"):
        adopt(run, 2, tmp_path / "device")
    assert not (tmp_path / "device").exists()


def test_what_others_keep_there_is_theirs(tmp_path):
    state = DeviceState(tmp_path, "run1", 2)
    state.read(0)
    state.write(1, NEW, 0)
    for name in ("project/draft.tmp", "models/x.safetensors", "2/mine.tmp", "2/mine.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    (tmp_path / "2" / "00000002.tmp").write_text("left by a write that was killed")
    again = DeviceState(tmp_path, "run1", 2)
    np.testing.assert_array_equal(again.read(1)["kept/w"], NEW["kept/w"])
    assert DeviceState(tmp_path, "run2", 2).read(1) is None  # sets the state aside
    assert (tmp_path / "project" / "draft.tmp").read_text() == "mine"
    assert (tmp_path / "models" / "x.safetensors").read_text() == "mine"
    (aside,) = tmp_path.glob("aside/*/2")
    assert sorted(path.name for path in aside.iterdir()) == [
        "00000001.safetensors", "mine.safetensors", "mine.tmp",
    ]  # fmt: skip


def test_a_folder_of_others_is_not_taken(tmp_path):
    (tmp_path / "models").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match="holds models, which is no device's state"):
        DeviceState(tmp_path, "run1", 0)
    run = tmp_path.parent / f"{tmp_path.name}-run"
    (run / "state" / "0").mkdir(parents=True)
    (run / "manifest.json").write_text('{"run_id": "run1"}')
    (run / "state" / "0" / "00000001.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="holds models"):
        adopt(run, 0, tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "disk" / "lost+found").mkdir(parents=True)  # a fresh file system
    DeviceState(tmp_path / "disk", "run1", 0)


def test_aside_is_bounded(tmp_path):
    (tmp_path / "aside" / "mine").mkdir(parents=True)
    for number in range(KEPT + 4):
        state = DeviceState(tmp_path, f"run{number}", 0)
        state.read(0)
        state.write(1, {"kept/w": np.full(1, float(number))}, 0)
    kept = sorted(p for p in (tmp_path / "aside").iterdir() if p.name != "mine")
    owners = [json.loads((p / OWNER).read_text())["run"] for p in kept]
    assert owners == [f"run{number}" for number in range(3, KEPT + 3)]
    assert (tmp_path / "aside" / "mine").is_dir()


def test_a_device_is_known_by_a_number_of_its_own(tmp_path):
    mark = DeviceState(tmp_path / "a", "run1", 0).mark()
    assert DeviceState(tmp_path / "a", "run2", 1).mark() == mark  # another run, the same device
    assert DeviceState(tmp_path / "b", "run1", 0).mark() != mark
    assert (tmp_path / "a" / "device.json").stat().st_mode & 0o077 == 0
    (tmp_path / "a" / "device.json").write_text("{")
    assert len(DeviceState(tmp_path / "a", "run2", 1).mark()) == 32
