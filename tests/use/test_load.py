"""A run's model is loaded from its folder alone, and is right as often as the run said."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import fedlabels
from fedlabels import load_model
from fedlabels.data.digits import read_digits
from fedlabels.data.roots import Roots
from fedlabels.errors import ConfigError, DataError
from fedlabels.machine.tensors import tensors_sha256
from fedlabels.models.description import FILE, HEADER, loads
from fedlabels.run.data import dealt_data
from tests.end_to_end.harness import FEDAVG, REPO, column, config_of, simulate, table

TEST = read_digits(Roots(None, ())).test


def right(model: torch.nn.Module, rows: slice | np.ndarray = slice(None)) -> int:
    """Return how many test samples of digits a model has right."""
    with torch.no_grad():
        found = model(torch.from_numpy(TEST.x[rows])).argmax(1).numpy()
    return int((found == TEST.y[rows]).sum())


def config_read(folder: Path) -> dict[str, Any]:
    """Read the settings of a run."""
    found: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text())
    return found


def last_personal(folder: Path) -> dict[int, dict[str, str]]:
    """Return what the clients of a run had in its last round."""
    rows = [row for row in table(folder, "personal") if row["round"] == "2"]
    return {int(row["client_id"]): row for row in rows}


@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
def test_it_is_right_as_often_as_the_run_said(precision: str, run: Path, tmp_path: Path) -> None:
    if precision != "float32":
        run = tmp_path / "run"
        simulate(run, config_of(*FEDAVG, "rounds=2", f"precision={precision}"))
    model = load_model(run)
    assert model.training is False
    assert model.shape == TEST.shape
    assert model.class_names == TEST.class_names
    assert model.origin == "the global model after round 2"
    assert right(model) == round(column(run, "test_accuracy")[-1] * len(TEST)) > 100
    state = torch.get_rng_state()
    again = load_model(str(run / "model.safetensors"))
    assert torch.equal(torch.get_rng_state(), state)
    x = torch.from_numpy(TEST.x[:3])
    assert torch.equal(model(x), again(x))


def test_the_description_is_the_same_for_the_same_run(run: Path, tmp_path: Path) -> None:
    simulate(tmp_path / "again", config_of(*FEDAVG, "rounds=2"))
    for name in (FILE, "model.safetensors"):
        assert (run / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    text = (run / FILE).read_text()
    found = loads(text, FILE)
    assert found.dumps() == text
    assert found.sha256 == tensors_sha256(load_file(run / "model.safetensors"))
    assert (found.samples.mean, found.samples.std) == (TEST.mean, TEST.std)
    assert (found.samples.dtype, found.samples.range) == ("uint8", (0.0, 255.0))
    assert (found.round, found.client, found.strategy) == (2, "fedavg", "fedavg")
    known = json.loads((run / "manifest.json").read_text())["input"]
    assert known == {
        "shape": [1, 8, 8],
        "dtype": "uint8",
        "mean": list(TEST.mean),
        "std": list(TEST.std),
    }


def test_a_file_of_weights_is_enough(run: Path, tmp_path: Path) -> None:
    x = torch.from_numpy(TEST.x[:3])
    whole = load_model(run)
    newest = max((run / "checkpoints").iterdir())
    for k, folder in enumerate((run, newest)):
        alone = shutil.copy(folder / "model.safetensors", tmp_path / f"{k}.safetensors")
        with safe_open(alone, "np") as file:
            assert file.metadata() == {HEADER: (run / FILE).read_text()}
        model = load_model(alone)
        assert (model.origin, model.description) == (whole.origin, whole.description)
        assert torch.equal(model(x), whole(x))


def test_it_is_loaded_without_what_simulations_need(run: Path) -> None:
    code = (
        "import sys, fedlabels\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\n"
        f"model = fedlabels.load_model({str(run)!r})\n"
        "print(sorted({'flwr', 'hydra', 'ray', 'sklearn', 'yaml', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
    with pytest.raises(AttributeError, match="no attribute 'loud'"):
        fedlabels.loud  # noqa: B018


def test_samples_of_another_form_are_refused(run: Path) -> None:
    model = load_model(run)
    with pytest.raises(DataError, match=r"\(batch, 1, 8, 8\) and type uint8, got \(2, 8, 8\)"):
        model(torch.zeros(2, 8, 8, dtype=torch.uint8))
    with pytest.raises(DataError, match=r"got .* float32"):
        model(torch.zeros(2, 1, 8, 8))


def test_series_are_taken_as_they_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 60), ("test", 20)):
        y = np.arange(count) % 2
        x = rng.normal(size=(count, 2, 16)) * [[3], [1]] + 5 * y[:, None, None]
        arrays |= {f"x_{split}": x.astype("float32"), f"y_{split}": y}
    np.savez(tmp_path / "data.npz", **arrays)
    config = config_of(
        "dataset=timeseries_npz", f"dataset.root={tmp_path / 'data.npz'}", "model=cnn1d",
        "dataset.views=timeseries", "clients=3", "per_round=3", "rounds=2", "method=fedavg",
        "backend=serial", "partition=iid", "labels.fraction=1.0", "training.lr=0.1",
    )  # fmt: skip
    simulate(tmp_path / "run", config)
    model = load_model(tmp_path / "run")
    with torch.no_grad():
        found = model(torch.from_numpy(arrays["x_test"])).argmax(1).numpy()
    accuracy = column(tmp_path / "run", "test_accuracy")[-1]
    assert (found == arrays["y_test"]).sum() == round(accuracy * 20)
    x = arrays["x_train"]
    assert model.description.samples.range == (float(x.min()), float(x.max()))


def test_a_client_that_keeps_its_normalization_has_a_model_of_its_own(norms: Path) -> None:
    personal = {
        int(row["client_id"]): row for row in table(norms, "personal") if row["round"] == "2"
    }
    shards = dealt_data(config_read(norms)).federation.test
    drawn = {int(path.name) for path in (norms / "state").iterdir()}
    for client in sorted(drawn)[:2]:
        model = load_model(norms, client=client)
        assert right(model, shards[client]) == round(
            float(personal[client]["accuracy"]) * len(shards[client])
        )
        assert model.origin.startswith(f"client {client}'s own model after round")
    assert right(load_model(norms)) == round(column(norms, "test_accuracy")[-1] * len(TEST))
    missing = next(k for k in range(11) if k not in drawn)
    with pytest.raises(ConfigError, match=f"client={missing}, .*leave client out"):
        load_model(norms, client=missing)


def test_clients_with_models_of_two_architectures(own: Path) -> None:
    with pytest.raises(ConfigError, match=r"client=K\); those that have one: \d"):
        load_model(own)
    personal = last_personal(own)
    dealt = dealt_data(config_read(own))
    kinds = set()
    for client in sorted(int(path.name) for path in (own / "state").iterdir()):
        model = load_model(own, client=client)
        kinds.add(type(model.net).__name__)
        shard = dealt.federation.test[client]
        accuracy = float(personal[client]["accuracy_head"])
        assert right(model, shard) == round(accuracy * len(shard))
    assert kinds == {"MLP", "LeNet"}


def test_a_client_without_a_model_of_its_own(run: Path) -> None:
    with pytest.raises(ConfigError, match="client=1: clients of fedavg keep no model of their own"):
        load_model(run, client=1)


def test_what_cannot_be_used_says_why(run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no .*nothing"):
        load_model(tmp_path / "nothing")
    with pytest.raises(DataError, match="a run has it from its first checkpoint on"):
        load_model(tmp_path)
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    arrays = load_file(copy / "model.safetensors")
    save_file({k: v + 1 for k, v in arrays.items()}, copy / "model.safetensors")
    with pytest.raises(DataError, match="not those that its description is of"):
        load_model(copy)
    other = {k: v for k, v in arrays.items() if not k.startswith("head")}
    save_file(other, copy / "model.safetensors")
    found = loads((copy / FILE).read_text(), FILE)
    (copy / FILE).write_text(replace(found, sha256=tensors_sha256(other)).dumps())
    with pytest.raises(DataError, match=r"does not fit its architecture .*head"):
        load_model(copy)
    (copy / FILE).write_text((copy / FILE).read_text().replace('"format": 1', '"format": 7'))
    with pytest.raises(DataError, match=r"format 7, this version reads 1: use fedlabels"):
        load_model(copy)
    (copy / FILE).write_text("{}")
    with pytest.raises(DataError, match=r"model\.json is damaged"):
        load_model(copy)
    (copy / FILE).unlink()
    with pytest.raises(DataError, match=r"says nothing of its model"):
        load_model(copy)
    (copy / "model.safetensors").write_bytes(b"x")
    with pytest.raises(DataError, match="cannot be read as safetensors"):
        load_model(copy)
