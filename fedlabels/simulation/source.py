"""The resident copy of a data set: floating-point values in [0, 1], normalized after the view."""

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray

from fedlabels.cohort import TensorSource
from fedlabels.cohort.data import ViewLike
from fedlabels.data import ArrayDataset
from fedlabels.data.view_base import IdentityView


def canonical(
    array: NDArray[Any], memory_format: torch.memory_format = torch.contiguous_format
) -> torch.Tensor:
    """Copy an array into a tensor with the strides of a new one in a memory format.

    Axes of size 1 may have any stride, and convolutions choose their algorithm, and so their last
    bits, by strides: an array that came through shared memory must not differ from a local one.
    """
    source = torch.tensor(array)
    new = torch.empty(source.shape, dtype=source.dtype, memory_format=memory_format)
    return new.copy_(source)


def resident(
    dataset: ArrayDataset, views: Mapping[str, ViewLike], dtype: torch.dtype
) -> TensorSource:
    """Put a data set into memory.

    Parameters
    ----------
    dataset : ArrayDataset
        Pixels (uint8) are scaled to [0, 1]; floating-point data stay as they are.
    views : mapping of str to view
        Augmentations; data without views are seen plain under those names.
    dtype : torch.dtype
        Floating-point type of the samples.
    """
    x = canonical(dataset.x).to(dtype)
    if dataset.x.dtype == "uint8":
        x = x / 255
    shape = (-1,) + (1,) * (x.dim() - 2)
    mean = torch.tensor(dataset.mean, dtype=dtype).view(shape)
    std = torch.tensor(dataset.std, dtype=dtype).view(shape)
    same = {name for name, view in views.items() if isinstance(view, IdentityView)}
    other = {name: view for name, view in views.items() if name not in same}
    return TensorSource(x, mean, std, other, same)
