"""The resident copy of a data set: floating-point values in [0, 1], normalized after the view."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedlabels.cohort import TensorSource
from fedlabels.cohort.data import ViewLike
from fedlabels.cohort.device import CPU
from fedlabels.data import ArrayDataset
from fedlabels.data.view_base import IdentityView


def canonical(
    array: NDArray[Any], memory_format: torch.memory_format = torch.contiguous_format
) -> torch.Tensor:
    """Copy an array into a tensor with the strides of a new one in a memory format.

    Axes of size 1 may have any stride, and convolutions choose their algorithm, and so their last
    bits, by strides: an array that came through shared memory must not differ from a local one.
    """
    kind = torch.from_numpy(np.empty(0, dtype=array.dtype)).dtype
    new = torch.empty(array.shape, dtype=kind, memory_format=memory_format)
    np.copyto(new.numpy(), array)
    return new


def resident(
    datasets: Sequence[ArrayDataset],
    views: Mapping[str, ViewLike],
    dtype: torch.dtype,
    device: torch.device = CPU,
) -> TensorSource:
    """Put data sets into memory, one behind the other: their samples are counted through.

    Parameters
    ----------
    datasets : sequence of ArrayDataset
        Normalized as the first one is. Pixels (uint8) are scaled to [0, 1]; floating-point data
        stay as they are.
    views : mapping of str to view
        Augmentations; data without views are seen plain under those names.
    dtype : torch.dtype
        Floating-point type of the samples.
    device : torch.device
        Where they are kept.
    """
    x = torch.cat([_floating(dataset, dtype, device) for dataset in datasets])
    shape = (-1,) + (1,) * (x.dim() - 2)
    mean = torch.tensor(datasets[0].mean, dtype=dtype, device=device).view(shape)
    std = torch.tensor(datasets[0].std, dtype=dtype, device=device).view(shape)
    same = {name for name, view in views.items() if isinstance(view, IdentityView)}
    other = {name: view for name, view in views.items() if name not in same}
    return TensorSource(x, mean, std, other, same)


def _floating(dataset: ArrayDataset, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    x = canonical(dataset.x).to(device).to(dtype)
    return x / 255 if dataset.x.dtype == "uint8" else x
