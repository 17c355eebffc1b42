"""From predictions on the test set to accuracies: overall, by class, by domain, by client."""

from collections.abc import Collection, Mapping, Sequence
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
        Mean cross-entropy, nats; nan where no test sample has a label.
    accuracy : float
        Share of right predictions, in [0, 1]; nan where no test sample has a label.
    recall : ndarray, shape (classes,)
        Per class; nan where the test set has no sample of it.
    parts : mapping of str to float
        Where the test set has domains ``test_accuracy_<domain>``, see :func:`columns_of`, and
        ``test_accuracy_worst_domain``;
        ``local_accuracy``, the mean over clients of the accuracy on their own test shards, and
        ``local_accuracy_p10``, its 10th percentile, where there are such shards. A domain or a
        client without a test sample of known class has no figure.
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
    right = (np.concatenate([block.predictions for block in blocks]) == test.y) & known
    hits = np.bincount(test.y[right], minlength=test.num_classes)
    held = np.bincount(test.y[known], minlength=test.num_classes)
    with np.errstate(invalid="ignore"):
        recall = hits / held
    count = int(known.sum())
    if not count:
        return Evaluation(float("nan"), float("nan"), recall)
    known_shards = shards.keep(known[shards.index])
    parts = {**_by_domain(right, known, test), **_by_client(right, known_shards)}
    return Evaluation(total / count, float(hits.sum() / count), recall, parts)


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
