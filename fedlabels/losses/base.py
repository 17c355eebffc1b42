"""Building blocks of the objectives: per-sample losses, pseudo-labels, means over real rows.

Every function takes one client's tensors and runs under ``torch.func.vmap`` and ``torch.func.grad``
as well as in plain autograd: no branch, index or shape depends on the value of a tensor.

*Convention*: ``rows`` tells the real rows of a padded batch, 1 (or True) for a real row, 0 for
padding; None means that all rows are real. Padding must hold finite numbers.
"""

from typing import NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional

from fedlabels.errors import ConfigError

UNLABELED = -1


class HardLabels(NamedTuple):
    """Pseudo-labels of a batch.

    Parameters
    ----------
    label : Tensor, shape (batch,)
        Most likely class, the lowest index on ties.
    confidence : Tensor, shape (batch,)
        Probability of that class.
    keep : Tensor, shape (batch,)
        Bool: a real row whose confidence passes the threshold.
    """

    label: Tensor
    confidence: Tensor
    keep: Tensor


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of every sample in nats, not reduced.

    Parameters
    ----------
    logits : Tensor, shape (batch, classes)
    labels : Tensor, shape (batch,)
        Class indices, int64. A sample labeled -1 (unlabeled or padding) gives 0.

    Returns
    -------
    Tensor, shape (batch,)
    """
    return functional.cross_entropy(logits, labels, reduction="none", ignore_index=UNLABELED)


def soft_cross_entropy(target: Tensor, logits: Tensor) -> Tensor:
    """Cross-entropy of every sample against a soft target, in nats, not reduced.

    Parameters
    ----------
    target : Tensor, shape (batch, classes)
        Probabilities.
    logits : Tensor, shape (batch, classes)

    Returns
    -------
    Tensor, shape (batch,)
    """
    negative: Tensor = (target * torch.log_softmax(logits, dim=-1)).sum(dim=-1)
    return -negative


def entropy(probs: Tensor) -> Tensor:
    """Shannon entropy of every row in nats, with 0 log 0 = 0.

    Parameters
    ----------
    probs : Tensor, shape (batch, classes)

    Returns
    -------
    Tensor, shape (batch,)
    """
    terms: Tensor = torch.special.entr(probs)
    return terms.sum(dim=-1)


def kl(teacher: Tensor, student_logits: Tensor, *, temperature: float | Tensor = 1.0) -> Tensor:
    """KL(teacher || student) of every sample in nats, not reduced.

    Parameters
    ----------
    teacher : Tensor, shape (batch, classes)
        Probabilities, zeros allowed. No gradient flows into them.
    student_logits : Tensor, shape (batch, classes)
    temperature : float or Tensor
        Divisor of the student's logits, > 0.

    Returns
    -------
    Tensor, shape (batch,)

    Notes
    -----
    ``sum_c t_c (log t_c - log q_c)`` with ``q = softmax(student_logits / temperature)`` and
    0 log 0 = 0. The gradient with respect to the student's logits is ``(q - t) / temperature``.

    Examples
    --------
    >>> round(float(kl(torch.tensor([[0.7, 0.3]]), torch.zeros(1, 2))), 5)
    0.08228
    """
    target = teacher.detach()
    return soft_cross_entropy(target, student_logits / temperature) - entropy(target)


def soft_labels(logits: Tensor, *, temperature: float | Tensor = 1.0) -> Tensor:
    """Probabilities of a teacher; no gradient flows through them.

    Parameters
    ----------
    logits : Tensor, shape (batch, classes)
    temperature : float or Tensor
        Divisor of the logits, > 0. Below 1 the result is sharper.

    Returns
    -------
    Tensor, shape (batch, classes)
    """
    return torch.softmax(logits.detach() / temperature, dim=-1)


def hard_labels(
    probs: Tensor,
    *,
    threshold: float | Tensor,
    inclusive: bool = False,
    rows: Tensor | None = None,
) -> HardLabels:
    """Label every sample with its most likely class and test the confidence.

    Parameters
    ----------
    probs : Tensor, shape (batch, classes)
        Probabilities; no gradient flows through them.
    threshold : float or Tensor, shape () or (classes,)
        Least confidence, in [0, 1]; with one number per class that of the label counts.
    inclusive : bool
        Whether a confidence equal to the threshold passes.
    rows : Tensor or None, shape (batch,)
        Real rows; padding is never kept.

    Returns
    -------
    HardLabels
    """
    probs = probs.detach()
    label = probs.argmax(dim=-1)  # (batch,)
    confidence = probs.amax(dim=-1)  # (batch,)
    bar = threshold_of(label, threshold)
    keep = confidence >= bar if inclusive else confidence > bar
    return HardLabels(label, confidence, keep if rows is None else keep & (rows > 0))


def threshold_of(label: Tensor, threshold: float | Tensor) -> float | Tensor:
    """Look up the threshold of every sample by its label.

    Parameters
    ----------
    label : Tensor, shape (batch,)
        Class indices.
    threshold : float or Tensor, shape () or (classes,)

    Returns
    -------
    float or Tensor, shape () or (batch,)
        A single threshold is handed back as it is.
    """
    if isinstance(threshold, Tensor) and threshold.dim() > 0:
        return threshold[label]
    return threshold


def row_weights(rows: Tensor | None, like: Tensor) -> Tensor:
    """Weight of every row in the dtype of ``like``: 1 everywhere when ``rows`` is None.

    Parameters
    ----------
    rows : Tensor or None, shape (batch,)
    like : Tensor, shape (batch,)

    Returns
    -------
    Tensor, shape (batch,)
    """
    return torch.ones_like(like) if rows is None else rows.to(like.dtype)


def safe_ratio(total: Tensor, count: Tensor) -> Tensor:
    """Divide a sum by a count, 0 where the count is 0.

    Parameters
    ----------
    total : Tensor
        Sum over the counted rows; 0 where nothing was counted.
    count : Tensor
        Number or weight of the rows, >= 0.

    Returns
    -------
    Tensor
    """
    return total / (count + (count == 0))


def mean_loss(losses: Tensor, rows: Tensor | None = None) -> Tensor:
    """Mean of per-sample losses over the real rows, 0 when there is none.

    Parameters
    ----------
    losses : Tensor, shape (batch,)
    rows : Tensor or None, shape (batch,)

    Returns
    -------
    Tensor, shape ()
    """
    weights = row_weights(rows, losses)
    return safe_ratio((weights * losses).sum(dim=-1), weights.sum(dim=-1))


def check_option(name: str, value: str, allowed: object) -> None:
    """Raise unless an option is one of the words of its ``Literal`` type.

    Parameters
    ----------
    name : str
        Name of the option, for the message.
    value : str
        What was given.
    allowed : object
        A ``typing.Literal`` of strings.

    Raises
    ------
    ConfigError
        If the value is not allowed.
    """
    words = get_args(allowed)
    if value not in words:
        raise ConfigError(f"{name} must be one of {', '.join(words)}; got {value!r}")
