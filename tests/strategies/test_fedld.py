"""FedLD's server: gates, buffers, options, resume; and that it is FedAvg where it should be."""

import numpy as np
import pytest

from fedlabels.aggregation import PrincipalRule, aggregate_tensor
from fedlabels.errors import CheckpointError, ConfigError
from fedlabels.rounds import wire
from fedlabels.rounds.job import Job, Task
from fedlabels.strategies.base import MODEL_KEPT, Server, State
from fedlabels.strategies.fedavg import FedAvg
from fedlabels.strategies.fedld import FedLD, FedLDSettings
from tests.strategies.fakes import Result, asked, device_replies, linear, model, run, same, shifted

BUFFERS = frozenset({"bn.running_mean"})


def bound(**settings) -> FedLD:
    """A strategy that knows its buffers, however it is bound."""

    class Known(FedLD):
        def bind(self, server: Server) -> None:
            super().bind(Server(**{**vars(server), "buffers": BUFFERS}))

    return Known(FedLDSettings(**settings))


def moved(task: Task, job: Job) -> Result:
    """Return w plus something of its own in every tensor, with weight client_id + 1."""
    received, k = job.shared["model"], task.client_id
    rng = np.random.default_rng([k, job.round])
    value = {
        n: v + rng.normal(size=v.shape).astype(v.dtype) if v.dtype.kind == "f" else v + k
        for n, v in received.items()
    }
    return Result({"model": wire.UpTerm(value, k + 1.0)}, k + 1.0)


def sent(round_index: int, received, client_ids):
    """The updates of `moved`, by name."""
    models = [
        moved(Task(k), Job("train", round_index, 1, (), {"model": received})).terms["model"].value
        for k in client_ids
    ]
    return {n: np.stack([m[n] - received[n] for m in models]) for n in received}


def test_the_first_round_is_the_unweighted_mean_and_then_the_rule_acts():
    history = run(bound(), moved, rounds=[1, 2], clients=4, per_round=None)
    first, second = history.models
    updates = sent(1, model(), range(4))
    for name in ("conv.weight", "scale"):
        mean = updates[name].mean(0)
        np.testing.assert_allclose(first[name] - model()[name], mean, atol=1e-6)
    assert not any(k.startswith("pg_") for k in history.outcomes[0].metrics)
    updates = sent(2, first, range(4))
    flat = updates["conv.weight"].reshape(4, -1)
    expected, _ = aggregate_tensor(flat, has_history=True)
    np.testing.assert_allclose(
        (second["conv.weight"] - first["conv.weight"]).ravel(), expected, atol=1e-6
    )
    assert np.abs(expected - flat.mean(0)).max() > 1e-2
    # one entry: always the mean
    np.testing.assert_allclose(
        second["scale"] - first["scale"], updates["scale"].mean(0), atol=1e-6
    )
    metrics = history.outcomes[1].metrics
    assert {"pg_effective_rank", "pg_norm_ratio", "pg_cosine", "pg_gap"} <= set(metrics)
    assert history.backend.jobs[0].needs == {"model": "each"}


def test_a_tensor_that_has_not_moved_keeps_its_gate_shut():
    def frozen_at_first(task, job):
        result = moved(task, job)
        if job.round == 1:
            result.terms["model"].value["conv.weight"] = job.shared["model"]["conv.weight"]
        return result

    history = run(bound(), frozen_at_first, rounds=[1, 2], clients=4, per_round=None)
    step = history.models[1]["conv.weight"] - history.models[0]["conv.weight"]
    np.testing.assert_allclose(
        step, sent(2, history.models[0], range(4))["conv.weight"].mean(0), atol=1e-6
    )


def test_numbers_of_examples_count_for_buffers_only():
    def even(task, job):
        result = moved(task, job)
        term = result.terms["model"]
        return Result({"model": wire.UpTerm(term.value, 1.0)}, 1.0)

    weighed = run(bound(), moved, rounds=[1, 2], clients=4, per_round=None).models[0]
    alike = run(bound(), even, rounds=[1, 2], clients=4, per_round=None).models[0]
    np.testing.assert_array_equal(weighed["conv.weight"], alike["conv.weight"])
    updates = sent(1, model(), range(4))["bn.running_mean"]
    expected = np.average(updates, axis=0, weights=[1, 2, 3, 4])
    np.testing.assert_allclose(
        weighed["bn.running_mean"] - model()["bn.running_mean"], expected, atol=1e-6
    )
    assert weighed["table"].tolist() == (model()["table"] + 3).tolist()  # the largest counter
    assert weighed["bn.num_batches_tracked"] == 10


def test_options_reach_the_rule():
    one = run(bound(), moved, rounds=[1], clients=4, per_round=None).models[0]
    g = sent(2, one, range(4))["conv.weight"].reshape(4, -1)
    cases = {
        "pg_weighted": aggregate_tensor(g, has_history=True, weights=[1, 2, 3, 4])[0],
        "server_lr": 0.5 * aggregate_tensor(g, has_history=True)[0],
        "k_proportion": aggregate_tensor(g, has_history=True, rule=PrincipalRule(0.3))[0],
        "calibration": aggregate_tensor(g, has_history=True, rule=PrincipalRule(0.8, "vote"))[0],
        "norm_restore": aggregate_tensor(
            g, has_history=True, rule=PrincipalRule(norm_restore=True)
        )[0],
    }
    values = {"pg_weighted": True, "server_lr": 0.5, "k_proportion": 0.3, "calibration": "vote",
              "norm_restore": True}  # fmt: skip
    for name, expected in cases.items():
        strategy = bound(**{name: values[name]})
        strategy.load_state(State({}, {"open": ["conv.weight"]}))
        after = run(strategy, moved, rounds=[2], clients=4, per_round=None, start=one).models[0]
        step = (after["conv.weight"] - one["conv.weight"]).ravel()
        np.testing.assert_allclose(step, expected, atol=1e-6, err_msg=name)


def test_buffers_as_in_the_official_code():
    history = run(bound(pg_buffers=True), moved, rounds=[1, 2], clients=4, per_round=None)
    first, second = history.models
    expected, _ = aggregate_tensor(sent(2, first, range(4))["bn.running_mean"], has_history=True)
    step = second["bn.running_mean"] - first["bn.running_mean"]
    np.testing.assert_allclose(step, expected, atol=1e-6)
    assert first["bn.num_batches_tracked"] == 8  # 7 + mean of 0, 1, 2, 3, cut


def test_as_fedavg_it_is_fedavg():
    ours = run(FedLD(FedLDSettings(aggregation="fedavg")), linear)
    theirs = run(FedAvg(), linear)
    same(ours.models[-1], theirs.models[-1])
    assert ours.backend.jobs[0].needs == {"model": "sum"}
    half = run(bound(aggregation="fedavg", server_lr=0.5), rounds=[1]).models[0]
    whole = run(FedAvg(), rounds=[1]).models[0]
    for name in ("conv.weight", "scale"):
        expected = (model()[name] + whole[name]) / 2
        np.testing.assert_allclose(half[name], expected, atol=1e-6)
    np.testing.assert_allclose(half["bn.running_mean"], whole["bn.running_mean"], atol=1e-6)


class TestEdges:
    def test_nobody_answers(self):
        for weight, error in ((0.0, None), (1.0, "no luck")):
            history = run(
                bound(), lambda t, j, w=weight, e=error: Result(weight=w, error=e), rounds=[1]
            )
            assert history.outcomes[0].arrays is None
            assert history.outcomes[0].metrics == {MODEL_KEPT: 1.0}

    def test_one_client_gives_its_own_model(self):
        history = run(bound(), moved, rounds=[1, 2], clients=1, per_round=None)
        updates = sent(2, history.models[0], [0])
        step = history.models[1]["conv.weight"] - history.models[0]["conv.weight"]
        np.testing.assert_allclose(step, updates["conv.weight"][0], atol=1e-6)

    def test_a_client_that_did_not_move(self):
        def lazy(task, job):
            if task.client_id == 1:
                return Result({"model": wire.UpTerm(dict(job.shared["model"]), 2.0)}, 2.0)
            return moved(task, job)

        history = run(bound(), lazy, rounds=[1, 2, 3], clients=4, per_round=None)
        assert all(np.isfinite(v).all() for v in history.models[-1].values())
        still = run(
            bound(),
            lambda t, j: Result({"model": wire.UpTerm(dict(j.shared["model"]), 1.0)}),
            clients=4,
        )
        same(still.models[-1], model())

    def test_updates_that_are_not_finite_are_left_out(self):
        strategy = bound()
        messages = asked(strategy, clients=4)
        results = [moved(Task(k), Job("train", 1, 4, (), {"model": model()})) for k in range(4)]
        results[3].terms["model"].value["conv.weight"][0, 0] = np.nan
        outcome = strategy.aggregate("train", 1, device_replies(messages, results))
        assert outcome.clients["rejected"] == 1
        mean = sent(1, model(), range(3))["conv.weight"].mean(0)
        found = wire.from_record(outcome.arrays)["conv.weight"] - model()["conv.weight"]
        np.testing.assert_allclose(found, mean, atol=1e-6)

    def test_private_tensors_stay_the_servers(self):
        def partial(task, job):
            result = moved(task, job)
            del result.terms["model"].value["conv.weight"]
            return result

        after = run(bound(), partial, rounds=[1, 2]).models[-1]
        np.testing.assert_array_equal(after["conv.weight"], model()["conv.weight"])
        assert not np.array_equal(after["scale"], model()["scale"])


def test_resumed_is_uninterrupted_bit_for_bit():
    whole = run(bound(), moved, rounds=[1, 2, 3, 4])
    first = bound()
    head = run(first, moved, rounds=[1, 2])
    second = bound()
    second.load_state(first.state())
    same(run(second, moved, rounds=[3, 4], start=head.models[-1]).models[-1], whole.models[-1])
    forgetful = run(bound(), moved, rounds=[3, 4], start=head.models[-1]).models[-1]
    assert not np.array_equal(forgetful["conv.weight"], whole.models[-1]["conv.weight"])
    with pytest.raises(CheckpointError, match="FedLD"):
        bound().load_state(State())


def test_shifted_models_give_the_mean():
    """All clients move along one direction: parallel updates are averaged."""

    def along(task, job):
        value = shifted(job.shared["model"], 0.1 * (task.client_id + 1))
        return Result({"model": wire.UpTerm(value, 1.0)}, 1.0)

    history = run(bound(), along, rounds=[1, 2], clients=3, per_round=None)
    step = history.models[1]["conv.weight"] - history.models[0]["conv.weight"]
    np.testing.assert_allclose(step, 0.2, atol=1e-6)
    assert history.outcomes[1].metrics["pg_cosine"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "value"),
    [("aggregation", "x"), ("server_lr", 0.0), ("k_proportion", 0.0), ("calibration", "y")],
)
def test_settings_are_checked(name, value):
    with pytest.raises(ConfigError, match=name):
        FedLDSettings(**{name: value})
