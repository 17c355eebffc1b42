"""What stock strategies are shown: float64, the sent order, and no statistics where they step.

Where Flower does otherwise than a rule's name says, a test says in which version and file, and
fails when that changes: then the guard here can go.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower

from fedlabels.errors import ConfigError
from fedlabels.rounds import wire
from fedlabels.rounds.job import Arrays, Job, Task
from fedlabels.simulation.grid import CohortGrid
from fedlabels.strategies.base import Server
from fedlabels.strategies.stock import Stock
from tests.strategies.fakes import (
    FakeBackend,
    Result,
    asked,
    device_replies,
    linear,
    model,
    shifted,
    stock,
)

START: Arrays = {"w": np.full(400, 300.0, np.float32), "b": np.full(3, -7.0, np.float32)}


def close_models(seed: int, clients: int = 6) -> list[Arrays]:
    """Return models that differ by little more than the spacing of float32 numbers."""
    rng = np.random.default_rng(seed)
    return [
        {k: (v + 2e-3 * rng.normal(size=v.shape)).astype(np.float32) for k, v in START.items()}
        for _ in range(clients)
    ]


def exact_krum(models: Sequence[Arrays], malicious: int) -> int:
    """Choose as Blanchard et al. (NeurIPS 2017) do, by the differences themselves."""
    flat = [np.concatenate([m[k].astype(np.float64) for k in m]) for m in models]
    near = len(models) - malicious - 2
    distances = np.array([[np.sum((a - b) ** 2) for b in flat] for a in flat])
    return int(np.argmin(np.sort(distances, axis=1)[:, 1 : near + 1].sum(axis=1)))


def aggregated(strategy: Stock, models: Sequence[Arrays], start: Arrays, **server: Any) -> Arrays:
    """Run one round of a strategy with these models from devices."""
    strategy.bind(Server(seed=1, rounds=4, **server))
    grid = CohortGrid(range(len(models)), FakeBackend())
    messages = strategy.configure("train", 1, wire.to_record(start), grid)
    results = [Result({"model": wire.UpTerm(one)}) for one in models]
    outcome = strategy.aggregate("train", 1, device_replies(messages, results))
    assert outcome.arrays is not None
    assert outcome.clients["rejected"] == 0
    return wire.from_record(outcome.arrays)


def replies_of(models: Sequence[Arrays]) -> list[Message]:
    """Make plain replies, as Flower's own loop gets them."""
    return [
        Message(
            RecordDict({"arrays": wire.to_record(m), "metrics": MetricRecord({"num-examples": 1})}),
            7 + k,
            "train",
        )
        for k, m in enumerate(models)
    ]


class TestDistances:
    def test_krum_chooses_the_client_that_the_exact_rule_chooses(self) -> None:
        for seed in range(12):
            models = close_models(seed)
            chosen = models[exact_krum(models, 1)]
            made = aggregated(stock("Krum", num_malicious_nodes=1), models, START)
            for name, value in chosen.items():
                np.testing.assert_array_equal(made[name], value)

    def test_flowers_own_krum_chooses_others(self) -> None:
        """flwr 1.41, flwr/serverapp/strategy/multikrum.py: |x|^2 + |y|^2 - 2xy in float32."""
        asked(stock("FedAvg"))  # gives this process Flower's identity
        wrong = 0
        for seed in range(12):
            models = close_models(seed)
            made, _ = flower.Krum(num_malicious_nodes=1).aggregate_train(1, replies_of(models))
            assert made is not None
            expected = models[exact_krum(models, 1)]["w"]
            wrong += not np.array_equal(made["w"].numpy().astype(np.float32), expected)
        assert wrong > 0

    def test_multikrum_and_bulyan_see_differences(self) -> None:
        models = close_models(5, 7)
        for name in ("MultiKrum", "Bulyan"):
            made = aggregated(stock(name, num_malicious_nodes=1), models, START)
            assert np.abs(made["w"] - START["w"]).max() < 0.02
            assert made["w"].dtype == np.float32

    def test_inside_differential_privacy(self) -> None:
        name = "DifferentialPrivacyServerSideFixedClipping"
        options = {"noise_multiplier": 0.0, "clipping_norm": 1e6, "num_sampled_clients": 6}
        strategy = stock(name, "Krum", **options)
        models = close_models(3)
        made = aggregated(strategy, models, START)
        np.testing.assert_array_equal(made["w"], models[exact_krum(models, 0)]["w"])


def test_every_rule_is_shown_float64_and_the_sent_order() -> None:
    strategy = stock("FedAvgM")
    seen: list[ArrayRecord] = []
    whole = strategy.strategy.aggregate_train

    def watched(server_round: int, replies: Sequence[Message]) -> Any:
        replies = list(replies)
        seen.extend(reply.content["arrays"] for reply in replies)
        return whole(server_round, replies)

    strategy.strategy.aggregate_train = watched  # type: ignore[method-assign, assignment]
    foreign = {name: shifted(model(), 1.0)[name] for name in reversed(list(model()))}
    aggregated(strategy, [shifted(model(), 0.5), foreign], model())
    assert len(seen) == 2
    for record in seen:
        assert list(record) == [n for n, v in model().items() if v.dtype.kind == "f"]
        assert {a.dtype for a in record.values()} == {"float64"}
        assert {a.numpy().dtype for a in record.values()} == {np.dtype(np.float64)}
        assert record["scale"].shape == (1,)


def test_a_foreign_order_changes_nothing() -> None:
    job = Job("train", 1, 1, (), {"model": model()})
    usual = [linear(Task(k), job).terms["model"].value for k in range(7)]
    turned = [{n: m[n] for n in reversed(list(m))} for m in usual]
    for name in ("FedAvg", "FedAdam", "Krum", "Bulyan", "FedTrimmedAvg"):
        made = [aggregated(stock(name), models, model()) for models in (usual, turned)]
        for key in made[0]:
            np.testing.assert_array_equal(made[0][key], made[1][key])


def test_foreign_names_are_refused() -> None:
    strategy = stock("FedMedian")
    messages = asked(strategy, 3)
    job = Job("train", 1, 1, (), {"model": model()})
    results = [linear(Task(k), job) for k in range(3)]
    value = results[1].terms["model"].value
    value["other"] = value.pop("scale")
    outcome = strategy.aggregate("train", 1, device_replies(messages, results))
    assert outcome.clients["rejected"] == 1


class TestStatistics:
    BUFFERS = frozenset({"bn.running_mean"})

    def moved(self, name: str, **options: Any) -> Arrays:
        models = [shifted(model(), by) for by in (0.1, 0.4)]
        strategy = stock(name, **options)
        made = aggregated(strategy, models, model(), buffers=self.BUFFERS)
        return {n: made[n] - model()[n] for n in made}

    @pytest.mark.parametrize(
        "name", ["DifferentialPrivacyServerSideFixedClipping", "FedAdam", "FedYogi", "FedAvgM"]
    )
    def test_are_averaged_where_a_rule_steps_clips_or_adds_noise(self, name: str) -> None:
        moved = self.moved(name)
        np.testing.assert_allclose(moved["bn.running_mean"], 0.25, atol=1e-6)
        assert np.abs(moved["conv.weight"] - 0.25).max() > 1e-3
        assert moved["bn.num_batches_tracked"] == 0

    def test_are_no_part_of_a_norm_and_get_no_noise(self) -> None:
        name = "DifferentialPrivacyServerSideFixedClipping"
        moved = self.moved(name, noise_multiplier=0.0, clipping_norm=0.05)
        bounded = np.sqrt(np.sum(moved["conv.weight"] ** 2.0) + moved["scale"] ** 2.0)
        np.testing.assert_allclose(bounded, 0.05, rtol=1e-4)

    def test_robust_rules_see_them(self) -> None:
        models = [shifted(model(), by) for by in (0.1, 0.2, 100.0)]
        made = aggregated(stock("FedMedian"), models, model(), buffers=self.BUFFERS)
        moved = made["bn.running_mean"] - model()["bn.running_mean"]
        np.testing.assert_allclose(moved, 0.2, atol=1e-5)


class TestAdaptiveClipping:
    @pytest.mark.parametrize("side", ["ServerSide", "ClientSide"])
    def test_is_refused(self, side: str) -> None:
        name = f"DifferentialPrivacy{side}AdaptiveClipping"
        with pytest.raises(ConfigError, match=f"{name} is refused.*Fixed"):
            stock(name, noise_multiplier=0.1, num_sampled_clients=4, strategy={"name": "FedAvg"})

    def test_flowers_moves_away_from_the_quantile(self) -> None:
        """flwr 1.41, flwr/serverapp/strategy/dp_adaptive_clipping.py, ``_geometric_update``.

        Andrew et al. (arXiv 1905.03871): C <- C exp(-lr (b - quantile)), where b is the share of
        updates that are not clipped. All are clipped, so b is 0 and the norm must grow.
        """
        rule = flower.DifferentialPrivacyServerSideAdaptiveClipping(
            flower.FedAvg(), noise_multiplier=0.0, num_sampled_clients=2, initial_clipping_norm=0.1
        )
        asked(stock("FedAvg"))
        rule.current_arrays = wire.to_record(START)
        rule.aggregate_train(1, replies_of([shifted(START, 5.0), shifted(START, 6.0)]))
        assert rule.clipping_norm < 0.1
