"""Between arrays, which travel, and tensors, which clients see."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlabels.simulation.job import Arrays
from fedlabels.simulation.source import canonical


def told(exchange: str, error: Exception) -> str:
    """Say what a client raised, and in which exchange."""
    return f"{exchange}: {type(error).__name__}: {error}"


def confusion(logits: Tensor, truth: Tensor) -> NDArray[np.float64]:
    """Count (truth, prediction), shape (classes + 1, classes); the summed loss is at [-1, 0]."""
    classes = logits.shape[1]
    out = np.zeros((classes + 1, classes))
    known = truth >= 0
    pairs = truth[known] * classes + logits[known].argmax(1)
    out[:classes] = (
        torch.bincount(pairs, minlength=classes * classes).view(classes, classes).numpy()
    )
    loss = torch.nn.functional.cross_entropy(logits[known], truth[known], reduction="none")
    out[classes, 0] = float(loss.double().sum())
    return out


def tensors(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """Copy arrays into tensors: shared memory is read-only, and a client must not reach it.

    Convolution weights are laid out channels last, which makes the whole net run so: pooling and
    convolutions of small nets on a CPU are faster that way.
    """
    formats = {4: torch.channels_last}
    return {
        k: canonical(v, formats.get(v.ndim, torch.contiguous_format)) for k, v in arrays.items()
    }


def trees_of(arrays: Mapping[str, Arrays]) -> dict[str, dict[str, Tensor]]:
    """Copy named trees into tensors."""
    return {name: tensors(tree) for name, tree in arrays.items()}


def arrays_of(tree: Mapping[str, Tensor]) -> Arrays:
    """View a tree as arrays."""
    return {k: v.detach().numpy() for k, v in tree.items()}
