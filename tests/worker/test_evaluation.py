from itertools import pairwise

import numpy as np
import pytest
import torch

from fedlabels.data import ArrayDataset
from fedlabels.federation import Ragged
from fedlabels.worker.classification import auc
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
    assert found.classes.recall[:2].tolist() == [0.5, 1.0]
    assert np.isnan(found.classes.recall[2])
    assert found.parts == {
        "test_balanced_accuracy": 0.75,
        "test_precision_macro": 0.75,
        "test_f1_macro": pytest.approx(2 / 3),
        "test_f1_weighted": pytest.approx(2 / 3),
    }
    assert found.confusion.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert found.predictions.index.tolist() == [0, 1, 2]


def test_domains_and_the_worst_of_them():
    data = dataset([0, 1, 0, 1], [0, 0, 1, 1], ("photo", "sketch", "unused"))
    parts = evaluate([Scored(0.0, np.array([0, 1, 0, 0]))], data, none(1)).parts
    assert {k: v for k, v in parts.items() if "_accuracy_" in k} == {
        "test_accuracy_photo": 1.0,
        "test_accuracy_sketch": 0.5,
        "test_accuracy_worst_domain": 0.5,
    }


def test_a_domain_may_be_called_like_the_worst():
    data = dataset([0, 1, 0, 1], [0, 0, 1, 1], ("worst_domain", "b"))
    parts = evaluate([Scored(0.0, np.array([0, 1, 0, 0]))], data, none(1)).parts
    assert {k: v for k, v in parts.items() if "_accuracy_" in k} == {
        "test_accuracy_worst_domain_": 1.0,
        "test_accuracy_b": 0.5,
        "test_accuracy_worst_domain": 0.5,
    }


def test_no_label_no_figure():
    data = dataset([-1, -1, 0], [0, 0, 1], ("a", "b"))
    blocks = [Scored(0.5, np.array([0, 1, 0]))]
    parts = evaluate(blocks, data, Ragged.from_lists([[0, 1], [1, 2]])).parts
    assert parts == {
        **dict.fromkeys(("test_balanced_accuracy", "test_precision_macro"), 1.0),
        **dict.fromkeys(("test_f1_macro", "test_f1_weighted"), 1.0),
        "test_accuracy_b": 1.0,
        "test_accuracy_worst_domain": 1.0,
        "local_accuracy": 1.0,
        "local_accuracy_p10": 1.0,
    }
    found = evaluate([Scored(0.0, np.array([0, 1]))], dataset([-1, -1]), Ragged.from_lists([[0]]))
    assert np.isnan([found.loss, found.accuracy, *found.classes.recall]).all()
    assert found.parts == {}


def test_clients_weigh_the_same_and_those_without_samples_nothing():
    shards = Ragged.from_lists([[0, 1, 2], [], [3], [0, 3]])
    parts = evaluate([Scored(0.0, np.array([0, 0, 0, 1]))], dataset([0, 0, 1, 2]), shards).parts
    each = [2 / 3, 0.0, 0.5]
    assert parts["local_accuracy"] == pytest.approx(np.mean(each))
    assert parts["local_accuracy_p10"] == pytest.approx(np.quantile(each, 0.1))


def test_figures_of_a_whole_test_set_do_not_depend_on_how_it_was_cut():
    draws = torch.Generator().manual_seed(3)
    logits = torch.randn(60, 3, generator=draws)
    y = torch.randint(-1, 2, (60,), generator=draws)
    data = dataset(y.tolist(), (np.arange(60) % 2).tolist(), ("a", "b"))
    cuts = ((0, 60), (0, 7, 31, 60))
    one, many = (
        evaluate(
            [scored(logits[a:b], y[a:b], probabilities=True) for a, b in pairwise(cut)],
            data,
            none(1),
        )
        for cut in cuts
    )
    assert one.parts == many.parts
    assert one.domains == many.domains
    names = {"test_auc", "test_ece", "test_f1_macro", "test_balanced_accuracy"}
    assert names <= one.parts.keys()
    known = y >= 0
    assert one.parts["test_auc"] == auc(y[known].numpy(), logits[known].softmax(1).numpy())
    assert [row["domain"] for row in one.domains] == ["a", "b"]
    assert sum(row["samples"] for row in one.domains) == int(known.sum())


def test_a_model_that_diverged_has_no_figures_of_probabilities():
    logits = torch.tensor([[float("nan"), 0.0, 0.0], [0.0, 2.0, 0.0]])
    y = torch.tensor([0, 1])
    found = evaluate([scored(logits, y, probabilities=True)], dataset([0, 1]), none(1))
    assert found.calibration is None
    assert "test_f1_macro" in found.parts
    assert not {"test_auc", "test_ece"} & found.parts.keys()
