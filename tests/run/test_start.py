"""``model.start``: a run begins from another one's model, wherever its clients are."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from fedlabels.deploy.server import undealt
from fedlabels.errors import CheckpointError, ConfigError, DataError
from fedlabels.machine.tensors import tensors_sha256
from fedlabels.run import RunFolder
from fedlabels.run.setup import build_server_backend, build_world
from fedlabels.run.start import KEPT, start_of
from fedlabels.run.world import World
from fedlabels.sweep.cells import fingerprint
from fedlabels.use import load_model
from tests.end_to_end.harness import FEDAVG, TINY, config_of, prints, simulate

STILL = "training.lr=1e-12"


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run whose model others begin from."""
    folder = tmp_path_factory.mktemp("start") / "first"
    simulate(folder, config_of(*FEDAVG, "rounds=1"))
    return folder


def weights(folder: Path) -> dict[str, Any]:
    return load_file(folder / "model.safetensors")


def near(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Say whether two models are the same but for steps that are as good as none."""
    return one.keys() == other.keys() and all(np.allclose(one[k], other[k]) for k in one)


def test_it_begins_there_and_goes_on_after_the_place_is_gone(first: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(first, tmp_path / "first"))
    config = config_of(*FEDAVG, f"model.start={place}", "rounds=2")
    simulate(tmp_path / "whole", config)
    simulate(tmp_path / "short", {**config, "rounds": 1})
    shutil.rmtree(place)
    simulate(tmp_path / "short", config, resume=True)
    assert prints(tmp_path / "short") == prints(tmp_path / "whole")
    said = json.loads((tmp_path / "whole" / "manifest.json").read_text())["content"]
    assert said["model.start"] == tensors_sha256(weights(first))
    assert load_file(tmp_path / "whole" / KEPT).keys() == weights(first).keys()
    other = config_of(*FEDAVG, f"model.start={first / 'model.safetensors'}", "rounds=2")
    simulate(tmp_path / "other", {**other, "backend": {**other["backend"], "name": "processes"}})
    assert prints(tmp_path / "other") == prints(tmp_path / "whole")
    save_file({k: v + 1 for k, v in weights(first).items()}, tmp_path / "x.safetensors")
    changed = config_of(*FEDAVG, f"model.start={tmp_path / 'x.safetensors'}", "rounds=3")
    with pytest.raises(CheckpointError, match=r"another content.*\n  model\.start: "):
        simulate(tmp_path / "short", changed, resume=True)
    assert fingerprint(config, {"model.start": "a"}) != fingerprint(config, {"model.start": "b"})
    with pytest.raises(CheckpointError, match=r'model\.start: "\(a file\)" -> \(absent\)'):
        simulate(tmp_path / "short", config_of(*FEDAVG, "rounds=3"), resume=True)


def test_the_first_round_has_its_weights(first: Path, tmp_path: Path) -> None:
    config = config_of(*FEDAVG, f"model.start={first}", "rounds=1", STILL, "training.steps=1")
    simulate(tmp_path / "run", config)
    assert near(weights(tmp_path / "run"), weights(first))


def test_clients_own_models_begin_there(first: Path, tmp_path: Path) -> None:
    own = ("method=local_training", "model.feature_dim=32")
    settings = (*own, f"model.start={first}", "rounds=1", STILL)
    for execution in ("looped", "stacked"):
        config = config_of(*TINY, *settings, f"backend.execution={execution}")
        simulate(tmp_path / execution, config)
        client = int(next((tmp_path / execution / "state").iterdir()).name)
        found = load_model(tmp_path / execution, client=client).net.state_dict()
        assert near({k: v.numpy() for k, v in found.items()}, weights(first))


def test_what_is_new_is_drawn_and_named(first: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split in ("train", "test"):
        arrays[f"x_{split}"] = rng.integers(0, 256, (60, 8, 8)).astype("uint8")
        arrays[f"y_{split}"] = np.arange(60) % 3
    np.savez(tmp_path / "three.npz", **arrays)
    data = (
        "dataset=npz",
        f"dataset.root={tmp_path / 'three.npz'}",
        "rounds=1",
        STILL,
        "clients=3",
        "per_round=3",
    )
    simulate(tmp_path / "new", config_of(*FEDAVG, *data))
    simulate(tmp_path / "run", config_of(*FEDAVG, *data, f"model.start={first}"))
    notes = json.loads((tmp_path / "run" / "manifest.json").read_text())["notes"]
    assert notes[0] == (
        "model.start: 2 of 4 tensors begin anew, since it has none of their names and shapes: "
        "head.weight (3, 32), head.bias (3,)"
    )
    found, new = weights(tmp_path / "run"), weights(tmp_path / "new")
    for name, value in found.items():
        assert np.allclose(value, (new if name.startswith("head") else weights(first))[name])
    more = {**weights(first), "extra": np.zeros(3, "float32")}
    save_file(more, tmp_path / "more.safetensors")
    config = config_of(*FEDAVG, f"model.start={tmp_path / 'more.safetensors'}")
    start = start_of(config, world_of(config), tmp_path / "none", None)
    assert start is not None
    assert start.notes == ("model.start: 1 of its tensors are no part of the model: extra (3,)",)


def world_of(config: dict[str, Any]) -> World:
    return build_world(config)


def test_what_does_not_fit_is_refused_before_anything_is_written(
    first: Path, tmp_path: Path
) -> None:
    save_file({"a": np.zeros(3, "float32")}, tmp_path / "a.safetensors")
    save_file({}, tmp_path / "none.safetensors")
    bias = {"head.bias": weights(first)["head.bias"]}
    save_file(bias, tmp_path / "bias.safetensors")
    wrong = {"int": np.int64(1), "nan": np.float32("nan")}
    for name, factor in wrong.items():
        arrays = {k: (v * factor).astype(factor.dtype) for k, v in weights(first).items()}
        save_file(arrays, tmp_path / f"{name}.safetensors")
    cases = [
        (f"model.start={tmp_path / 'none.safetensors'}", ConfigError, "it holds nothing; the mod"),
        (f"model.start={tmp_path / 'int.safetensors'}", DataError, "of int64, and the model's of"),
        (f"model.start={tmp_path / 'nan.safetensors'}", DataError, "entries that are not finite"),
        (f"model.start={tmp_path / 'bias.safetensors'}", ConfigError, "nothing below the head"),
        (
            f"model.start={tmp_path / 'a.safetensors'}",
            ConfigError,
            r"holds a \(3,\); the model has",
        ),
        (f"model.start={tmp_path / 'nowhere'}", DataError, "model.start=.*: there is no"),
        (f"model.start={tmp_path}", DataError, "a run has it from its first checkpoint on"),
    ]
    for override, kind, text in cases:
        with pytest.raises(kind, match=text):
            simulate(tmp_path / "run", config_of(*FEDAVG, override))
    with pytest.raises(ConfigError, match=r"model\.start must be a run folder or a"):
        config_of(*FEDAVG, "model.start=3")
    two = ("method=local_training", "architectures.models=[lenet]", f"model.start={first}")
    with pytest.raises(ConfigError, match=r"empty architectures\.models"):
        simulate(tmp_path / "run", config_of(*TINY, *two))
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_server_of_devices_begins_there(first: Path, tmp_path: Path) -> None:
    config = config_of(*FEDAVG, f"model.start={first}")
    world = build_world(config, undealt)
    start = start_of(config, world, tmp_path, None)
    folder = RunFolder(tmp_path / "run")
    backend = build_server_backend(config, replace(world, start=start), folder, 0)
    assert all((value == weights(first)[name]).all() for name, value in backend.initial().items())
    backend.close()


def test_a_resume_with_other_settings_names_the_way(first: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(first, tmp_path / "run"))
    with pytest.raises(CheckpointError, match=rf"new run with model\.start={copy} in place of"):
        simulate(copy, config_of(*FEDAVG, "training.lr=0.01", "rounds=2"), resume=True)


def test_weights_of_a_wider_type_keep_their_digits(first: Path, tmp_path: Path) -> None:
    wide = {k: v.astype("float64") + 1e-9 for k, v in weights(first).items()}
    save_file(wide, tmp_path / "wide.safetensors")
    config = config_of(*FEDAVG, f"model.start={tmp_path / 'wide.safetensors'}", "precision=float64")
    world = build_world(config)
    start = start_of(config, world, tmp_path, None)
    backend = build_server_backend(
        config, replace(world, start=start), RunFolder(tmp_path / "run"), 0
    )
    assert all((value == wide[name]).all() for name, value in backend.initial().items())
    backend.close()
    assert torch.get_default_dtype() is torch.float32
