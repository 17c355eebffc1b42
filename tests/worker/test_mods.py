"""Flower's mods in the simulator: what they see, what they bound, on every backend."""

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import mod as flower

from fedlabels.cohort import Term
from fedlabels.errors import ConfigError
from fedlabels.rounds import wire
from fedlabels.rounds.flower_compat import identify, with_mods
from fedlabels.rounds.job import Arrays
from fedlabels.rounds.order import Order
from fedlabels.run import config_hash
from fedlabels.strategies.stock import Stock
from fedlabels.sweep.cells import fingerprint
from fedlabels.worker.mods import Mods
from fedlabels.worker.outcome import Outcome
from tests.end_to_end.harness import TINY, config_of, prints, simulate
from tests.strategies.fakes import model

BUFFERS = frozenset({"bn.running_mean"})
PRIVATE = (
    *TINY, "rounds=2", "method=stock", "training.steps=3",
    "strategy.rule=DifferentialPrivacyClientSideFixedClipping",
    "strategy.options={noise_multiplier: 0.0, clipping_norm: 0.05, num_sampled_clients: 5,"
    " strategy: {name: FedAvg}}", "deploy.mods=[fixed_clipping]",
)  # fmt: skip


def around(mods: Mods, made: Arrays, norm: float = 0.05, **terms: Arrays) -> Outcome:
    """Send a model through mods, as a client that received `model` made it."""
    order = Order("train", 1, 2, {"clipping_norm": norm}, {"model": "sum"}, (), 1, 1)
    value = {name: torch.from_numpy(v) for name, v in made.items()}
    more = {k: Term({n: torch.from_numpy(v) for n, v in t.items()}) for k, t in terms.items()}
    out = Outcome({"model": Term(value, torch.tensor(3.0)), **more})
    return mods.around(mods.message(order, {"model": model()}), out)


def moved(by: float) -> Arrays:
    """Return the model after training: counters and statistics move a lot."""
    start = model()
    return {
        **{n: np.asarray(v + np.asarray(by, v.dtype)) for n, v in start.items()},
        "bn.num_batches_tracked": np.asarray(start["bn.num_batches_tracked"] + 10),
        "table": start["table"] + 100,
        "bn.running_mean": start["bn.running_mean"] + np.float32(50),
    }


def norm_of(out: Outcome) -> float:
    """Return how far the trainable tensors of a result are from the model."""
    value = out.terms["model"].value
    parts = (value[n].numpy().astype(np.float64) - model()[n] for n in ("conv.weight", "scale"))
    return float(np.sqrt(sum(np.sum(part**2) for part in parts)))


class TestFixedClipping:
    def test_bounds_the_parameters_and_leaves_all_else(self) -> None:
        mods = Mods(["fixed_clipping"], BUFFERS)
        made = moved(1.0)
        out = around(mods, made)
        assert norm_of(out) == pytest.approx(0.05, rel=1e-4)
        for name in ("bn.running_mean", "bn.num_batches_tracked", "table"):
            np.testing.assert_array_equal(out.terms["model"].value[name].numpy(), made[name])
        assert {n: v.shape for n, v in out.terms["model"].value.items()} == {
            n: torch.Size(v.shape) for n, v in made.items()
        }
        assert all(v.numpy().dtype == made[n].dtype for n, v in out.terms["model"].value.items())
        assert out.weight() == 3.0

    def test_a_small_update_stays_as_it_is(self) -> None:
        made = moved(1e-3)
        out = around(Mods(["fixed_clipping"], BUFFERS), made, norm=1.0)
        for name, value in out.terms["model"].value.items():
            np.testing.assert_allclose(value.numpy(), made[name], rtol=0, atol=1e-7)

    def test_a_zero_update_passes(self) -> None:
        out = around(Mods(["fixed_clipping"], BUFFERS), model())
        assert out.error is None
        assert norm_of(out) == 0.0

    def test_the_order_of_tensors_does_not_matter(self) -> None:
        made = moved(1.0)
        turned = {name: made[name] for name in reversed(list(made))}
        mods = Mods(["fixed_clipping"], BUFFERS)
        one, other = around(mods, made), around(mods, turned)
        for name, value in one.terms["model"].value.items():
            np.testing.assert_array_equal(value.numpy(), other.terms["model"].value[name].numpy())

    def test_more_than_a_model_cannot_be_bounded(self) -> None:
        out = around(Mods(["fixed_clipping"], BUFFERS), moved(1.0), counts={"n": np.ones(2)})
        assert out.error is not None
        assert "bounds the model alone, but the client sends counts" in out.error

    def test_mods_that_only_look_change_nothing(self) -> None:
        made = moved(1.0)
        out = around(Mods(["message_size", "arrays_size"], BUFFERS), made)
        for name, value in out.terms["model"].value.items():
            np.testing.assert_array_equal(value.numpy(), made[name])

    def test_failed_clients_stay_failed(self) -> None:
        mods = Mods(["fixed_clipping"], BUFFERS)
        message = mods.message(Order("train", 1, 2, {}, {}, (), 1, 1), {"model": model()})
        assert mods.around(message, Outcome(error="boom")).error == "boom"

    def test_adaptive_clipping_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="adaptive_clipping is refused"):
            Mods(["adaptive_clipping"], BUFFERS)


def test_flowers_own_mod_clips_by_counters() -> None:
    """flwr 1.41, flwr/clientapp/mod/centraldp_mods.py: every array is part of the norm."""
    identify()
    start = {"w": np.zeros(4), "steps": np.zeros(1)}
    after = {"w": np.full(4, 0.05), "steps": np.full(1, 10.0)}
    config = ConfigRecord({"clipping_norm": 1.0})
    down = Message(RecordDict({"arrays": wire.to_record(start), "config": config}), 7, "train")

    def train(asked: Message, _: Context) -> Message:
        return Message(RecordDict({"arrays": wire.to_record(after)}), reply_to=asked)

    context = Context(1, 7, {}, RecordDict(), {})
    reply = with_mods(train, [flower.fixedclipping_mod])(down, context)
    assert np.linalg.norm(after["w"]) == pytest.approx(0.1)  # within the bound
    assert np.linalg.norm(reply.content["arrays"]["w"].numpy()) < 0.02


class TestInARun:
    def lengths(self, folder: Path, *overrides: str) -> list[float]:
        """Run, and return the length of every client's update."""
        found: list[float] = []
        whole = Stock.train_outcome

        def noted(self: Stock, round_index: int, replies: Any) -> Any:
            sent, each = self._received or {}, replies.each["model"]
            for row in range(len(each.client_ids)):
                made = each.row(row)
                square = sum(np.sum((made[n].astype(np.float64) - v) ** 2) for n, v in sent.items())
                found.append(float(np.sqrt(square)))
            return whole(self, round_index, replies)

        with mock.patch.object(Stock, "train_outcome", noted):
            simulate(folder, config_of(*PRIVATE, *overrides))
        return found

    def test_updates_are_bounded_on_every_backend_with_the_same_bits(self, tmp_path: Path) -> None:
        serial = self.lengths(tmp_path / "serial")
        assert serial == pytest.approx([0.05] * 10, rel=1e-3)
        workers = ("backend=processes", "backend.num_workers=2")
        assert self.lengths(tmp_path / "processes", *workers) == serial
        assert self.lengths(tmp_path / "stacked", "backend.execution=stacked") == pytest.approx(
            serial, rel=1e-3
        )
        assert prints(tmp_path / "serial") == prints(tmp_path / "processes")

    def test_they_are_part_of_a_runs_identity(self) -> None:
        one, other = (
            config_of(*TINY, "method=fedavg", f"deploy.mods={m}") for m in ("[]", "[arrays_size]")
        )
        assert config_hash(one) != config_hash(other)
        assert fingerprint(one) != fingerprint(other)


def test_stock_fedprox_reaches_its_client(tmp_path: Path) -> None:
    few = (*TINY, "rounds=2", "training.lr=0.1", "training.steps=5", "client=fedprox")
    prox = ("method=stock", "strategy.rule=FedProx", "strategy.options={proximal_mu: 3.0}")
    simulate(tmp_path / "stock", config_of(*few, *prox))
    simulate(tmp_path / "ours", config_of(*few, "method=fedprox", "strategy.proximal_mu=3.0"))
    simulate(tmp_path / "plain", config_of(*few, "method=stock"))
    assert prints(tmp_path / "stock")[0] == prints(tmp_path / "ours")[0]
    assert prints(tmp_path / "stock")[0] != prints(tmp_path / "plain")[0]
