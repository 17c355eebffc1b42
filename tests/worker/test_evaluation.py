import numpy as np
import pytest
import torch

from fedlabels.data import ArrayDataset
from fedlabels.federation import Ragged
from fedlabels.worker.evaluation import Scored, evaluate, scored


def dataset(y, domain=None, names=()):
    return ArrayDataset(
        "toy",
        np.zeros((len(y), 1, 2, 2), dtype=np.uint8),
        np.array(y),
        3,
        ("a", "b", "c"),
        (0.5,),
        (1.0,),
        None if domain is None else np.array(domain),
        names,
    )


def none(clients):
    return Ragged(np.zeros(0, dtype=np.int64), np.zeros(clients + 1, dtype=np.int64))


def test_loss_counts_samples_of_known_class_only():
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 9.0]])
    found = scored(logits, torch.tensor([0, -1]))
    assert found.loss == pytest.approx(float(torch.log(2 * torch.exp(torch.tensor(-2.0)) + 1)))
    assert found.predictions.tolist() == [0, 2]


def test_accuracy_recall_and_unknown_classes():
    blocks = [Scored(1.0, np.array([0, 1])), Scored(2.0, np.array([1, 0]))]
    found = evaluate(blocks, dataset([0, 0, 1, -1]), none(2))
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.loss == pytest.approx(1.0)
    assert found.recall[:2].tolist() == [0.5, 1.0]
    assert np.isnan(found.recall[2])
    assert found.parts == {}


def test_domains_and_the_worst_of_them():
    data = dataset([0, 1, 0, 1], [0, 0, 1, 1], ("photo", "sketch", "unused"))
    parts = evaluate([Scored(0.0, np.array([0, 1, 0, 0]))], data, none(1)).parts
    assert parts == {
        "test_accuracy_photo": 1.0,
        "test_accuracy_sketch": 0.5,
        "test_accuracy_worst_domain": 0.5,
    }


def test_a_domain_may_be_called_like_the_worst():
    data = dataset([0, 1, 0, 1], [0, 0, 1, 1], ("worst_domain", "b"))
    parts = evaluate([Scored(0.0, np.array([0, 1, 0, 0]))], data, none(1)).parts
    assert parts == {
        "test_accuracy_worst_domain_": 1.0,
        "test_accuracy_b": 0.5,
        "test_accuracy_worst_domain": 0.5,
    }


def test_no_label_no_figure():
    data = dataset([-1, -1, 0], [0, 0, 1], ("a", "b"))
    blocks = [Scored(0.5, np.array([0, 1, 0]))]
    parts = evaluate(blocks, data, Ragged.from_lists([[0, 1], [1, 2]])).parts
    assert parts == {
        "test_accuracy_b": 1.0,
        "test_accuracy_worst_domain": 1.0,
        "local_accuracy": 1.0,
        "local_accuracy_p10": 1.0,
    }
    found = evaluate([Scored(0.0, np.array([0, 1]))], dataset([-1, -1]), Ragged.from_lists([[0]]))
    assert np.isnan([found.loss, found.accuracy, *found.recall]).all()
    assert found.parts == {}


def test_clients_weigh_the_same_and_those_without_samples_nothing():
    shards = Ragged.from_lists([[0, 1, 2], [], [3], [0, 3]])
    parts = evaluate([Scored(0.0, np.array([0, 0, 0, 1]))], dataset([0, 0, 1, 2]), shards).parts
    each = [2 / 3, 0.0, 0.5]
    assert parts["local_accuracy"] == pytest.approx(np.mean(each))
    assert parts["local_accuracy_p10"] == pytest.approx(np.quantile(each, 0.1))
