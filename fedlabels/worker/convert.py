"""Between arrays, which travel, and tensors, which clients see."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedlabels.cohort.device import CPU, upload
from fedlabels.rounds.job import Arrays
from fedlabels.worker.source import canonical


def failure_text(exchange: str, error: Exception) -> str:
    """Say what a client raised, and in which exchange."""
    return f"{exchange}: {type(error).__name__}: {error}"


def tensors(arrays: Mapping[str, NDArray[Any]], device: torch.device = CPU) -> dict[str, Tensor]:
    """Copy arrays into tensors: shared memory is read-only, and a client must not reach it.

    Convolution weights are laid out channels last, which makes the whole net run so: pooling and
    convolutions of small nets on a CPU are faster that way.
    """
    formats = {4: torch.channels_last}
    return {
        k: upload(canonical(v, formats.get(v.ndim, torch.contiguous_format)), device)
        for k, v in arrays.items()
    }


def begin_from(model: nn.Module, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Put weights into a model by name, in their own type; others stay as they were drawn."""
    values = {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}
    model.load_state_dict(values, strict=False, assign=True)


def trees_of(
    arrays: Mapping[str, Arrays], device: torch.device = CPU
) -> dict[str, dict[str, Tensor]]:
    """Copy named trees into tensors."""
    return {name: tensors(tree, device) for name, tree in arrays.items()}


def arrays_of(tree: Mapping[str, Tensor]) -> Arrays:
    """Return a tree as arrays: views on the CPU; from another device one transfer a type."""
    if all(v.device.type == "cpu" for v in tree.values()):
        return {k: v.detach().resolve_neg().numpy() for k, v in tree.items()}
    return _packed(tree)


def copies_of(tree: Mapping[str, Tensor]) -> Arrays:
    """Return a tree as arrays of their own, whatever is written into its tensors later."""
    if all(v.device.type == "cpu" for v in tree.values()):
        return {k: np.array(v) for k, v in arrays_of(tree).items()}
    return _packed(tree)


def _packed(tree: Mapping[str, Tensor]) -> Arrays:
    out: Arrays = {}
    for kind in dict.fromkeys(v.dtype for v in tree.values()):
        parts = {k: v.detach() for k, v in tree.items() if v.dtype == kind}
        flat_host = torch.cat([v.reshape(-1) for v in parts.values()]).cpu().numpy()
        cuts = np.cumsum([v.numel() for v in parts.values()])[:-1]
        for (name, value), flat in zip(parts.items(), np.split(flat_host, cuts), strict=True):
            out[name] = flat.reshape(tuple(value.shape))
    return {name: out[name] for name in tree}
