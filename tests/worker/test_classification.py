"""Figures of a classifier against scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.metrics import (
    confusion_matrix as sklearn_confusion,
)
from sklearn.metrics import (
    precision_recall_fscore_support,
    roc_auc_score,
)

from fedlabels.worker.classification import (
    BINS,
    auc,
    by_class,
    calibration,
    confusion_matrix,
    summary,
)

CLASSES = 5


def predictions(seed, absent=(), digits=8):
    """Draw labels without some classes, and probabilities with many ties where digits are few."""
    random = np.random.default_rng(seed)
    present = [c for c in range(CLASSES) if c not in absent]
    truth = random.choice(present, 200)
    scores = random.dirichlet(np.ones(CLASSES), 200) + 0.4 * np.eye(CLASSES)[truth]
    each = (scores / scores.sum(1, keepdims=True)).round(digits).astype(np.float32)
    return truth, each, each.argmax(1)


@pytest.mark.parametrize("absent", [(), (1, 4)])
@pytest.mark.parametrize("digits", [8, 1])
def test_figures_are_those_of_scikit_learn(absent, digits):
    truth, each, predicted = predictions(1, absent, digits)
    present = np.unique(truth)
    confusion = confusion_matrix(truth, predicted, CLASSES)
    np.testing.assert_array_equal(
        confusion, sklearn_confusion(truth, predicted, labels=range(CLASSES))
    )

    def theirs(average):
        return precision_recall_fscore_support(
            truth, predicted, labels=present, average=average, zero_division=0
        )

    precision, recall, f1, _ = theirs(None)
    found = by_class(confusion)
    np.testing.assert_allclose(found.precision[present], precision)
    np.testing.assert_allclose(found.recall[present], recall)
    np.testing.assert_allclose(found.f1[present], f1)
    assert np.isnan([values[list(absent)] for values in found]).all()
    assert summary(confusion) == pytest.approx({
        "precision_macro": theirs("macro")[0],
        "f1_macro": theirs("macro")[2],
        "f1_weighted": theirs("weighted")[2],
        "balanced_accuracy": theirs("macro")[1],
    })  # fmt: skip
    areas = [roc_auc_score(truth == c, each[:, c]) for c in present]
    assert auc(truth, each) == pytest.approx(np.mean(areas), abs=1e-12)


def test_the_area_is_the_ovr_macro_of_scikit_learn():
    truth, each, _ = predictions(2)
    each = each.astype(np.float64)
    theirs = roc_auc_score(truth, each / each.sum(1, keepdims=True), multi_class="ovr")
    assert auc(truth, each.astype(np.float32)) == pytest.approx(theirs, abs=1e-6)


def test_the_area_counts_pairs_and_ties_half():
    scores = np.array([[0.7, 0.3], [0.5, 0.5], [0.5, 0.5], [0.2, 0.8]], dtype=np.float32)
    assert auc(np.array([0, 0, 1, 1]), scores) == 3.5 / 4
    assert auc(np.array([0, 0, 1, 1]), np.full((4, 2), 0.5, dtype=np.float32)) == 0.5
    assert math.isnan(auc(np.array([1, 1]), scores[:2]))


def test_counts_of_parts_add_up_and_classes_without_samples_poison_nothing():
    truth, _, predicted = predictions(3, absent=(2,))
    whole = confusion_matrix(truth, predicted, CLASSES)
    parts = [confusion_matrix(truth[k::3], predicted[k::3], CLASSES) for k in range(3)]
    np.testing.assert_array_equal(sum(parts), whole)
    assert all(np.isfinite(value) for value in summary(whole).values())
    assert summary(np.zeros((3, 3), dtype=np.int64)) == {}


def test_a_class_that_is_never_predicted_has_precision_and_f1_zero():
    found = by_class(np.array([[3, 0], [2, 0]]))
    assert found.precision.tolist() == [0.6, 0.0]
    assert found.f1.tolist() == [0.75, 0.0]


def test_calibration_of_known_bins():
    confidence = np.array([0.0, 0.06, 0.5, 0.51, 1.0, 1.0], dtype=np.float32)
    right = np.array([False, True, True, False, True, True])
    binned = calibration(confidence, right)
    assert len(binned.samples) == BINS
    assert np.flatnonzero(binned.samples).tolist() == [0, 7, 14]
    assert binned.samples.sum() == 6
    assert binned.right[7] == 1
    assert binned.confidence[14] == 2
    wrong = calibration(np.full(4, 0.75, dtype=np.float32), np.array([True, False, False, False]))
    assert wrong.error() == 0.5
    assert math.isnan(calibration(confidence[:0], right[:0]).error())
