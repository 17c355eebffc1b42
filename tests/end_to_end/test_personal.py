"""Clients that test their model on samples of their own."""

import numpy as np
import pytest

from fedlabels.data import ArrayDataset
from fedlabels.errors import ConfigError
from fedlabels.federation import Ragged, Samples, TestShards
from fedlabels.simulation.job import ClientRow
from fedlabels.simulation.personal import personal
from tests.end_to_end.harness import FEDAVG, config_of, simulate, table


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
    figures, rows = personal(made, test, shards)
    assert figures["personal_accuracy"] == pytest.approx((1 + 1 / 3) / 2)
    assert figures["personal_accuracy_pooled"] == pytest.approx(3 / 5)
    assert figures["personal_accuracy_worst"] == pytest.approx(1 / 3)
    assert figures["personal_accuracy_sun"] == 1.0
    assert figures["personal_accuracy_rain"] == pytest.approx(1 / 3)
    assert [row["client_id"] for row in rows] == [0, 1]


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
