"""Figures of a classifier: from counts that add up, from its confidences, from its ranking.

A class without samples is left out of every mean over classes.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Probabilities = NDArray[np.float32]

BINS = 15
"""Equal bins of the confidence from 0 to 1, as in Guo et al. 2017."""


class ByClass(NamedTuple):
    """Figures of each class against all others, in [0, 1]; nan for a class without samples.

    Parameters
    ----------
    recall : ndarray of float64, shape (classes,)
        Share of the class's samples that are found.
    precision : ndarray of float64, shape (classes,)
        Share of right ones among the samples that are taken for the class; 0 where none is.
    f1 : ndarray of float64, shape (classes,)
        Their harmonic mean; 0 where both are 0.
    """

    recall: Floats
    precision: Floats
    f1: Floats


class Calibration(NamedTuple):
    """Predictions by their confidence, the probability of the predicted class.

    Bin k holds the confidences in (k / `BINS`, (k + 1) / `BINS`].

    Parameters
    ----------
    samples, right : ndarray of int64, shape (BINS,)
        Predictions, and the right ones among them.
    confidence : ndarray of float64, shape (BINS,)
        Sum of the confidences.
    """

    samples: Ints
    right: Ints
    confidence: Floats

    def error(self) -> float:
        """Return the expected calibration error, in [0, 1]; nan without a sample.

        It is the mean over all predictions of the distance, in their bin, between the share of
        right ones and the mean confidence.
        """
        total = int(self.samples.sum())
        return float(np.abs(self.right - self.confidence).sum() / total) if total else math.nan


def confusion_matrix(truth: Ints, predicted: Ints, classes: int) -> Ints:
    """Count samples by class and predicted class.

    Parameters
    ----------
    truth, predicted : ndarray of int64, shape (samples,)
        From 0 to ``classes`` - 1.
    classes : int
        How many classes there are.

    Returns
    -------
    ndarray of int64, shape (classes, classes)
        A row is a true class, a column a predicted one. The matrices of parts add up to that of
        the whole.
    """
    counts = np.bincount(truth * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes)


def by_class(confusion: Ints) -> ByClass:
    """Return the figures of each class.

    Parameters
    ----------
    confusion : ndarray of int64, shape (classes, classes)
        From `confusion_matrix`.
    """
    found, held, taken = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    with np.errstate(invalid="ignore"):
        recall = found / held
    precision = np.where(held > 0, found / np.maximum(taken, 1), np.nan)
    f1 = np.where(held > 0, 2 * found / np.maximum(held + taken, 1), np.nan)
    return ByClass(recall, precision, f1)


def summary(confusion: Ints) -> dict[str, float]:
    """Return the means over the classes.

    Parameters
    ----------
    confusion : ndarray of int64, shape (classes, classes)
        From `confusion_matrix`.

    Returns
    -------
    dict of str to float
        ``precision_macro``, ``f1_macro``, ``f1_weighted`` (by the samples of each class) and
        ``balanced_accuracy`` (the mean recall), in [0, 1]. Empty without a sample.
    """
    held = confusion.sum(1)
    present = held > 0
    if not present.any():
        return {}
    each = by_class(confusion)
    weighted = each.f1[present] * held[present]
    return {
        "precision_macro": float(each.precision[present].mean()),
        "f1_macro": float(each.f1[present].mean()),
        "f1_weighted": float(weighted.sum() / held.sum()),
        "balanced_accuracy": float(each.recall[present].mean()),
    }


def calibration(confidence: Probabilities, right: NDArray[np.bool_]) -> Calibration:
    """Sort predictions into bins of their confidence.

    Parameters
    ----------
    confidence : ndarray of float32, shape (samples,)
        Probability of the predicted class, in [0, 1].
    right : ndarray of bool, shape (samples,)
        Whether the prediction is right.
    """
    exact = confidence.astype(np.float64)
    place = np.clip(np.ceil(exact * BINS).astype(np.int64) - 1, 0, BINS - 1)
    return Calibration(
        np.bincount(place, minlength=BINS),
        np.bincount(place[right], minlength=BINS),
        np.bincount(place, exact, minlength=BINS).astype(np.float64),
    )


def auc(truth: Ints, probabilities: Probabilities) -> float:
    """Return the area under the ROC curve, one class against the rest, mean over the classes.

    For a class it is the share of pairs of one of its samples and one of another class in which
    the first has the greater probability of the class; a tie counts half. Exact, from whole
    numbers: it depends on no order of the samples, and on no threshold or bin.

    Parameters
    ----------
    truth : ndarray of int64, shape (samples,)
        Classes, each >= 0.
    probabilities : ndarray of float32, shape (samples, classes)
        Of each class; none is nan.

    Returns
    -------
    float
        In [0, 1]; nan where fewer than two classes have samples.
    """
    held = np.bincount(truth, minlength=probabilities.shape[1])
    present = np.flatnonzero(held)
    if len(present) < 2:
        return math.nan
    areas = [_area(truth == c, probabilities[:, c]) for c in present]
    return float(np.mean(areas))


def _area(positive: NDArray[np.bool_], score: Probabilities) -> float:
    inside, outside = np.sort(score[positive]), np.sort(score[~positive])
    below = np.searchsorted(outside, inside, "left").sum()
    above = np.searchsorted(outside, inside, "right").sum()
    return int(below + above) / (2 * len(inside) * len(outside))
