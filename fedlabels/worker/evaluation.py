"""From predictions on the test set to figures: overall, by class, by domain, by client."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlabels.data import ArrayDataset
from fedlabels.federation import Ragged
from fedlabels.worker.classification import (
    ByClass,
    Calibration,
    Ints,
    Probabilities,
    auc,
    by_class,
    calibration,
    confusion_matrix,
    summary,
)

EMPTY: Mapping[str, float] = {}

MOST_PROBABILITIES = 1 << 27
"""Test samples times classes up to which probabilities are kept: 512 MiB."""


class Scored(NamedTuple):
    """Predictions on one block of the test set.

    Parameters
    ----------
    loss : float
        Cross-entropy in nats, summed over the samples of known class.
    predictions : ndarray of int64, shape (rows,)
        Predicted classes.
    probabilities : ndarray of float32, shape (rows, classes), or None
        Of every class; None where nobody asked for them.
    """

    loss: float
    predictions: Ints
    probabilities: Probabilities | None = None


@dataclass(frozen=True)
class Predictions:
    """What a model says of the test samples of known class.

    Parameters
    ----------
    index : ndarray of int64, shape (samples,)
        Position in the test set, rising.
    label, predicted : ndarray of int64, shape (samples,)
        True and predicted class.
    probabilities : ndarray of float32, shape (samples, classes), or None
        Of every class; None where they were too many to keep, see `MOST_PROBABILITIES`.
    """

    index: Ints
    label: Ints
    predicted: Ints
    probabilities: Probabilities | None = None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what there is, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def where(self, mask: NDArray[np.bool_]) -> "Predictions":
        """Return the samples for which ``mask``, shape (samples,), holds."""
        return Predictions(**{name: value[mask] for name, value in self.arrays().items()})


@dataclass(frozen=True)
class Evaluation:
    """Score of a model on the global test set.

    Parameters
    ----------
    loss : float
        Mean cross-entropy, nats; nan where no test sample has a label.
    accuracy : float
        Share of right predictions, in [0, 1]; nan where no test sample has a label.
    confusion : ndarray of int64, shape (classes, classes)
        Test samples by true class (row) and predicted class (column).
    predictions : Predictions
        From which all figures can be computed.
    parts : mapping of str to float
        ``test_`` and a figure of `figures_of`;
        where the test set has domains ``test_accuracy_<domain>``, see :func:`columns_of`, and
        ``test_accuracy_worst_domain``;
        ``local_accuracy``, the mean over clients of the accuracy on their own test shards, and
        ``local_accuracy_p10``, its 10th percentile, where there are such shards. A domain or a
        client without a test sample of known class has no figure.
    domains : sequence of mapping
        For each domain with a test sample of known class ``domain``, ``samples``, ``accuracy``
        and its `figures_of`.
    """

    loss: float
    accuracy: float
    confusion: Ints
    predictions: Predictions
    parts: Mapping[str, float] = field(default_factory=lambda: EMPTY)
    domains: Sequence[Mapping[str, Any]] = ()

    @property
    def classes(self) -> ByClass:
        """Figures of each class."""
        return by_class(self.confusion)

    @property
    def calibration(self) -> Calibration | None:
        """Predictions by confidence; None without probabilities, or where one is nan."""
        return _calibration(self.predictions)


def scored(logits: Tensor, truth: Tensor, *, probabilities: bool = False) -> Scored:
    """Score the logits of one block, shape (rows, classes), against labels, -1 where not known."""
    known = truth >= 0
    loss = torch.nn.functional.cross_entropy(logits[known], truth[known], reduction="none")
    each = logits.softmax(1, dtype=torch.float32).numpy() if probabilities else None
    return Scored(float(loss.double().sum()), logits.argmax(1).numpy(), each)


def evaluate(blocks: Sequence[Scored], test: ArrayDataset, shards: Ragged) -> Evaluation:
    """Summarize the blocks of a whole test set, in order; what has no label counts nowhere.

    Parameters
    ----------
    blocks : sequence of Scored
        Predictions for all test samples.
    test : ArrayDataset
        The test set.
    shards : Ragged
        Each client's own test samples; all empty where there are none.
    """
    total = 0.0
    for block in blocks:
        total += block.loss
    known = test.y >= 0
    found = _known_predictions(blocks, known, test.y)
    confusion = confusion_matrix(found.label, found.predicted, test.num_classes)
    count = len(found.index)
    if not count:
        return Evaluation(math.nan, math.nan, confusion, found)
    right = np.zeros(len(test.y), dtype=bool)
    right[found.index] = found.label == found.predicted
    known_shards = shards.keep(known[shards.index])
    parts = {
        **{f"test_{name}": value for name, value in figures_of(found, confusion).items()},
        **_by_domain(right, known, test),
        **_by_client(right, known_shards),
    }
    accuracy = float(confusion.trace() / count)
    domains = list(_domains(found, test))
    return Evaluation(total / count, accuracy, confusion, found, parts, domains)


def figures_of(found: Predictions, confusion: Ints) -> dict[str, float]:
    """Return what is said of a test set, or a part of it, beside loss and accuracy.

    Parameters
    ----------
    found : Predictions
        Of its samples, at least one.
    confusion : ndarray of int64, shape (classes, classes)
        Of the same samples.

    Returns
    -------
    dict of str to float
        Those of :func:`~fedlabels.worker.classification.summary`, and ``auc`` and ``ece`` (the
        expected calibration error), which need probabilities. What has no value is not there.
    """
    figures, binned = summary(confusion), _calibration(found)
    if binned and found.probabilities is not None:
        figures["auc"] = auc(found.label, found.probabilities)
        figures["ece"] = binned.error()
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def columns_of(prefix: str, names: Sequence[str], taken: Collection[str]) -> dict[str, str]:
    """Return the columns of figures whose names the data give, by name.

    Parameters
    ----------
    prefix : str
        What the columns begin with.
    names : sequence of str
        Such as those of the domains, all of them, each once.
    taken : collection of str
        Columns of the same table that mean something else.

    Returns
    -------
    dict of str to str
        ``<prefix><name>``, and ``<prefix><name>_`` with as many underscores as it takes where
        that is the column of something else.

    Examples
    --------
    >>> columns_of("accuracy_", ["photo", "worst"], ["accuracy_worst"])
    {'photo': 'accuracy_photo', 'worst': 'accuracy_worst_'}
    """
    found = {name: prefix + name for name in names}
    used = {*taken, *found.values()}
    for name in [name for name, column in found.items() if column in taken]:
        while found[name] in used:
            found[name] += "_"
        used.add(found[name])
    return found


def _known_predictions(blocks: Sequence[Scored], known: NDArray[np.bool_], y: Ints) -> Predictions:
    index = np.flatnonzero(known)
    predicted = np.concatenate([block.predictions for block in blocks])
    each = [block.probabilities for block in blocks if block.probabilities is not None]
    probabilities = np.concatenate(each)[index] if each else None
    return Predictions(index, y[index], predicted[index], probabilities)


def _calibration(found: Predictions) -> Calibration | None:
    """Return None without probabilities, or where one is no number: the model diverged."""
    if found.probabilities is None or np.isnan(found.probabilities).any():
        return None
    confidence = found.probabilities[np.arange(len(found.predicted)), found.predicted]
    return calibration(confidence, found.label == found.predicted)


def _domains(found: Predictions, test: ArrayDataset) -> Iterator[dict[str, Any]]:
    """Go through the domains that have a sample of known class."""
    if test.domain is None:
        return
    place = test.domain[found.index]
    for number, name in enumerate(test.domain_names):
        inside = place == number
        if inside.any():
            part = found.where(inside)
            confusion = confusion_matrix(part.label, part.predicted, test.num_classes)
            count = len(part.index)
            first = {"domain": name, "samples": count, "accuracy": confusion.trace() / count}
            yield {**first, **figures_of(part, confusion)}


def _by_domain(
    right: NDArray[np.bool_], known: NDArray[np.bool_], test: ArrayDataset
) -> dict[str, float]:
    if test.domain is None:
        return {}
    found, worst = {}, "test_accuracy_worst_domain"
    columns = columns_of("test_accuracy_", test.domain_names, (worst,))
    for number, name in enumerate(test.domain_names):
        inside = known & (test.domain == number)
        if inside.any():
            found[columns[name]] = float(right[inside].mean())
    return {**found, worst: min(found.values())}


def _by_client(right: NDArray[np.bool_], shards: Ragged) -> dict[str, float]:
    sizes = shards.sizes
    if not sizes.any():
        return {}
    ends = np.concatenate([[0], np.cumsum(right[shards.index])])
    hits = ends[shards.offsets[1:]] - ends[shards.offsets[:-1]]
    accuracy = hits[sizes > 0] / sizes[sizes > 0]
    return {
        "local_accuracy": float(accuracy.mean()),
        "local_accuracy_p10": float(np.quantile(accuracy, 0.1)),
    }
