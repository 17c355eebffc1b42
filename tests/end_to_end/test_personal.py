"""Clients that test their model on samples of their own."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedlabels.clients.fedavg import FedAvg
from fedlabels.cohort import FitResult, Ratio
from fedlabels.data import ArrayDataset
from fedlabels.errors import ConfigError
from fedlabels.federation import Ragged, Samples, TestShards
from fedlabels.rounds.job import ClientRow
from fedlabels.run.data import build_data
from fedlabels.run.personal import personal_scores
from tests.end_to_end.harness import FEDAVG, config_of, simulate, table, with_client


def test_a_global_model_scores_alike_wherever_it_is_tested(tmp_path):
    # local_accuracy comes from the server's predictions, personal_accuracy from the clients
    simulate(tmp_path / "run", config_of(*FEDAVG, "evaluate_clients=true"))
    rows = table(tmp_path / "run")
    assert len(rows) == 4
    for row in rows:
        assert float(row["personal_accuracy"]) == pytest.approx(float(row["local_accuracy"]))
    accuracies = {row["personal_accuracy"] for row in rows}
    assert len(accuracies) > 1  # a model that never changes would prove nothing
    asked = {row["client_id"] for row in table(tmp_path / "run", "personal")}
    assert asked == {str(k) for k in range(10)}


def test_is_off_unless_asked_for(tmp_path):
    simulate(tmp_path / "run", config_of(*FEDAVG))
    assert "personal_accuracy" not in table(tmp_path / "run")[0]
    assert not (tmp_path / "run" / "personal.csv").exists()


def test_only_rounds_that_evaluate_have_rows(tmp_path):
    """Round 3 tests nobody: what clients had in round 2 is no figure of it."""
    simulate(tmp_path / "run", config_of(*FEDAVG, "evaluate_clients=true", "evaluate_every=2"))
    for name in ("personal", "test_class"):
        assert {row["round"] for row in table(tmp_path / "run", name)} == {"2", "4"}


def test_means_pool_and_tail():
    test = ArrayDataset(
        "t", np.zeros((6, 1, 2, 2), np.uint8), np.array([0, 1, 0, 1, 0, 1]), 2, ("a", "b"),
        (0.5,), (0.5,), domain=np.array([0, 0, 0, 1, 1, 1]), domain_names=("sun", "rain"),
    )  # fmt: skip
    shards = Ragged(np.array([0, 1, 3, 4, 5]), np.array([0, 2, 5, 5]))
    made = [
        ClientRow(0, "ok", metrics={"accuracy": (2.0, 2.0)}),
        ClientRow(1, "ok", metrics={"accuracy": (1.0, 3.0)}),
        ClientRow(2, "ok", metrics={"accuracy": (0.0, 0.0)}),
    ]
    figures, rows = personal_scores(made, test, shards)
    assert figures["personal_accuracy"] == pytest.approx((1 + 1 / 3) / 2)
    assert figures["personal_accuracy_pooled"] == pytest.approx(3 / 5)
    assert figures["personal_accuracy_worst"] == pytest.approx(1 / 3)
    assert figures["personal_accuracy_sun"] == 1.0
    assert figures["personal_accuracy_rain"] == pytest.approx(1 / 3)
    assert [row["client_id"] for row in rows] == [0, 1]
    assert [row["samples"] for row in rows] == [2, 3]
    assert figures["personal_clients"] == 2
    assert figures["personal_samples"] == 5
    assert figures["personal_failed"] == 0


def hidden_domains(names):
    return ArrayDataset(
        "t", np.zeros((4, 1, 2, 2), np.uint8), np.array([0, 1, -1, -1]), 2, ("a", "b"),
        (0.5,), (0.5,), domain=np.array([0, 0, 1, 1]), domain_names=names,
    )  # fmt: skip


def test_a_client_whose_test_failed_is_counted_and_named():
    shards = Ragged.from_lists([[0], [1]])
    made = [
        ClientRow(0, "failed", "ValueError: no"),
        ClientRow(1, "ok", metrics={"accuracy": (1.0, 1.0)}),
    ]
    figures, rows = personal_scores(made, hidden_domains(("sun", "rain")), shards)
    assert (figures["personal_clients"], figures["personal_failed"]) == (1, 1)
    assert [(row["status"], row["error"]) for row in rows] == [
        ("failed", "ValueError: no"), ("ok", None),
    ]  # fmt: skip
    assert "accuracy" not in rows[0]


@pytest.mark.parametrize("name", ["worst", "p10", "pooled", "held"])
def test_a_domain_may_be_called_like_a_figure(name):
    test = replace(hidden_domains((name, f"{name}_")), y=np.array([0, 1, 0, 1]))
    shards = Ragged.from_lists([[0, 1], [2, 3]])
    made = [
        ClientRow(k, "ok", metrics={"accuracy": (hits, 2.0), "accuracy_held": (hits / 2, 1.0)})
        for k, hits in enumerate((2.0, 1.0))
    ]
    figures, _ = personal_scores(made, test, shards)
    assert figures["personal_accuracy_worst"] == 0.5
    assert figures["personal_accuracy_pooled"] == pytest.approx(3 / 4)
    assert figures["personal_accuracy_p10"] == pytest.approx(0.55)
    assert figures["personal_accuracy_held"] == pytest.approx(0.75)
    assert figures[f"personal_accuracy_{name}__"] == 1.0  # the other domain has the next name
    assert figures[f"personal_accuracy_{name}_"] == 0.5


class Stumbles(FedAvg):
    """Cannot be tested."""

    def evaluate(self, cohort, request):
        raise ValueError("no test today")


def test_a_run_says_who_could_not_be_tested(tmp_path, capsys):
    config = config_of(*FEDAVG, "rounds=1", "evaluate_clients=true", "max_client_failures=0.6")
    able, unable = (kind(lr=0.1, steps=1) for kind in (FedAvg, Stumbles))
    change = with_client(able, also=unable)
    simulate(tmp_path / "run", config, change)
    (row,) = table(tmp_path / "run")
    assert (row["personal_clients"], row["personal_failed"]) == ("5", "5")
    lost = [r for r in table(tmp_path / "run", "personal") if r["status"] == "failed"]
    assert [r["client_id"] for r in lost] == ["1", "3", "5", "7", "9"]
    assert all("no test today" in r["error"] for r in lost)
    said = capsys.readouterr().out
    assert "5 of 10 clients could not be tested on their own samples: 1, 3, 5, 7, 9" in said
    assert "mean over 5 of 10 clients" in said
    assert "5 clients could not be tested" in (tmp_path / "run" / "report.html").read_text()


class Answers(FedAvg):
    """Tests itself in a way of its own: by the number of the client."""

    def evaluate(self, cohort, request):
        made = super().evaluate(cohort, request)
        hit, n = made.metrics["accuracy"].sum, made.metrics["accuracy"].count
        (shard,) = cohort._shards
        odd = {
            0: {},
            1: {"loss": made.metrics["loss"]},
            2: {**made.metrics, "accuracy": Ratio(n + 1, n)},
            3: {**made.metrics, "accuracy": Ratio(hit, n + 1)},
            4: {**made.metrics, "loss": Ratio(torch.tensor(torch.inf), n)},
        }
        return FitResult(metrics=odd.get(shard.client_id, made.metrics))


def test_figures_are_over_those_who_have_one_and_say_so(tmp_path, capsys):
    config = config_of(*FEDAVG, "rounds=1", "evaluate_clients=true", "training.steps=1")
    simulate(tmp_path, config, with_client(Answers(lr=0.1, steps=1)))
    (row,) = table(tmp_path)
    assert (row["personal_clients"], row["personal_failed"]) == ("6", "4")
    assert row["personal_loss"] == "inf"  # no client with a loss is passed over
    rows = {r["client_id"]: r for r in table(tmp_path, "personal")}
    texts = {"0": "gave no figure", "1": "gave no figure", "2": "no test of its", "3": "no test of"}
    assert all(text in rows[k]["error"] for k, text in texts.items())
    assert rows["4"]["accuracy"]
    assert not rows["4"]["error"]
    assert "4 of 10 clients could not be tested on their own samples" in capsys.readouterr().out


def test_more_clients_than_test_samples_of_their_own(tmp_path, capsys):
    data = few_tests(tmp_path, [0, 1, 2])
    config = config_of(*SITES, f"dataset.root={data}", "evaluate_clients=true", "clients=8")
    simulate(tmp_path / "run", config)
    (row,) = table(tmp_path / "run")
    assert (row["personal_clients"], row["personal_samples"]) == ("3", "3")
    assert row["personal_accuracy"]
    note = "Clients without a test sample of their own: 5 of 8"
    for place in (capsys.readouterr().out, (tmp_path / "run" / "run.log").read_text()):
        assert note in place
        assert "mean over 3 of 8 clients, 3 test samples" in place
    assert note in (tmp_path / "run" / "report.html").read_text()


def test_nobody_is_scored_where_no_test_sample_has_a_label(tmp_path, capsys):
    data = few_tests(tmp_path, [-1, -1, -1])
    config = config_of(*SITES, f"dataset.root={data}", "evaluate_clients=true")
    simulate(tmp_path / "run", config)
    (row,) = table(tmp_path / "run")
    assert not [name for name, value in row.items() if "accuracy" in name and value]
    said = capsys.readouterr().out
    assert said.count("No test sample has a label: no accuracy is measured.") == 1
    assert "not evaluated" in said
    assert "No test sample has a label" in (tmp_path / "run" / "report.html").read_text()


def test_test_samples_without_a_label_change_no_figure(tmp_path):
    rows = []
    for name, more in (("known", []), ("hidden", [-1] * 40)):
        (tmp_path / name).mkdir()
        data = few_tests(tmp_path / name, [*range(10)] * 4 + more)
        config = config_of(*SITES, f"dataset.root={data}", "test_shards.share=1", *OWN)
        simulate(tmp_path / name / "run", config)
        rows.append(table(tmp_path / name / "run")[0])
    kept = [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in rows]
    assert kept[0] == kept[1]
    assert kept[0]["personal_samples"] == "40"


def test_no_client_has_a_label_and_the_run_says_so(tmp_path, capsys):
    config = config_of(
        *FEDAVG, "rounds=1", "labels=server", "labels.per_class=10", "labels.fraction=0"
    )
    simulate(tmp_path / "run", config)
    wrong = "No client has a label"
    assert wrong in capsys.readouterr().out
    assert wrong in (tmp_path / "run" / "run.log").read_text()
    assert wrong in (tmp_path / "run" / "report.html").read_text()


def test_people_are_tested_on_their_own_samples(tmp_path):
    who, tested = np.arange(80) % 4, np.arange(30) % 6  # two of them have no training sample
    data = few_tests(tmp_path, [*range(10)] * 3, client_train=who, client_test=tested.astype(str))
    config = config_of(*SITES, f"dataset.root={data}", "partition=natural", "evaluate_clients=true")
    _, federation = build_data(config)
    assert [set(tested[own].tolist()) for own in federation.test] == [{0}, {1}, {2}, {3}]
    assert federation.test.sizes.tolist() == [5, 5, 5, 5]
    asked = config | {"evaluate_clients": False, "test_shards": {"share": 1.0, "by": None}}
    assert build_data(asked)[1].hash == federation.hash
    mixed = config | {"test_shards": {"share": 1.0, "by": "classes"}}
    assert build_data(mixed)[1].hash != federation.hash
    few = config | {"clients": 2}
    assert all(len(set(tested[own].tolist())) == 1 for own in build_data(few)[1].test)


def test_people_who_do_not_train_are_no_ones_test_samples_and_that_is_said(tmp_path, capsys):
    who = np.array([f"u{k % 7}" for k in range(80)])
    natural = ("partition=natural", "evaluate_clients=true", "training.lr=0.01")

    def config(tested, *more):
        data = few_tests(tmp_path, [*range(10)] * 3, client_train=who, client_test=np.array(tested))
        return config_of(*SITES, f"dataset.root={data}", *natural, *more)

    def refused(tested, *more, say):
        with pytest.raises(ConfigError, match=say):
            simulate(tmp_path / "refused", config(tested, *more))

    others = [f"v{k % 7}" for k in range(30)]
    refused(
        others, say=r"training set are called 'u0', 'u1', 'u2' \.\.\., those of the test set 'v0'"
    )
    refused(range(30), say=r"those of the test set '0', '1', '2' \.\.\..*test_shards\.by=classes")
    refused(others, "test_shards.share=1", "test_shards.by=owner", say="no test sample is of")
    _, federation = build_data(config(others, "test_shards.share=1", "test_shards.by=classes"))
    assert federation.test.sizes.sum() == 30
    simulate(tmp_path / "run", config([f"u{k % 6}" if k < 20 else "v" for k in range(30)]))
    asked = "clients=7 takes all"
    for place in (capsys.readouterr().out, (tmp_path / "run" / "run.log").read_text()):
        assert "samples: v; no client is tested on these 10 of 30 test samples" in place
        assert re.search(r"3 of 7 people take no part, with 3[3-6] of 80 training samples", place)
        assert asked in place
    simulate(tmp_path / "all", config(who[:30], "clients=7"))
    assert "take no part" not in capsys.readouterr().out


OWN = ("method=fedsa", "training.epochs=1", "training.steps=null")
SITES = (
    "backend=serial", "dataset=npz", "dataset.options.num_classes=10", "model=mlp",
    "model.hidden=[8]", "clients=4", "per_round=4", "rounds=1", "partition=iid", "method=fedavg",
    "training.steps=1",
)  # fmt: skip


def few_tests(folder, labels, **more):
    random = np.random.default_rng(0)
    np.savez(
        folder / "few.npz",
        x_train=random.integers(0, 255, (80, 1, 4, 4), dtype=np.uint8),
        y_train=np.arange(80) % 10,
        x_test=random.integers(0, 255, (100, 1, 4, 4), dtype=np.uint8)[: len(labels)],
        y_test=np.array(labels),
        **more,
    )
    return folder / "few.npz"


class TestShardsByDomain:
    samples = Samples(
        np.array([0, 1, 0, 1]), 2, domain=np.array([0, 1, 1, 1]), domain_names=("sun", "rain")
    )
    test = Samples(np.array([0, 1, 0]), 2, domain=np.array([1, 0, 1]), domain_names=("sun", "rain"))

    def test_all_samples_of_the_clients_domain(self):
        shards = Ragged(np.array([0, 1, 2, 3]), np.array([0, 1, 4]))
        drawn = TestShards(share=1.0, by="domain").draw(
            shards, self.samples, self.test, np.random.default_rng(0)
        )
        assert [drawn[k].tolist() for k in range(2)] == [[1], [0, 2]]

    def test_needs_domains(self):
        plain = Samples(np.array([0, 1]), 2)
        shards = Ragged(np.array([0, 1]), np.array([0, 2]))
        with pytest.raises(ConfigError, match="needs data with domains"):
            TestShards(share=1.0, by="domain").draw(shards, plain, plain, np.random.default_rng(0))

    def test_unknown_rule(self):
        with pytest.raises(ConfigError, match="must be one of classes, domain"):
            TestShards(share=1.0, by="nearest")
