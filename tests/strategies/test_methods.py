import numpy as np
import pytest
from flwr.app import Message
from flwr.serverapp import strategy as flower

from fedlabels.errors import CheckpointError, ConfigError
from fedlabels.rounds import wire
from fedlabels.rounds.job import Job, Task
from fedlabels.strategies.base import State
from fedlabels.strategies.fedadam import FedAdam, FedAdamSettings
from fedlabels.strategies.fedavg import FedAvg
from fedlabels.strategies.fedlabel import FedLabel, FedLabelSettings
from fedlabels.strategies.fedprox import FedProx, FedProxSettings
from tests.strategies.fakes import Result, asked, device_replies, linear, model, run, same, shifted


class TestFedProx:
    def test_sends_mu_and_averages_as_fedavg(self) -> None:
        history = run(FedProx(FedProxSettings(0.5)))
        assert all(job.settings == {"proximal-mu": 0.5} for job in history.backend.jobs)
        same(history.models[-1], run(FedAvg()).models[-1])

    def test_mu_is_checked(self) -> None:
        with pytest.raises(ConfigError, match="proximal_mu must be >= 0, got -1"):
            FedProxSettings(-1)


class TestFedAdam:
    def test_follows_the_formula_in_float64(self) -> None:
        settings = FedAdamSettings(eta=0.05, beta_1=0.8, beta_2=0.9, tau=0.01)
        history = run(FedAdam(settings), rounds=[1, 2], clients=2, per_round=None)
        w = model()["conv.weight"]
        m, v = np.zeros(w.shape), np.full(w.shape, 0.01**2)
        for t, after in enumerate(history.models, start=1):
            means = [w + np.float32(0.01 * k * (1 + 0.1 * t)) for k in (1, 2)]
            delta = (1 * means[0].astype(float) + 2 * means[1].astype(float)) / 3 - w
            m, v = 0.8 * m + 0.2 * delta, 0.9 * v + 0.1 * delta**2
            w = (w + 0.05 * m / (np.sqrt(v) + 0.01)).astype(np.float32)
            np.testing.assert_allclose(after["conv.weight"], w, rtol=0, atol=1e-7)

    def test_flowers_corrects_the_bias_one_round_too_far(self) -> None:
        """flwr 1.41, flwr/serverapp/strategy/fedadam.py: ``server_round + 1.0`` in both powers."""
        rule = flower.FedAdam(eta=1.0, beta_1=0.9, beta_2=0.99, tau=0.0)
        rule.current_arrays = {"w": np.zeros(1)}
        reply = Message(
            wire.encode_up(wire.Uplink({"model": wire.UpTerm({"w": np.ones(1)})}, 1.0)), 7, "train"
        )
        made, _ = rule.aggregate_train(1, [reply])
        rate = np.sqrt(1 - 0.99**2) / (1 - 0.9**2)  # Kingma and Ba: powers 1 in the first round
        np.testing.assert_allclose(made["w"].numpy(), rate * 0.1 / np.sqrt(0.01))

    def test_buffers_are_averaged_not_stepped(self) -> None:
        strategy = FedAdam()
        messages = asked(strategy, 2, buffers=frozenset({"bn.running_mean"}))
        job = Job("train", 1, 4, (), {"model": model()})
        outcome = strategy.aggregate(
            "train", 1, device_replies(messages, [linear(Task(k), job) for k in range(2)])
        )
        assert outcome.arrays is not None
        moved = outcome.arrays["bn.running_mean"].numpy() - model()["bn.running_mean"]
        np.testing.assert_allclose(moved, 1.1 * (0.01 + 2 * 0.02) / 3, atol=1e-6)

    def test_the_model_stays_float32(self) -> None:
        for arrays in run(FedAdam()).models:
            assert arrays["conv.weight"].dtype == np.float32
            np.testing.assert_array_equal(arrays["table"], model()["table"])

    def test_resumed_is_uninterrupted_bit_for_bit(self) -> None:
        whole = run(FedAdam(), rounds=[1, 2, 3, 4])
        first = FedAdam()
        head = run(first, rounds=[1, 2])
        second = FedAdam()
        second.load_state(first.state())
        same(run(second, rounds=[3, 4], start=head.models[-1]).models[-1], whole.models[-1])

    def test_a_new_strategy_has_no_moments(self) -> None:
        fresh = FedAdam()
        fresh.load_state(FedAdam().state())
        assert fresh.m_t is None
        with pytest.raises(CheckpointError, match="FedAdam"):
            fresh.load_state(State())

    @pytest.mark.parametrize(
        ("name", "value"), [("eta", 0.0), ("tau", -1.0), ("beta_1", 1.0), ("beta_2", -0.1)]
    )
    def test_settings_are_checked(self, name: str, value: float) -> None:
        with pytest.raises(ConfigError, match=name):
            FedAdamSettings(**{name: value})


class TestFedLabel:
    @pytest.mark.parametrize("variant", ["paper", "joint"])
    def test_reduces_to_fedavg(self, variant: str) -> None:
        same(run(FedLabel(FedLabelSettings(variant))).models[-1], run(FedAvg()).models[-1])

    def flute(self, task: Task, job: Job) -> Result:
        received = job.shared["model"]
        passed = float(task.client_id)
        return Result(
            {
                "local": wire.UpTerm(shifted(received, 0.25 * (task.client_id + 1))),
                "student": wire.UpTerm(shifted(received, -1.0 * task.client_id), passed or 1.0),
            },
            passed + 1.0,
        )

    def test_flute_halves_both_means(self) -> None:
        strategy = FedLabel(FedLabelSettings("flute"))
        history = run(strategy, self.flute, rounds=[1], clients=3, per_round=None)
        # Locals: mean of 0.25, 0.5, 0.75. Students: 0, -1, -2 with weights 1, 1, 2.
        expected = 0.5 * 0.5 + 0.5 * (-1 - 4) / 4
        for name in ("conv.weight", "bn.running_mean", "scale"):
            np.testing.assert_allclose(history.models[0][name] - model()[name], expected, atol=1e-6)
        np.testing.assert_array_equal(history.models[0]["table"], model()["table"])
        assert history.backend.jobs[0].needs == {"local": "sum", "student": "sum"}

    def test_flute_runs_on_devices_and_drops_bad_models(self) -> None:
        strategy = FedLabel(FedLabelSettings("flute"))
        messages = asked(strategy, clients=4)
        job = Job("train", 1, 4, (), {"model": model()})
        results = [self.flute(Task(k), job) for k in range(4)]
        results[3].terms["student"].value["conv.weight"][0, 0] = np.nan
        outcome = strategy.aggregate("train", 1, device_replies(messages, results))
        assert outcome.clients["rejected"] == 1
        simulated = run(
            FedLabel(FedLabelSettings("flute")), self.flute, rounds=[1], clients=3, per_round=None
        )
        assert outcome.arrays is not None
        same(wire.from_record(outcome.arrays), simulated.models[0], atol=1e-6)

    def test_flute_without_students_moves_half_way(self) -> None:
        def burn_in(task: Task, job: Job) -> Result:
            return Result({"local": wire.UpTerm(shifted(job.shared["model"], 1.0))})

        history = run(FedLabel(FedLabelSettings("flute")), burn_in, rounds=[1])
        np.testing.assert_allclose(
            history.models[0]["conv.weight"], model()["conv.weight"] + 0.5, atol=1e-6
        )

    def test_flute_without_weight_keeps_the_model(self) -> None:
        def nothing(task: Task, job: Job) -> Result:
            return Result(weight=0.0)

        (outcome,) = run(FedLabel(FedLabelSettings("flute")), nothing, rounds=[1]).outcomes
        assert outcome.arrays is None

    def test_the_variant_is_checked(self) -> None:
        with pytest.raises(ConfigError, match="paper, flute, joint"):
            FedLabelSettings("other")
