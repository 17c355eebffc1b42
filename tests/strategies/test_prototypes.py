"""Servers of FedSA, FedProto and FedTGP, and FedLabel with anchors."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message, RecordDict

from fedlabels.errors import CheckpointError, ConfigError, DataError
from fedlabels.rounds import wire
from fedlabels.rounds.flower_compat import identify
from fedlabels.strategies import build
from fedlabels.strategies.base import Server, State
from fedlabels.strategies.fedlabel_anchors import FedLabelAnchors
from fedlabels.strategies.fedsa import FedSA
from fedlabels.strategies.fedtgp import FedTGP
from fedlabels.strategies.local_training import LocalTraining
from fedlabels.strategies.support.prototypes import PrototypeStrategy
from tests.strategies.fakes import model

CLASSES, WIDTH = 4, 6
SERVER = Server(seed=3, rounds=5, num_classes=CLASSES, feature_dim=WIDTH)
Sent = Mapping[int, Any]


def made(name: str, dtype: str = "float64", **settings: Any) -> tuple[Any, dict[str, Any]]:
    """Build a strategy for a run; return it with its global arrays."""
    strategy = build(name, settings)
    strategy.bind(SERVER)
    return strategy, strategy.initial(model(dtype))


def reply(client_id: int, sent: Sent, counts: Mapping[int, float] | None = None) -> Message:
    """Make a device's message with some classes' vectors."""
    vectors, present, weight = np.zeros((CLASSES, WIDTH)), np.zeros(CLASSES), np.zeros(CLASSES)
    for label, vector in sent.items():
        vectors[label], present[label] = vector, 1
        weight[label] = 1 if counts is None else counts[label]
    term = wire.UpTerm(
        {"vectors": vectors, "present": present}, {"vectors": weight[:, None], "present": weight}
    )
    up = wire.Uplink({"prototypes": term} if sent else {}, float(bool(sent)))
    return Message(wire.encode_up(up), reply_to=Message(RecordDict(), client_id, "train"))


def after(strategy: PrototypeStrategy, arrays: Any, *replies: Message, index: int = 1) -> Any:
    """Run a round; return the new arrays and the outcome."""
    identify()
    strategy._received = arrays
    outcome = strategy.train_outcome(index, replies)
    new = arrays if outcome.arrays is None else wire.from_record(outcome.arrays)
    return new, outcome


@pytest.fixture(autouse=True)
def _identity() -> None:
    identify()


def vectors(seed: int) -> Any:
    return np.random.default_rng(seed).normal(size=(CLASSES, WIDTH))


A, B = vectors(1), vectors(2)


class TestFedProto:
    def test_means_over_who_sent_the_class_and_forgets(self) -> None:
        strategy, arrays = made("fedproto")
        assert not arrays["present"].any()
        arrays, _ = after(strategy, arrays, reply(0, {0: A[0]}), reply(1, {0: B[0], 1: B[1]}))
        np.testing.assert_allclose(arrays["vectors"][0], (A[0] + B[0]) / 2)
        np.testing.assert_allclose(arrays["vectors"][1], B[1])
        assert arrays["present"].tolist() == [1, 1, 0, 0]
        arrays, outcome = after(strategy, arrays, reply(1, {2: A[2]}), index=2)
        assert arrays["present"].tolist() == [0, 0, 1, 0]
        assert outcome.metrics["classes_with_prototype"] == 1

    def test_with_memory_it_does_not_forget(self) -> None:
        strategy, arrays = made("fedproto", prototype_memory=True)
        arrays, _ = after(strategy, arrays, reply(0, {0: A[0]}))
        arrays, _ = after(strategy, arrays, reply(0, {2: A[2]}), index=2)
        assert arrays["present"].tolist() == [1, 0, 1, 0]
        np.testing.assert_allclose(arrays["vectors"][[0, 2]], A[[0, 2]])

    def test_counts_weigh_when_clients_send_them(self) -> None:
        strategy, arrays = made("fedproto")
        replies = reply(0, {0: A[0]}, {0: 3}), reply(1, {0: B[0]}, {0: 1})
        arrays, _ = after(strategy, arrays, *replies)
        np.testing.assert_allclose(arrays["vectors"][0], (3 * A[0] + B[0]) / 4)

    @pytest.mark.parametrize("name", ["fedproto", "fedtgp", "fedsa"])
    def test_without_replies_all_stays(self, name: str) -> None:
        strategy, arrays = made(name)
        before, _ = after(strategy, arrays, reply(0, {0: A[0], 1: A[1]}))
        for replies in ([], [reply(0, {})]):
            now, outcome = after(strategy, before, *replies, index=2)
            assert outcome.metrics["model_kept"] == 1
            for key, value in before.items():
                assert (now[key] == value).all()

    @pytest.mark.parametrize("name", ["fedproto", "fedtgp", "fedsa"])
    def test_who_sends_nan_or_another_shape_is_left_out(self, name: str) -> None:
        strategy, arrays = made(name)
        bad = reply(1, {0: np.full(WIDTH, np.nan)})
        thin = wire.UpTerm({"vectors": A[:, :2], "present": np.ones(CLASSES)}, 1.0)
        small = wire.encode_up(wire.Uplink({"prototypes": thin}, 1.0))
        wrong = Message(small, reply_to=Message(RecordDict(), 2, "train"))
        got, outcome = after(strategy, arrays, bad, wrong, reply(0, {0: A[0], 1: A[1]}))
        assert outcome.clients["rejected"] == 2
        fresh, arrays = made(name)
        alone, _ = after(fresh, arrays, reply(0, {0: A[0], 1: A[1]}))
        for key, value in alone.items():
            np.testing.assert_allclose(got[key], value)


class TestFedSA:
    def test_anchors_follow_slowly_and_only_where_there_is_a_prototype(self) -> None:
        strategy, first = made("fedsa", alpha=0.75)
        replies = reply(0, {0: A[0], 1: A[1]}), reply(1, {0: B[0]})
        arrays, outcome = after(strategy, first, *replies)
        mean = (A[0] + B[0]) / 2
        np.testing.assert_allclose(arrays["anchors"][0], 0.75 * first["anchors"][0] + 0.25 * mean)
        assert (arrays["anchors"][2:] == first["anchors"][2:]).all()
        shipped = strategy.shared("evaluate", 1)["prototypes"]
        np.testing.assert_allclose(shipped["vectors"][0], mean)
        assert shipped["present"].tolist() == [1, 1, 0, 0]
        assert strategy.shared("train", 2) == {}
        moved = np.linalg.norm(arrays["anchors"] - first["anchors"], axis=1)
        assert outcome.metrics["drift"] == pytest.approx(moved.mean())
        away = np.linalg.norm(arrays["anchors"][:2] - shipped["vectors"][:2], axis=1)
        assert outcome.metrics["alignment"] == pytest.approx(away.mean())
        assert outcome.metrics["gap_prototypes"] == pytest.approx(np.linalg.norm(mean - A[1]))

    def test_small_steps_are_not_lost_in_float32(self) -> None:
        strategy, arrays = made("fedsa", dtype="float32", alpha=1 - 1e-9)
        assert arrays["anchors"].dtype == np.float32
        target = strategy.anchors.copy()
        far = dict(enumerate(target + 1.0))
        for index in range(1, 51):
            arrays, _ = after(strategy, arrays, _as_float32(reply(0, far)), index=index)
        np.testing.assert_allclose(strategy.anchors - target, 50e-9, rtol=1e-3)

    def test_memory_is_for_prediction_anchors_follow_the_round(self) -> None:
        strategy, arrays = made("fedsa", prototype_memory=True, alpha=0.5)
        arrays, _ = after(strategy, arrays, reply(0, {0: A[0]}))
        now, _ = after(strategy, arrays, reply(0, {1: A[1]}), index=2)
        assert strategy.shared("evaluate", 2)["prototypes"]["present"].tolist() == [1, 1, 0, 0]
        assert (now["anchors"][0] == arrays["anchors"][0]).all()

    def test_anchor_inits(self, tmp_path: Path) -> None:
        paper, again, etf = (made("fedsa", anchor_init=n)[1]["anchors"] for n in
                             ("paper", "paper", "etf"))  # fmt: skip
        assert (paper == again).all()
        assert (paper >= 0).all()
        distance = np.linalg.norm(etf[:, None] - etf, axis=2)[~np.eye(CLASSES, dtype=bool)]
        np.testing.assert_allclose(distance, WIDTH**0.5)
        file = tmp_path / "anchors.npy"
        np.save(file, A)
        given = {"anchor_init": "file", "anchor_file": str(file)}
        np.testing.assert_array_equal(made("fedsa", **given)[1]["anchors"], A)
        for bad, text in ((A[:2], "numbers of shape"), (A + np.inf, "not finite")):
            np.save(file, bad)
            with pytest.raises(DataError, match=text):
                made("fedsa", **given)
        file.write_bytes(b"no array")
        with pytest.raises(DataError, match="cannot be read"):
            made("fedsa", **given)

    @pytest.mark.parametrize(
        ("settings", "text"),
        [
            ({"alpha": 1.5}, "alpha must be in"),
            ({"anchor_init": "random"}, "anchor_init must be one of"),
            ({"anchor_init": "file"}, "go together"),
        ],
    )
    def test_settings_are_checked(self, settings: dict[str, Any], text: str) -> None:
        with pytest.raises(ConfigError, match=text):
            build("fedsa", settings)

    def test_needs_to_know_classes_and_width(self) -> None:
        with pytest.raises(ConfigError, match="feature_dim 0"):
            FedSA().initial(model())
        strategy = build("fedsa", {"anchor_init": "etf"})
        strategy.bind(replace(SERVER, feature_dim=3))
        with pytest.raises(ConfigError, match="width >= 4"):
            strategy.initial(model())


class TestFedTGP:
    def test_all_classes_get_a_prototype_even_if_one_was_sent(self) -> None:
        strategy, arrays = made("fedtgp", server_epochs=3, tau=9.0)
        arrays, outcome = after(strategy, arrays, reply(0, {1: A[1]}))
        assert arrays["present"].all()
        assert outcome.metrics["server_margin"] == 9
        assert np.abs(np.diff(arrays["vectors"], axis=0)).max() > 0.01

    def test_who_answers_first_and_how_many_threads_do_not_matter(self) -> None:
        replies = [reply(k, dict(enumerate(vectors(k)))) for k in range(5)]
        found = []
        threads = torch.get_num_threads()
        for order, count in ((replies, 1), (replies[::-1], 2)):
            torch.set_num_threads(count)
            strategy, arrays = made("fedtgp", server_epochs=5)
            found.append(after(strategy, arrays, *order)[0]["vectors"])
            assert torch.get_num_threads() == count
        torch.set_num_threads(threads)
        assert (found[0] == found[1]).all()

    def test_global_random_state_is_left_alone(self) -> None:
        torch.manual_seed(1)
        before, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        strategy, arrays = made("fedtgp", server_epochs=2)
        after(strategy, arrays, reply(0, dict(enumerate(A))))
        assert torch.equal(torch.get_rng_state(), before)
        assert (np.random.get_state()[1] == legacy).all()  # noqa: NPY002

    def test_training_brings_prototypes_to_the_uploads_and_keeps_classes_apart(self) -> None:
        strategy, arrays = made("fedtgp", server_epochs=300, server_lr=0.05)
        replies = [reply(k, dict(enumerate(3 * A + 0.1 * vectors(k)))) for k in range(4)]
        losses = []
        for index in range(1, 4):
            arrays, outcome = after(strategy, arrays, *replies, index=index)
            losses.append(outcome.metrics["server_loss"])
        assert losses[2] < losses[0]
        distance = np.linalg.norm(arrays["vectors"][:, None] - 3 * A, axis=2)
        assert distance.argmin(axis=1).tolist() == [0, 1, 2, 3]
        assert outcome.metrics["gap_prototypes"] > 0.5 * outcome.metrics["gap_uploads"]

    @pytest.mark.parametrize(
        ("settings", "text"),
        [
            ({"tau": 0.0}, "tau must be > 0"),
            ({"server_epochs": -1}, "server_epochs must be >= 0"),
            ({"server_batch": 0}, "server_batch must be >= 1"),
            ({"margin": "mean"}, "margin must be one of nearest, max_pair"),
        ],
    )
    def test_settings_are_checked(self, settings: dict[str, Any], text: str) -> None:
        with pytest.raises(ConfigError, match=text):
            build("fedtgp", settings)

    def test_zero_epochs_keep_the_generator(self) -> None:
        strategy, arrays = made("fedtgp", server_epochs=0)
        before = {name: value.clone() for name, value in strategy.generator.items()}
        after(strategy, arrays, reply(0, dict(enumerate(A))))
        assert all(torch.equal(value, before[name]) for name, value in strategy.generator.items())


@pytest.mark.parametrize("name", ["fedsa", "fedproto", "fedtgp"])
def test_resumed_is_uninterrupted_bit_for_bit(name: str) -> None:
    settings = {"fedsa": {"alpha": 0.9, "prototype_memory": True}, "fedtgp": {"server_epochs": 3}}
    replies = [[reply(k, {(k + r) % CLASSES: vectors(9 * r + k)[0]}) for k in range(3)]
               for r in range(4)]  # fmt: skip

    def run(strategy: Any, arrays: Any, rounds: range) -> Any:
        for index in rounds:
            arrays, _ = after(strategy, arrays, *replies[index], index=index + 1)
        return arrays

    whole, arrays = made(name, **settings.get(name, {}))
    expected = run(whole, arrays, range(4))
    first, arrays = made(name, **settings.get(name, {}))
    middle, state = run(first, arrays, range(2)), first.state()
    second, _ = made(name, **settings.get(name, {}))
    second.load_state(state)
    got = run(second, middle, range(2, 4))
    for key, value in expected.items():
        assert (got[key] == value).all()
    for key, value in whole.state().arrays.items():
        assert (second.state().arrays[key] == value).all()


@pytest.mark.parametrize("kind", [FedSA, FedTGP])
def test_a_state_of_another_strategy_is_refused(kind: Any) -> None:
    strategy = kind()
    strategy.bind(SERVER)
    strategy.initial(model())
    with pytest.raises(CheckpointError, match=kind.__name__):
        strategy.load_state(State({"m_t": A}))


def test_local_training_exchanges_nothing() -> None:
    strategy = LocalTraining()
    assert strategy.initial(model()) == {}
    assert dict(strategy.needs) == {}
    _, outcome = after(strategy, {}, reply(0, {}))  # type: ignore[arg-type]
    assert not outcome.arrays
    assert "model_kept" not in outcome.metrics


class TestFedLabelAnchors:
    def test_sends_anchors_and_coefficients_and_trains_as_fedlabel_does(self) -> None:
        strategy = build("fedlabel_anchors", {"lambda_reg": 2.0, "nu_cc": 0.0})
        assert isinstance(strategy, FedLabelAnchors)
        strategy.bind(SERVER)
        start = model()
        assert strategy.initial(start) is start
        sent = strategy.shared("train", 1)["anchors"]
        assert sent["vectors"].shape == (CLASSES, WIDTH)
        nearest = np.linalg.norm(sent["vectors"][:, None] - sent["vectors"], axis=2)
        np.fill_diagonal(nearest, np.inf)
        assert float(sent["margin"]) == pytest.approx(nearest.min(axis=1).mean(), rel=1e-5)
        expected = {"anchor-lambda-reg": 2.0, "anchor-mu-mcl": 1.0, "anchor-nu-cc": 0.0}
        assert strategy.server.settings == expected
        assert dict(strategy.needs) == {"model": "sum"}

    def test_settings_are_checked(self) -> None:
        for settings, text in (({"variant": "joint"}, "no labeled"), ({"mu_mcl": -1}, "mu_mcl")):
            with pytest.raises(ConfigError, match=text):
                build("fedlabel_anchors", settings)


def _as_float32(message: Message) -> Message:
    up = wire.decode_up(message.content)
    value = {name: v.astype(np.float32) for name, v in up.terms["prototypes"].value.items()}
    term = replace(up.terms["prototypes"], value=value)
    message.content = wire.encode_up(replace(up, terms={"prototypes": term}))
    return message
