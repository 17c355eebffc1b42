"""From predictions on the test set to accuracies: overall, by class, by domain, by client."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlabels.data import ArrayDataset
from fedlabels.federation import Ragged

EMPTY: Mapping[str, float] = {}


class Scored(NamedTuple):
    """Predictions on one block of the test set.

    Parameters
    ----------
    loss : float
        Cross-entropy in nats, summed over the samples of known class.
    predictions : ndarray of int64, shape (rows,)
        Predicted classes.
    """

    loss: float
    predictions: NDArray[np.int64]


@dataclass(frozen=True)
class Evaluation:
    """Score of a model on the global test set.

    Parameters
    ----------
    loss : float
        Mean cross-entropy, nats.
    accuracy : float
        Share of right predictions, in [0, 1].
    recall : ndarray, shape (classes,)
        Per class; nan where the test set has no sample of it.
    parts : mapping of str to float
        Where the test set has domains ``test_accuracy_<domain>`` and
        ``test_accuracy_worst_domain``;
        ``local_accuracy``, the mean over clients of the accuracy on their own test shards, and
        ``local_accuracy_p10``, its 10th percentile, where there are such shards.
    """

    loss: float
    accuracy: float
    recall: NDArray[np.float64]
    parts: Mapping[str, float] = field(default_factory=lambda: EMPTY)


def scored(logits: Tensor, truth: Tensor) -> Scored:
    """Score the logits of one block, shape (rows, classes), against labels, -1 where not known."""
    known = truth >= 0
    loss = torch.nn.functional.cross_entropy(logits[known], truth[known], reduction="none")
    return Scored(float(loss.double().sum()), logits.argmax(1).numpy())


def evaluate(blocks: Sequence[Scored], test: ArrayDataset, shards: Ragged) -> Evaluation:
    """Summarize the blocks of a whole test set, in order.

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
    right = (np.concatenate([block.predictions for block in blocks]) == test.y) & known
    hits = np.bincount(test.y[right], minlength=test.num_classes)
    held = np.bincount(test.y[known], minlength=test.num_classes)
    with np.errstate(invalid="ignore"):
        recall = hits / held
    count = int(known.sum())
    parts = {**_by_domain(right, known, test), **_by_client(right, shards)}
    return Evaluation(total / count, float(hits.sum() / count), recall, parts)


def _by_domain(
    right: NDArray[np.bool_], known: NDArray[np.bool_], test: ArrayDataset
) -> dict[str, float]:
    if test.domain is None:
        return {}
    found = {}
    for number, name in enumerate(test.domain_names):
        inside = known & (test.domain == number)
        if inside.any():
            found[f"test_accuracy_{name}"] = float(right[inside].mean())
    return {**found, "test_accuracy_worst_domain": min(found.values())}


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
