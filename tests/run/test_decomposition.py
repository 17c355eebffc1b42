"""The loss decomposition: it adds up, changes nothing, and survives whatever a round brings."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor, nn

from fedlabels.clients import build as build_client
from fedlabels.clients.fedavg import FedAvg
from fedlabels.cohort import DataSpec
from fedlabels.errors import ConfigError
from fedlabels.report import write_report
from fedlabels.rounds.job import EachTerm
from fedlabels.run.callbacks import MeasuredRound
from fedlabels.run.callbacks.decomposition import Decomposition, _completed
from fedlabels.run.setup import build_world
from tests.cohort.harness import World as Awkward
from tests.cohort.harness import check
from tests.end_to_end.harness import (
    FEDAVG,
    TINY,
    column,
    config_of,
    prints,
    simulate,
    table,
    with_client,
)
from tests.end_to_end.toys import Chaos

TERMS = ("loss_local", "loss_shift", "loss_aggregation")
FOUND = {*TERMS, "loss_global"}
SHORT = (*FEDAVG, "rounds=2", "training.steps=5", "precision=float64")
ON = (*SHORT, "callbacks=decomposition", "callbacks.decomposition.every=2")


def on(*extra: str, base: tuple[str, ...] = ON) -> dict[str, Any]:
    return config_of(*base, *(f"callbacks.decomposition.{one}" for one in extra))


def last(folder: Path) -> dict[str, float]:
    row = table(folder)[-1]
    return {k: float(v) for k, v in row.items() if k.startswith("loss_") and v}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full") / "run"
    simulate(folder, on())
    return folder


@pytest.mark.parametrize("execution", ["looped", "stacked"])
def test_it_changes_nothing_of_the_run(full: Path, tmp_path: Path, execution: str) -> None:
    settings = (*SHORT, f"backend.execution={execution}")
    simulate(tmp_path / "without", config_of(*settings))
    measured = tmp_path / "with"
    simulate(measured, config_of(*settings, "callbacks=decomposition"))
    assert prints(measured)[0] == prints(tmp_path / "without")[0]
    assert table(measured, "clients") == table(tmp_path / "without", "clients")
    for with_, without in zip(table(measured), table(tmp_path / "without"), strict=True):
        same = {k: v for k, v in with_.items() if k not in FOUND and not k.startswith("seconds")}
        assert same == {k: v for k, v in without.items() if not k.startswith("seconds")}
    assert last(measured).keys() >= FOUND
    for name in FOUND:  # the order of additions differs, nothing else
        assert last(measured)[name] == pytest.approx(last(full)[name], rel=1e-9)


def test_terms_add_up_in_the_rows_and_in_the_table(full: Path) -> None:
    found = last(full)
    assert sum(found[name] for name in TERMS) == pytest.approx(found["loss_global"], rel=1e-9)
    assert [row["loss_local"] == "" for row in table(full)] == [True, False]
    rows = table(full, "decomposition")
    assert {row["round"] for row in rows} == {"2"}
    assert sum(float(row["weight"]) for row in rows) == pytest.approx(1)
    for name, part in zip(TERMS, ("local", "shift", "aggregation"), strict=True):
        assert sum(float(row[part]) for row in rows) == pytest.approx(found[name], rel=1e-9)
    theirs = sum(float(r["weight"]) * float(r["global_loss"]) for r in rows)
    assert theirs == pytest.approx(found["loss_global"], rel=1e-9)
    assert float(table(full)[-1]["seconds_decomposition"]) > 0


def test_the_global_loss_is_that_of_the_saved_model(full: Path) -> None:
    """Computed here from the files of the run, with plain torch."""
    weights = {k: torch.from_numpy(v) for k, v in load_file(full / "model.safetensors").items()}
    world = build_world(on())
    train, shards = world.source.train, world.federation.labeled
    total, count = 0.0, 0
    for row in table(full, "decomposition"):
        client_id = int(row["client_id"])
        rows = shards[client_id]
        assert int(float(row["samples"])) == len(rows)
        x = torch.from_numpy(train.x[rows]).double().flatten(1)
        x = x / 255 if train.x.dtype == np.uint8 else x
        x = (x - train.mean[0]) / train.std[0]
        hidden = torch.relu(x @ weights["body.1.weight"].T + weights["body.1.bias"])
        logits = hidden @ weights["head.weight"].T + weights["head.bias"]
        labels = torch.from_numpy(train.y[rows])
        total += float(nn.functional.cross_entropy(logits, labels, reduction="sum"))
        count += len(rows)
    assert last(full)["loss_global"] == pytest.approx(total / count, rel=1e-9)


def test_variants_agree_where_they_measure_the_same(full: Path, tmp_path: Path) -> None:
    whole = last(full)
    simulate(tmp_path / "probe", on("variant=probe", "probe_samples=100000"))
    for name in FOUND:
        assert last(tmp_path / "probe")[name] == pytest.approx(whole[name], rel=1e-9)
    assert 0 < last(tmp_path / "probe")["loss_global_error"] < 0.2
    simulate(tmp_path / "two", on("variant=two_term"))
    two = last(tmp_path / "two")
    assert two["loss_local"] == pytest.approx(whole["loss_local"], rel=1e-9)
    assert two["loss_global"] == pytest.approx(whole["loss_global"], rel=1e-9)
    assert two["loss_gap"] == pytest.approx(whole["loss_shift"] + whole["loss_aggregation"])
    assert "loss_shift" not in two
    simulate(tmp_path / "server", on("variant=server", "server_samples=100000"))
    server = last(tmp_path / "server")
    assert server["loss_local"] == pytest.approx(whole["loss_local"], rel=1e-9)
    assert server["loss_global"] == pytest.approx(column(tmp_path / "server", "test_loss")[-1])
    assert sum(server[name] for name in TERMS) == pytest.approx(server["loss_global"], rel=1e-9)


@pytest.mark.parametrize("variant", ["probe", "server"])
def test_the_samples_are_drawn_once_a_run(variant: str, tmp_path: Path) -> None:
    number = {"probe": "probe_samples=3", "server": "server_samples=20"}[variant]
    few = (f"variant={variant}", number)
    still = (*ON, "callbacks.decomposition.every=1", "training.lr=1e-300", "per_round=10")
    simulate(tmp_path / "run", on(*few, base=still))
    losses = column(tmp_path / "run", "loss_global")
    assert losses[0] == losses[1]
    simulate(tmp_path / "other", on(*few, base=(*still, "seed=1")))
    assert column(tmp_path / "other", "loss_global")[0] != losses[0]


def test_hidden_labels_count_if_that_is_wished(full: Path, tmp_path: Path) -> None:
    simulate(tmp_path, on("labels=all"))
    few, all_of_them = (
        [float(row["samples"]) for row in table(folder, "decomposition")]
        for folder in (full, tmp_path)
    )
    assert all(2 * a <= b + 1 for a, b in zip(few, all_of_them, strict=True))
    assert last(tmp_path)["loss_global"] != last(full)["loss_global"]
    assert prints(tmp_path)[0] == prints(full)[0]  # the clients never saw them


METHODS = {
    "fedlabel": ("method=fedlabel_stable", "training.steps=3", "training.steps_unlabeled=3"),
    "fedadam": ("method=fedadam",),
    "median": ("method=stock", "strategy.rule=FedMedian"),
    "fedld": ("method=fedld",),
    "unlabeled clients": ("method=fixmatch", "labels=zero_label_clients", "labels.share=0.5"),
}


@pytest.mark.parametrize("method", METHODS)
def test_any_method_that_exchanges_a_model(method: str, tmp_path: Path) -> None:
    small = (*TINY, "clients=6", "per_round=6", "rounds=1", "callbacks=decomposition")
    simulate(tmp_path, config_of(*small, *METHODS[method]))
    found = last(tmp_path)
    assert sum(found[name] for name in TERMS) == pytest.approx(found["loss_global"], rel=1e-9)
    sizes = [float(row["samples"]) for row in table(tmp_path, "decomposition")]
    assert min(sizes) > 0
    assert (len(sizes) < 6) == (method == "unlabeled clients")


def test_one_participant_has_no_shift(tmp_path: Path) -> None:
    simulate(tmp_path, config_of(*ON, "per_round=1"))
    found = last(tmp_path)
    assert found["loss_shift"] == 0
    assert found["loss_aggregation"] == 0  # the new model is the client's
    assert found["loss_local"] == found["loss_global"]


def test_clients_that_fail_are_left_out(tmp_path: Path) -> None:
    bad = Chaos(lr=0.1, steps=5, raises=(0, 2), poisons=(4,))
    simulate(tmp_path, config_of(*ON, "per_round=10"), with_client(bad))
    rows = table(tmp_path, "decomposition")
    assert {row["client_id"] for row in rows} == {"1", "3", "5", "6", "7", "8", "9"}
    assert sum(float(row["weight"]) for row in rows) == pytest.approx(1)
    found = last(tmp_path)
    assert sum(found[name] for name in TERMS) == pytest.approx(found["loss_global"], rel=1e-9)


def test_nobody_with_a_label(tmp_path: Path) -> None:
    nobody = ("client.name=fedavg", "labels=zero_label_clients", "labels.share=1.0")
    simulate(tmp_path, config_of(*ON, *nobody))
    assert not FOUND & last(tmp_path).keys()
    assert not (tmp_path / "decomposition.csv").exists()
    assert "loss_local" not in table(tmp_path)[0]


@dataclass(frozen=True)
class Fragile(FedAvg):
    """Trains, but cannot be measured."""

    def shard_loss(self, cohort: Any, request: Any) -> Any:
        raise ArithmeticError("no scales here")


def test_a_client_that_cannot_be_measured(tmp_path: Path) -> None:
    simulate(tmp_path, config_of(*ON), with_client(Fragile(lr=0.1, steps=5)))
    assert column(tmp_path, "ok") == [5, 5]
    assert not FOUND & last(tmp_path).keys()


class StopAfter:
    """A user who presses Ctrl-C when a round is shown."""

    def on_run_start(self, *, folder: Any, config: Mapping[str, Any]) -> None:
        """Do nothing."""

    def on_round_end(self, *, record: Mapping[str, Any]) -> bool:
        if record["round"] == 2:
            raise KeyboardInterrupt
        return False

    def on_run_end(self, *, folder: Any) -> None:
        """Do nothing."""


def test_resumed_is_uninterrupted(tmp_path: Path) -> None:
    """Of FedLD, whose gates must be remembered, with a report in every round."""
    settings = config_of(
        *TINY, "method=fedld", "training.lr=0.1", "rounds=3", "callbacks=decomposition",
        "callbacks.decomposition.every=1",
    )  # fmt: skip
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    simulate(whole, settings)
    with pytest.raises(KeyboardInterrupt):
        simulate(parts, settings, callbacks=[StopAfter()])
    simulate(parts, settings, resume=True)
    assert prints(parts) == prints(whole)
    assert table(parts, "decomposition") == table(whole, "decomposition")
    assert len(column(whole, "pg_gap")) == 2  # from round 2 on


def test_the_report_shows_it(full: Path, tmp_path: Path) -> None:
    text = (full / "report.html").read_text()
    assert "Loss decomposition" in text
    assert "distribution shift" in text
    assert "TEST" not in text
    assert ">loss_shift<" not in text  # not among the further metrics as well
    simulate(tmp_path / "two", on("variant=two_term"))
    assert "shift and aggregation" in (tmp_path / "two" / "report.html").read_text()
    simulate(tmp_path / "server", on("variant=server", "server_samples=5"))
    assert "a part of the TEST set" in (tmp_path / "server" / "report.html").read_text()
    simulate(tmp_path / "none", config_of(*SHORT))
    assert "Loss decomposition" not in write_report(tmp_path / "none").read_text()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("variant=half", "variant must be one of full, probe, two_term, server, got 'half'"),
        ("labels=none", "labels must be one of labeled, all"),
        ("every=0", "every must be >= 1, got 0"),
        ("variant=probe probe_samples=0", "probe_samples must be >= 1"),
        ("variant=server server_samples=0", "server_samples must be >= 1"),
    ],
)
def test_settings_are_checked(wrong: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        simulate(tmp_path, on(*wrong.split()))


def test_a_method_without_one_whole_model_is_refused(tmp_path: Path) -> None:
    flute = (*TINY, "method=fedlabel_flute", "callbacks=decomposition")
    with pytest.raises(ConfigError, match="strategy fedlabel asks for local, student"):
        simulate(tmp_path, config_of(*flute))


def test_what_clients_keep_for_themselves_is_averaged() -> None:
    server = {"w": np.ones(2, np.float32), "own": np.zeros(2, np.float32), "n": np.array(3)}
    models = EachTerm(
        [0, 1],
        {"w": np.zeros((2, 2), np.float32), "own": np.array([[1, 2], [5, 6]], np.float32),
         "n": np.array([7, 8])},
        [1.0, 3.0],
    )  # fmt: skip
    seen = MeasuredRound(1, 1, server, models, frozenset({"own", "n"}), backend=None)  # type: ignore[arg-type]
    found = _completed(seen)
    assert found["own"].tolist() == [4, 5]
    assert found["own"].dtype == np.float32
    assert found["w"].tolist() == [1, 1]
    assert found["n"] == 3
    assert _completed(replace(seen, models=None)) == server


@pytest.mark.parametrize("settings", [{}, {"probe": 3}])
def test_the_exchange_is_the_same_looped_and_stacked(settings: dict[str, int]) -> None:
    world = Awkward(build_client({"name": "fedavg"}))
    looped, whole = check(world, exchanges=("shard_loss",), rounds=1, settings=settings)
    assert [int(r.metrics["loss"].count) for r in looped] == [
        min(int(r.metrics["samples"].sum), settings.get("probe", 99)) for r in looped
    ]
    own = {"model": {k: torch.stack([v] * 8) for k, v in world.nets["model"].init.items()}}
    _, same = check(world, exchanges=("shard_loss",), rounds=1, settings=settings, own=own)
    for name in ("loss", "square"):
        mine, theirs = same.metrics[name].sum, whole.metrics[name].sum
        assert torch.allclose(mine, theirs, rtol=1e-12, atol=0)


@dataclass(frozen=True)
class Logistic(FedAvg):
    """Trains a linear classifier: its loss is convex in the weights."""

    def nets(self, model: nn.Module, spec: DataSpec) -> dict[str, nn.Module]:
        class Linear(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.head = nn.Linear(int(np.prod(spec.shape)), spec.num_classes)

            def forward(self, x: Tensor) -> Tensor:
                out: Tensor = self.head(x.flatten(1))
                return out

        return {"model": Linear()}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_averaging_never_adds_to_a_convex_loss(seed: int, tmp_path: Path) -> None:
    """Jensen: F(sum p_i w_i) <= sum p_i F(w_i) where p are the weights of the average."""
    every = ("callbacks.decomposition.every=1", "partition.alpha=0.1", f"seed={seed}", "rounds=3")
    client = Logistic(lr=0.5, steps=20)
    simulate(tmp_path, config_of(*ON, *every), with_client(client))
    terms = column(tmp_path, "loss_aggregation")
    assert len(terms) == 3
    assert max(terms) < -1e-3
    assert min(column(tmp_path, "loss_shift")) > 0


def test_rounds_that_are_reported() -> None:
    chosen = Decomposition(every=3)
    assert [i for i in range(1, 9) if chosen.wants(i, 8)] == [3, 6, 8]
