import random
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlabels.errors import CheckpointError, RunError
from fedlabels.rounds import wire
from fedlabels.rounds.job import Arrays, Job, JobResult, SumTerm, Task
from fedlabels.rounds.replies import Replies
from fedlabels.simulation.grid import CohortGrid
from fedlabels.strategies.base import MODEL_KEPT, CohortStrategy, Merged, Server, State, restored
from fedlabels.strategies.fedavg import FedAvg
from fedlabels.strategies.fedprox import FedProx, FedProxSettings
from fedlabels.strategies.support import Collected, draw, global_random
from tests.strategies.fakes import (
    FakeBackend,
    Result,
    asked,
    device_replies,
    linear,
    model,
    run,
    same,
    shifted,
)


class TestFedAvg:
    def test_is_the_weighted_mean(self) -> None:
        history = run(FedAvg(), rounds=[1], clients=3, per_round=None)
        # Weights 1, 2, 3 and shifts 0.011 * (1, 2, 3): mean shift 0.011 * 14 / 6.
        shift = 0.011 * 14 / 6
        before, after = model(), history.models[0]
        np.testing.assert_allclose(after["conv.weight"] - before["conv.weight"], shift, atol=1e-7)
        np.testing.assert_allclose(after["scale"] - before["scale"], shift, atol=1e-7)

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_dtypes_and_integer_buffers_are_the_servers(self, dtype: str) -> None:
        history = run(FedAvg(), start=model(dtype))
        for arrays in history.models:
            assert {k: v.dtype for k, v in arrays.items()} == {
                k: v.dtype for k, v in model(dtype).items()
            }
            np.testing.assert_array_equal(arrays["table"], model()["table"])
            assert arrays["bn.num_batches_tracked"] == 7

    def test_metrics_are_sums_over_counts(self) -> None:
        def client(task: Task, job: Job) -> Result:
            result = linear(task, job)
            if task.client_id == 0:  # unequal keys stop Flower's own FedAvg
                result.metrics = {"accuracy": (3.0, 4.0), "never": (0.0, 0.0)}
            return result

        (outcome,) = run(FedAvg(), client, rounds=[1], clients=3, per_round=None).outcomes
        assert outcome.metrics == {"accuracy": 0.75, "loss": 2.0}
        assert outcome.weight == 6.0
        assert outcome.clients == {"ok": 3, "empty": 0, "failed": 0, "rejected": 0}

    def test_nobody_with_weight_keeps_the_model_and_says_so(self) -> None:
        def client(task: Task, job: Job) -> Result:
            return Result(weight=0.0, metrics={"loss": (1.0, 2.0)})

        (outcome,) = run(FedAvg(), client, rounds=[1]).outcomes
        assert outcome.arrays is None
        assert outcome.metrics == {"loss": 0.5, MODEL_KEPT: 1.0}
        assert outcome.clients["empty"] == 4

    def test_nobody_answering_keeps_the_model(self) -> None:
        strategy = FedAvg()
        asked(strategy)
        empty: list[Message] = []
        for replies in (empty, Replies()):
            outcome = strategy.aggregate("train", 1, replies)
            assert outcome.arrays is None
            assert outcome.metrics == {MODEL_KEPT: 1.0}

    def test_failed_clients_are_counted_and_left_out(self) -> None:
        def client(task: Task, job: Job) -> Result:
            return Result(error="boom") if task.client_id == 2 else linear(task, job)

        some = run(FedAvg(), client, rounds=[1], clients=3, per_round=None)
        others = run(FedAvg(), rounds=[1], clients=2, per_round=None)
        same(some.models[0], others.models[0])
        assert some.outcomes[0].clients["failed"] == 1

    def test_private_tensors_keep_the_servers_values(self) -> None:
        def client(task: Task, job: Job) -> Result:
            result = linear(task, job)
            del result.terms["model"].value["bn.running_mean"]
            return result

        history = run(FedAvg(), client, rounds=[1])
        np.testing.assert_array_equal(
            history.models[0]["bn.running_mean"], model()["bn.running_mean"]
        )

    @pytest.mark.parametrize("weight", [0.0, {n: np.zeros(()) for n in model()}])
    def test_a_sum_without_weight_keeps_the_model(self, weight: Any) -> None:
        strategy = FedAvg()
        asked(strategy)
        total = {name: np.zeros(value.shape) for name, value in model().items()}
        replies = Replies([], [JobResult([], {"model": SumTerm(total, weight, count=1)})])
        assert strategy.aggregate("train", 1, replies).arrays is None

    def test_entries_without_weight_keep_the_servers(self) -> None:
        strategy = FedAvg()
        asked(strategy)
        total = {name: np.ones(value.shape) for name, value in model().items()}
        weight = {name: np.full((), float(name == "scale")) for name in total}
        replies = Replies([], [JobResult([], {"model": SumTerm(total, weight, count=1)})])
        outcome = strategy.aggregate("train", 1, replies)
        assert outcome.arrays is not None
        same(wire.from_record(outcome.arrays), {**model(), "scale": np.array(1.0, np.float32)})

    def test_runs_in_flowers_own_loop(self) -> None:
        grid = CohortGrid(range(4), FakeBackend())
        strategy = FedAvg()
        strategy.bind(Server(seed=0))
        result = strategy.start(grid, wire.to_record({"w": np.zeros(3, np.float32)}), num_rounds=2)
        np.testing.assert_allclose(result.arrays["w"].numpy(), 0.03 * 2.3, rtol=1e-6)
        assert result.arrays["w"].dtype == "float32"


class TestDevices:
    def results(self, count: int) -> list[Result]:
        tasks = [Task(k) for k in range(count)]
        job = Job("train", 1, 4, tuple(tasks), {"model": model()})
        return [linear(task, job) for task in tasks]

    def test_plain_messages_give_what_sums_give(self) -> None:
        strategy = FedAvg()
        messages = asked(strategy)
        outcome = strategy.aggregate("train", 1, device_replies(messages, self.results(6)))
        simulated = run(FedAvg(), rounds=[1], per_round=None)
        assert outcome.arrays is not None
        same(wire.from_record(outcome.arrays), simulated.models[0], atol=1e-7)
        assert outcome.metrics == simulated.outcomes[0].metrics

    def test_the_order_of_replies_does_not_matter(self) -> None:
        strategy = FedAvg()
        start = model("float64")
        grid = CohortGrid(range(6), FakeBackend())
        strategy.bind(Server())
        messages = strategy.configure("train", 1, wire.to_record(start), grid)
        shifts = (0.1, 1e8, -1e8, 1 / 3, 7e-9, -0.7)
        results = [Result({"model": wire.UpTerm(shifted(start, by))}, 0.3 + by**2) for by in shifts]
        replies = device_replies(messages, results)
        first = strategy.aggregate("train", 1, replies)
        second = strategy.aggregate("train", 1, list(reversed(replies)))
        assert first.arrays is not None
        assert second.arrays is not None
        same(wire.from_record(first.arrays), wire.from_record(second.arrays))

    def test_a_client_without_weight_is_empty_whatever_it_sends(self) -> None:
        results = self.results(6)
        results[2].weight = 0.0
        strategy = FedAvg()
        replies = device_replies(asked(strategy), results)
        outcome = strategy.aggregate("train", 1, replies)
        assert outcome.clients == {"ok": 5, "empty": 1, "failed": 0, "rejected": 0}

    @pytest.mark.parametrize("fault", ["name", "shape", "dtype", "nan", "inf", "extra", "weight"])
    def test_a_bad_update_is_dropped_and_counted(self, fault: str) -> None:
        results = self.results(6)
        bad = results[2].terms["model"].value
        if fault == "name":
            bad["other"] = bad.pop("conv.weight")
        elif fault == "shape":
            bad["conv.weight"] = bad["conv.weight"].T
        elif fault == "dtype":
            bad["conv.weight"] = bad["conv.weight"].astype(np.float64)
        elif fault in ("nan", "inf"):
            bad["conv.weight"][1, 1] = float(fault)
        elif fault == "extra":
            bad["more"] = np.zeros(3, np.float32)
        strategy = FedAvg()
        messages = asked(strategy)
        replies = device_replies(messages, results)
        if fault == "weight":
            replies[2].content.metric_records["metrics"]["num-examples"] = -3.0
        outcome = strategy.aggregate("train", 1, replies)
        good = [r for i, r in enumerate(replies) if i != 2]
        expected = strategy.aggregate("train", 1, good)
        assert outcome.clients == {"ok": 5, "empty": 0, "failed": 0, "rejected": 1}
        assert outcome.arrays is not None
        assert expected.arrays is not None
        same(wire.from_record(outcome.arrays), wire.from_record(expected.arrays))

    def test_weights_per_entry_leave_the_server_where_nobody_has_any(self) -> None:
        class Prototypes(CohortStrategy):
            needs = {"proto": "sum"}  # noqa: RUF012

            def merge(self, round_index: int, collected: Collected, server: Arrays) -> Merged:
                value = collected.sums["proto"].value(keep=server)
                return Merged({"conv.weight": value["conv.weight"]}, {"classes": 2.0})

        weights = [np.array([[1.0], [2.0], [0.0]]), np.array([[3.0], [0.0], [0.0]])]
        results = [
            Result({"proto": wire.UpTerm({"conv.weight": np.full((3, 2), v)}, {"conv.weight": w})})
            for v, w in zip((1.0, 5.0), weights, strict=True)
        ]
        strategy = Prototypes()
        messages = asked(strategy, clients=2)
        outcome = strategy.aggregate("train", 1, device_replies(messages, results))
        assert outcome.arrays is not None
        assert outcome.metrics["classes"] == 2.0
        new = wire.from_record(outcome.arrays)["conv.weight"]
        np.testing.assert_allclose(new[:2], [[4, 4], [1, 1]])
        np.testing.assert_array_equal(new[2], model()["conv.weight"][2])


class TestSampling:
    def test_is_without_replacement_by_client_id_and_seeded(self) -> None:
        history = run(FedAvg(), clients=10, per_round=4, rounds=range(1, 30))
        drawn = [[t.client_id for t in job.tasks] for job in history.backend.jobs]
        assert all(len(set(d)) == 4 and d == sorted(d) for d in drawn)
        assert {c for d in drawn for c in d} == set(range(10))
        again = run(FedAvg(), clients=10, per_round=4, rounds=range(1, 30))
        assert drawn == [[t.client_id for t in job.tasks] for job in again.backend.jobs]
        other = run(FedAvg(), clients=10, per_round=4, rounds=range(1, 30), seed=4)
        assert drawn != [[t.client_id for t in job.tasks] for job in other.backend.jobs]

    def test_does_not_depend_on_earlier_rounds_or_global_generators(self) -> None:
        random.seed(1)
        late = run(FedAvg(), clients=10, rounds=[7]).backend.jobs[0].tasks
        random.seed(2)
        assert late == run(FedAvg(), clients=10, rounds=[6, 7]).backend.jobs[1].tasks

    def test_leaves_the_global_generators_alone(self) -> None:
        random.seed(5)
        np.random.seed(5)  # noqa: NPY002
        expected = random.getstate(), np.random.get_state(legacy=False)["state"]["key"].tolist()  # noqa: NPY002
        run(FedAvg())
        assert random.getstate() == expected[0]
        assert np.random.get_state(legacy=False)["state"]["key"].tolist() == expected[1]  # noqa: NPY002

    def test_is_by_client_id_whatever_the_node_ids_are(self) -> None:
        class Fleet(CohortGrid):
            def get_node_ids(self) -> list[int]:
                return [77, 12, 95, 40]

        strategy = FedAvg()
        ids = {77: 0, 12: 1, 95: 2, 40: 3}
        strategy.bind(Server(seed=3, clients_per_round=2, client_of=ids))
        grid = Fleet(range(4), FakeBackend())
        messages = strategy.configure("train", 1, wire.to_record(model()), grid)
        chosen = [ids[m.metadata.dst_node_id] for m in messages]
        assert chosen == draw([0, 1, 2, 3], 2, seed=3, round_index=1)

    def test_waits_no_longer_than_the_deadline(self) -> None:
        grid = CohortGrid(range(2), FakeBackend())
        strategy = FedAvg()
        strategy.bind(Server(min_clients=3, deadline_seconds=0.05))
        with pytest.raises(RunError, match=r"2 clients.*0\.05 s.*3 are needed.*start more"):
            strategy.configure("train", 1, wire.to_record(model()), grid)

    def test_goes_on_with_the_minimum_and_waits_only_once(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        grid = CohortGrid(range(2), FakeBackend())
        strategy = FedAvg()
        strategy.bind(Server(clients_per_round=5, min_clients=1, deadline_seconds=0.3))
        assert len(strategy.configure("train", 1, wire.to_record(model()), grid)) == 2
        monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"waits {seconds} s more"))
        assert len(strategy.configure("train", 2, wire.to_record(model()), grid)) == 2

    @given(count=st.integers(1, 20), size=st.integers(1, 20), seed=st.integers(0, 99))
    @settings(max_examples=30, deadline=None)
    def test_draws_are_distinct_and_in_order(self, count: int, size: int, seed: int) -> None:
        drawn = draw(list(range(size)), count, seed=seed, round_index=1)
        assert len(drawn) == min(count, size)
        assert drawn == sorted(set(drawn))


class TestConfigure:
    def test_does_not_change_the_callers_config(self) -> None:
        strategy = FedProx(FedProxSettings(0.5))
        strategy.bind(Server())
        config = ConfigRecord({"lr": 0.1})
        grid = CohortGrid(range(2), FakeBackend())
        for configure in (strategy.configure_train, strategy.configure_evaluate):
            assert len(list(configure(1, wire.to_record(model()), config, grid))) == 2
        assert dict(config) == {"lr": 0.1}

    def test_messages_share_their_records_and_carry_the_settings(self) -> None:
        messages = asked(FedAvg(), settings={"lr": 0.1})
        assert len({wire.shared_identity(m.content) for m in messages}) == 1
        down = wire.decode_down(messages[0].content)
        assert (down.round, down.rounds, down.settings) == (1, 4, {"lr": 0.1})

    def test_payloads_go_beside_the_model(self) -> None:
        class Anchored(FedAvg):
            def exchanges(self, round_index: int) -> tuple[str, ...]:
                return ("train", "statistics")

            def shared(self, exchange: str, round_index: int) -> Mapping[str, Arrays]:
                return {"anchors": {"a": np.eye(2)}}

            def own(self, exchange: str, round_index: int, client_id: int) -> Mapping[str, Arrays]:
                return {"proto": {"p": np.array([float(client_id)])}} if client_id % 2 else {}

        backend = FakeBackend()
        grid = CohortGrid(range(4), backend)
        strategy = Anchored()
        strategy.bind(Server(client_of={1000 + k: k for k in range(4)}))
        for exchange in strategy.exchanges(1):
            grid.needs = strategy.needs
            messages = strategy.configure(exchange, 1, wire.to_record(model()), grid)
            outcome = strategy.aggregate(exchange, 1, grid.send_and_receive(messages))
            assert (outcome.arrays is None) == (exchange == "statistics")
        assert [job.exchange for job in backend.jobs] == ["train", "statistics"]
        for job in backend.jobs:
            assert set(job.shared) == {"model", "anchors"}
            assert [set(task.own) for task in job.tasks] == [set(), {"proto"}, set(), {"proto"}]
            assert job.tasks[3].own["proto"]["p"] == 3

    def test_the_exchanges_of_a_round_ask_the_same_clients(self) -> None:
        strategy = FedAvg()
        strategy.bind(Server(seed=1, clients_per_round=3))
        grid = CohortGrid(range(9), FakeBackend())
        nodes = [
            [
                m.metadata.dst_node_id
                for m in strategy.configure(exchange, 2, wire.to_record(model()), grid)
            ]
            for exchange in ("train", "evaluate", "finish")
        ]
        assert nodes[0] == nodes[1] == nodes[2]

    def test_evaluations_give_metrics_only(self) -> None:
        def client(task: Task, job: Job) -> Result:
            return Result(weight=2.0, metrics={"accuracy": (float(task.client_id), 2.0)})

        strategy = FedAvg()
        strategy.bind(Server())
        grid = CohortGrid(range(3), FakeBackend(client))
        messages = strategy.configure("evaluate", 1, wire.to_record(model()), grid)
        outcome = strategy.aggregate("evaluate", 1, grid.send_and_receive(messages))
        assert outcome.arrays is None
        assert outcome.metrics == {"accuracy": 0.5}

    def test_aggregating_before_configuring_is_an_error(self) -> None:
        with pytest.raises(RunError, match="before configure"):
            FedAvg().aggregate("train", 1, [])


def test_strategies_without_state_refuse_another_ones() -> None:
    FedAvg().load_state(FedAvg().state())
    with pytest.raises(CheckpointError, match="FedAvg keeps no state"):
        FedAvg().load_state(State(values={"moments": True}))


def test_restored_takes_floats_and_integers_for_integers() -> None:
    server = model()
    new: Arrays = {name: value + np.float64(1) for name, value in server.items()}
    got = restored({**new, "scale": np.array([3.0])}, server)
    assert list(got) == list(server)
    assert got["scale"].shape == ()
    assert got["bn.num_batches_tracked"] == 7
    assert restored({}, server)["conv.weight"] is server["conv.weight"]
    counter = {"bn.num_batches_tracked": np.array(9, dtype=np.int64)}
    assert restored(counter, server)["bn.num_batches_tracked"] == 9


def test_global_generators_are_seeded_by_path_and_put_back() -> None:
    def drawn(*path: str | int) -> tuple[float, float]:
        with global_random(3, *path):
            return random.random(), float(np.random.normal())  # noqa: NPY002

    before = random.getstate()
    assert drawn("a", 1) == drawn("a", 1)
    assert all(a != b for a, b in zip(drawn("a", 1), drawn("a", 2), strict=True))
    with pytest.raises(KeyError), global_random(3, "a"):
        raise KeyError
    assert random.getstate() == before
