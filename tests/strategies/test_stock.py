import json
import random

import numpy as np
import pytest

from fedlabels.errors import RunError
from fedlabels.rounds import wire
from fedlabels.rounds.job import Arrays, Job, Task
from fedlabels.simulation.grid import CohortGrid
from fedlabels.strategies.base import MODEL_KEPT, Server, State
from fedlabels.strategies.fedavg import FedAvg
from tests.strategies.fakes import (
    DP,
    PLAIN,
    FakeBackend,
    Result,
    device_replies,
    linear,
    model,
    run,
    same,
    shifted,
    stock,
)


@pytest.mark.parametrize("name", [*PLAIN, *DP])
def test_every_stock_strategy_runs_and_restores_dtypes_and_integers(name: str) -> None:
    history = run(stock(name))
    start = model()
    for arrays, outcome in zip(history.models, history.outcomes, strict=True):
        assert outcome.arrays is not None
        assert {k: (v.dtype, v.shape) for k, v in arrays.items()} == {
            k: (v.dtype, v.shape) for k, v in start.items()
        }
        np.testing.assert_array_equal(arrays["table"], start["table"])
        assert arrays["bn.num_batches_tracked"] == 7
        assert np.isfinite(arrays["conv.weight"]).all()
        assert outcome.metrics["loss"] == 2.0
        assert MODEL_KEPT not in outcome.metrics
    assert not np.array_equal(history.models[-1]["conv.weight"], start["conv.weight"])
    assert all(set(job.shared["model"]) == set(start) for job in history.backend.jobs)


@pytest.mark.parametrize("name", [*PLAIN, *DP])
def test_runs_are_reproducible_and_leave_global_generators_alone(name: str) -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    before = random.getstate(), np.random.get_state(legacy=False)["state"]["key"].tolist()  # noqa: NPY002
    first = run(stock(name))
    assert random.getstate() == before[0]
    after = np.random.get_state(legacy=False)["state"]["key"].tolist()  # noqa: NPY002
    assert after == before[1]
    random.seed(2)
    np.random.seed(2)  # noqa: NPY002
    same(run(stock(name)).models[-1], first.models[-1])


@pytest.mark.parametrize("name", [*PLAIN, *DP])
def test_resumed_is_uninterrupted_bit_for_bit(name: str) -> None:
    whole = run(stock(name), rounds=[1, 2, 3, 4])
    first = stock(name)
    head = run(first, rounds=[1, 2])
    state = first.state()
    second = stock(name)
    second.load_state(State(state.arrays, json.loads(json.dumps(state.values))))
    tail = run(second, rounds=[3, 4], start=head.models[-1])
    same(tail.models[-1], whole.models[-1])


def test_fedavg_on_every_model_is_our_fedavg_on_sums() -> None:
    same(run(stock("FedAvg")).models[-1], run(FedAvg()).models[-1], atol=1e-6)


def test_fedmedian_is_the_median() -> None:
    history = run(stock("FedMedian"), rounds=[1], clients=5, per_round=None)
    shift = history.models[0]["conv.weight"] - model()["conv.weight"]
    np.testing.assert_allclose(shift, 0.033, atol=1e-6)


def test_krum_drops_an_attacker() -> None:
    def client(task: Task, job: Job) -> Result:
        if task.client_id == 0:
            return Result({"model": wire.UpTerm(shifted(job.shared["model"], 1e3), 9.0)}, 9.0)
        return linear(task, job)

    history = run(stock("Krum"), client, rounds=[1], clients=6, per_round=None)
    assert np.abs(history.models[0]["conv.weight"] - model()["conv.weight"]).max() < 1


def test_strategies_that_pop_or_overwrite_do_not_damage_the_backends_arrays() -> None:
    for name in ("FedMedian", "FedTrimmedAvg", "Bulyan", "QFedAvg"):
        strategy = stock(name)
        strategy.bind(Server())
        grid = CohortGrid(range(4), FakeBackend())
        replies = grid.send_and_receive(
            strategy.configure("train", 1, wire.to_record(model()), grid)
        )
        before = {k: v.copy() for k, v in replies.each["model"].values.items()}
        first = strategy.aggregate("train", 1, replies)
        same(replies.each["model"].values, before)
        assert len(replies[0].content["arrays"]) == len(model())
        assert first.arrays is not None


def test_echoing_clients_survive_fedmedian() -> None:
    def echo(task: Task, job: Job) -> Result:
        return Result({"model": wire.UpTerm(job.shared["model"])})

    same(run(stock("FedMedian"), echo).models[-1], model())


@pytest.mark.parametrize("name", list(DP))
@pytest.mark.parametrize("inner", ["FedAvg", "FedAdam"])
def test_zero_updates_pass_through_clipping(name: str, inner: str) -> None:
    def client(task: Task, job: Job) -> Result:
        result = linear(task, job)
        if task.client_id % 2:
            result.terms["model"] = wire.UpTerm(job.shared["model"], 1.0)
        return result

    history = run(stock(name, inner), client)
    assert all(outcome.arrays is not None for outcome in history.outcomes)
    assert all(np.isfinite(a["conv.weight"]).all() for a in history.models)


def test_clipping_bounds_the_update_and_includes_scalars() -> None:
    def client(task: Task, job: Job) -> Result:
        return Result({"model": wire.UpTerm(shifted(job.shared["model"], 100.0))})

    strategy = stock("DifferentialPrivacyServerSideFixedClipping", noise_multiplier=0.0)
    after = run(strategy, client, rounds=[1]).models[0]
    floats = [n for n, v in model().items() if v.dtype.kind == "f"]
    norm = np.sqrt(sum(np.sum((after[n] - model()[n]) ** 2.0) for n in floats))
    np.testing.assert_allclose(norm, 1.0, rtol=1e-5)
    assert isinstance(strategy.strategy, object)
    assert type(vars(strategy.strategy)["clipping_norm"]) is float


def test_noise_differs_by_round_and_seed() -> None:
    def echo(task: Task, job: Job) -> Result:
        return Result({"model": wire.UpTerm(job.shared["model"])})

    name = "DifferentialPrivacyServerSideFixedClipping"
    one = run(stock(name), echo, rounds=[1, 2])
    weights = [arrays["conv.weight"] for arrays in (model(), *one.models)]
    assert not np.allclose(weights[1] - weights[0], weights[2] - weights[1])
    other = run(stock(name), echo, rounds=[1], seed=9).models[0]
    assert not np.allclose(other["conv.weight"], one.models[0]["conv.weight"])


def test_unequal_metrics_are_intersected_for_flower_and_pooled_for_us() -> None:
    def client(task: Task, job: Job) -> Result:
        result = linear(task, job)
        if task.client_id == 1:
            result.metrics["accuracy"] = (3.0, 4.0)
        result.metrics["nothing"] = (0.0, 0.0)
        return result

    for name in ("FedAvg", "FedMedian", "Krum"):
        (outcome,) = run(stock(name), client, rounds=[1], per_round=None).outcomes
        assert outcome.metrics == {"accuracy": 0.75, "loss": 2.0}


def test_clients_without_weight_are_left_out() -> None:
    def client(task: Task, job: Job) -> Result:
        if task.client_id == 0:
            return Result(weight=0.0, metrics={"loss": (4.0, 1.0)})
        return linear(task, job)

    (outcome,) = run(stock("FedAvg"), client, rounds=[1], clients=2, per_round=None).outcomes
    assert outcome.clients == {"ok": 1, "empty": 1, "failed": 0, "rejected": 0}
    assert outcome.metrics["loss"] == pytest.approx((4 + 4) / 3)


@pytest.mark.parametrize("name", ["FedAvg", "FedAdam", "Krum", "Bulyan", *DP])
def test_nobody_with_weight_keeps_the_model(name: str) -> None:
    def client(task: Task, job: Job) -> Result:
        return Result(weight=0.0)

    for outcome in run(stock(name), client).outcomes:
        assert outcome.arrays is None
        assert outcome.metrics == {MODEL_KEPT: 1.0}


def test_failed_clients_are_the_strategys_business() -> None:
    def client(task: Task, job: Job) -> Result:
        return Result(error="boom") if task.client_id == 0 else linear(task, job)

    private = "DifferentialPrivacyServerSideFixedClipping"
    kept = run(stock(private), client, rounds=[1], per_round=None).outcomes[0]
    assert kept.arrays is None
    assert kept.metrics[MODEL_KEPT] == 1.0
    plain = run(stock("FedAvg"), client, rounds=[1], per_round=None).outcomes[0]
    assert plain.arrays is not None
    assert plain.clients["failed"] == 1


def test_too_few_replies_for_bulyan_keep_the_model() -> None:
    (outcome,) = run(stock("Bulyan", num_malicious_nodes=2), rounds=[1]).outcomes
    assert outcome.arrays is None


def test_what_flower_cannot_aggregate_is_a_run_error() -> None:
    def client(task: Task, job: Job) -> Result:
        return Result({"model": wire.UpTerm(job.shared["model"])})

    with pytest.raises(RunError, match=r"QFedAvg cannot aggregate round 1.*loss"):
        run(stock("QFedAvg"), client, rounds=[1])


def test_private_tensors_are_not_shown() -> None:
    private = frozenset({"bn.running_mean"})

    def client(task: Task, job: Job) -> Result:
        result = linear(task, job)
        for name in private:
            del result.terms["model"].value[name]
        return result

    strategy = stock("FedAdam")
    strategy.bind(Server(private=private))
    grid = CohortGrid(range(3), FakeBackend(client))
    messages = strategy.configure("train", 1, wire.to_record(model()), grid)
    outcome = strategy.aggregate("train", 1, grid.send_and_receive(messages))
    assert outcome.arrays is not None
    np.testing.assert_array_equal(
        outcome.arrays["bn.running_mean"].numpy(), model()["bn.running_mean"]
    )


def test_devices_are_checked_too() -> None:
    strategy = stock("FedMedian")
    strategy.bind(Server())
    grid = CohortGrid(range(4), FakeBackend())
    messages = strategy.configure("train", 1, wire.to_record(model()), grid)
    job = Job("train", 1, 1, (), {"model": model()})
    results = [linear(Task(k), job) for k in range(4)]
    results[1].terms["model"].value["conv.weight"][0, 0] = np.nan
    outcome = strategy.aggregate("train", 1, device_replies(messages, results))
    assert outcome.clients == {"ok": 3, "empty": 0, "failed": 0, "rejected": 1}
    assert outcome.arrays is not None
    shift = outcome.arrays["conv.weight"].numpy() - model()["conv.weight"]
    np.testing.assert_allclose(shift, 0.033, atol=1e-6)  # the median of clients 0, 2 and 3


def test_the_order_of_replies_does_not_matter() -> None:
    strategy = stock("DifferentialPrivacyServerSideFixedClipping")
    strategy.bind(Server(seed=2))
    grid = CohortGrid(range(4), FakeBackend())
    messages = strategy.configure("train", 1, wire.to_record(model()), grid)
    job = Job("train", 1, 1, (), {"model": model()})
    replies = device_replies(messages, [linear(Task(k), job) for k in range(4)])
    forward = strategy.aggregate("train", 1, replies)
    backward = strategy.aggregate("train", 1, replies[::-1])
    assert forward.arrays is not None
    assert backward.arrays is not None
    same(wire.from_record(forward.arrays), wire.from_record(backward.arrays))


def test_a_float_model_is_sent_without_a_copy() -> None:
    start: Arrays = {"w": np.zeros(3, np.float32)}
    strategy = stock("FedAvg")
    strategy.bind(Server())
    record = wire.to_record(start)
    messages = strategy.configure("train", 1, record, CohortGrid(range(2), FakeBackend()))
    assert all(m.content["arrays"] is record for m in messages)


def test_evaluations_go_through_flower() -> None:
    def client(task: Task, job: Job) -> Result:
        return Result(weight=2.0, metrics={"accuracy": (1.0, 2.0)})

    strategy = stock("DifferentialPrivacyServerSideFixedClipping")
    strategy.bind(Server())
    grid = CohortGrid(range(3), FakeBackend(client))
    messages = strategy.configure("evaluate", 1, wire.to_record(model()), grid)
    replies = grid.send_and_receive(messages)
    assert strategy.aggregate("evaluate", 1, replies).metrics == {"accuracy": 0.5}
    metrics = strategy.aggregate_evaluate(1, replies)
    assert metrics is not None
    assert dict(metrics) == {"accuracy": 0.5}


def test_runs_in_flowers_own_loop() -> None:
    strategy = stock("FedMedian")
    strategy.bind(Server(seed=0))
    result = strategy.start(
        CohortGrid(range(3), FakeBackend()), wire.to_record(model()), num_rounds=2
    )
    np.testing.assert_array_equal(result.arrays["table"].numpy(), model()["table"])
