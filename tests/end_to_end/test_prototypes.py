"""FedSA, FedProto, FedTGP and local training: runs with models that stay with their clients."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedlabels.errors import ConfigError
from fedlabels.run.folder import RunFolder
from fedlabels.run.setup import build_world
from fedlabels.worker.state import StateStore
from tests.end_to_end.harness import (
    column,
    config_of,
    contents,
    newest_states,
    prints,
    simulate,
    table,
)
from tests.run.test_resume import StopAfter

SMALL = (
    "backend=serial", "dataset=digits", "clients=8", "per_round=8", "rounds=2",
    "partition.alpha=0.2", "labels=zero_label_clients", "labels.share=0.25", "labels.fraction=0.5",
    "training.lr=0.05", "test_shards.share=2", "test_shards.by=all",
)  # fmt: skip
ONE = ("model=mlp", "model.hidden=[32]", "model.feature_dim=16")
FOUR = (
    "model=lenet", "model.feature_dim=16",
    "architectures.models=[cnn_pfl, resnet8, {name: mlp, hidden: [32]}]",
)  # fmt: skip
METHODS = {
    "fedsa": ("method=fedsa",),
    "fedproto": ("method=fedproto",),
    "fedtgp": ("method=fedtgp", "strategy.server_epochs=5"),
    "local_training": ("method=local_training",),
}
RULES = {"fedsa": ("prototype", "head", "anchor"), "local_training": ("head",)}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("models", [ONE, FOUR], ids=["one", "four"])
def test_runs_looped_and_stacked_with_clients_that_lack_labels(
    method: str, models: tuple[str, ...], tmp_path: Path
) -> None:
    found = []
    for execution in ("looped", "stacked"):
        folder = tmp_path / execution
        config = config_of(*SMALL, *METHODS[method], *models, f"backend.execution={execution}")
        simulate(folder, config)
        assert "test_accuracy" not in table(folder)[0] or not column(folder, "test_accuracy")
        losses = column(folder, "loss_labeled")
        assert losses[1] < losses[0]
        names = ["", *(f"_{rule}" for rule in RULES.get(method, ("prototype", "head")))]
        names += ["_held", "_lacking", "_pooled"]
        found.append([column(folder, f"personal_accuracy{name}") for name in names])
        assert all(len(values) == 2 for values in found[-1])
        rows = table(folder, "clients")
        without = {row["client_id"] for row in rows if row["labeled"] == "0"}
        assert len(without) == 2
        empty = {row["client_id"] for row in rows if row["status"] == "empty"}
        assert empty == (set() if method == "local_training" else without)
        assert (folder / "report.html").stat().st_size > 10_000
    np.testing.assert_allclose(found[0], found[1], atol=0.06)


def test_no_weight_goes_anywhere(tmp_path: Path) -> None:
    simulate(tmp_path, config_of(*SMALL, *METHODS["fedsa"], *FOUR))
    assert {k: v.shape for k, v in load_file(tmp_path / "model.safetensors").items()} == {
        "anchors": (10, 16)
    }
    rows = table(tmp_path, "clients")
    assert {row["bytes_down"] for row in rows} == {str(4 * 10 * 16)}
    # the table and its mask, whatever the architecture and the number of classes
    assert {row["bytes_up"] for row in rows if row["status"] == "ok"} == {str(4 * 10 * 17)}


def test_clients_that_never_took_part_test_their_fresh_weights(tmp_path: Path) -> None:
    simulate(tmp_path, config_of(*SMALL, *METHODS["fedproto"], *ONE, "per_round=2", "rounds=1"))
    assert len(table(tmp_path, "personal")) == 8
    states = StateStore(RunFolder(tmp_path, resume=True).state, 1)
    assert sum(states.read(k) is not None for k in range(8)) == 2


@pytest.mark.parametrize("method", ["fedsa", "fedtgp", "local_training"])
def test_interrupted_and_resumed_with_four_architectures(method: str, tmp_path: Path) -> None:
    settings = (*SMALL, *METHODS[method], *FOUR, "per_round=5", "rounds=3", "evaluate_every=2")
    whole, folder = tmp_path / "whole", tmp_path / "run"
    simulate(whole, config_of(*settings))
    with pytest.raises(KeyboardInterrupt):
        simulate(folder, config_of(*settings), callbacks=[StopAfter(1)])
    simulate(folder, config_of(*settings), resume=True)
    assert prints(folder) == prints(whole)
    assert newest_states(folder) == newest_states(whole)
    assert table(folder, "personal") == table(whole, "personal")
    shutil.rmtree(folder)


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("method", ["fedsa", "fedtgp"])
def test_same_bits_on_ray_with_four_architectures(method: str, tmp_path: Path) -> None:
    settings = (*SMALL, *METHODS[method], *FOUR, "per_round=5")
    simulate(tmp_path / "serial", config_of(*settings))
    on_ray = ("backend=ray", "backend.num_workers=2")
    simulate(tmp_path / "ray", config_of(*settings, *on_ray))
    assert prints(tmp_path / "ray") == prints(tmp_path / "serial")
    assert contents(tmp_path / "ray" / "state") == contents(tmp_path / "serial" / "state")
    assert table(tmp_path / "ray", "personal") == table(tmp_path / "serial", "personal")


class TestFeatureWidth:
    def width(self, *models: str) -> list[Any]:
        world = build_world(config_of(*SMALL, *METHODS["fedsa"], *models))
        return [group.settings.get("feature_dim") for group in world.population.groups]

    def test_is_said_once_for_all_architectures(self) -> None:
        assert self.width(*FOUR) == [16, 16, 16, 16]
        own = "architectures.models=[{name: mlp, feature_dim: 16}, lenet]"
        assert self.width("model=mlp", "model.feature_dim=16", own) == [16, 16, 16]

    def test_another_width_is_refused(self, tmp_path: Path) -> None:
        models = ("model=mlp", "architectures.models=[{name: mlp, feature_dim: 8}]")
        with pytest.raises(ConfigError, match="one width, got mlp 64, mlp 8; set"):
            simulate(tmp_path, config_of(*SMALL, *METHODS["fedsa"], *models))


def test_anchors_change_what_fedlabel_learns(tmp_path: Path) -> None:
    settings = (
        "backend=serial", "dataset=digits", "model=mlp", "model.hidden=[32]", "clients=6",
        "per_round=6", "rounds=2", "labels.fraction=0.3", "method=fedlabel", "training.steps=10",
        "training.lr=0.1",
    )  # fmt: skip
    accuracy = {}
    for server in ("fedlabel", "fedlabel_anchors"):
        simulate(tmp_path / server, config_of(*settings, f"strategy={server}"))
        accuracy[server] = column(tmp_path / server, "test_accuracy")
    assert accuracy["fedlabel"] != accuracy["fedlabel_anchors"]
    assert (tmp_path / "fedlabel_anchors" / "model.safetensors").exists()
    down = [column(tmp_path / server, "bytes_down")[0] for server in accuracy]
    assert down[1] - down[0] == 6 * 4 * (10 * 32 + 1)
