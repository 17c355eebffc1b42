"""Between arrays, which travel, and tensors, which clients see."""

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlabels.simulation.job import Arrays
from fedlabels.simulation.source import canonical


def told(exchange: str, error: Exception) -> str:
    """Say what a client raised, and in which exchange."""
    return f"{exchange}: {type(error).__name__}: {error}"


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
