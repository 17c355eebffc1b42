"""Type conversions for adapters: decoded values into tensors and arrays, gradients by autograd."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def floats(value: Any) -> Tensor:
    """Make a float64 tensor; numbers may be stored without a decimal point."""
    return torch.as_tensor(np.asarray(value, dtype=np.float64))


def integers(value: Any) -> Tensor:
    """Make an int64 tensor."""
    return torch.as_tensor(np.asarray(value, dtype=np.int64))


def variable(value: Any) -> Tensor:
    """Make a float64 tensor that gradients are taken of."""
    return floats(value).requires_grad_()


def tree(parts: Any) -> dict[str, Tensor]:
    """Make a tree of a list of arrays or of named arrays."""
    items = parts.items() if isinstance(parts, dict) else enumerate(parts)
    return {str(name): floats(part) for name, part in items}


def array(value: Any) -> NDArray[np.float64]:
    """Make a float64 array."""
    return np.asarray(value, dtype=np.float64)


def positions(value: Any) -> NDArray[np.int64]:
    """Make an int64 array."""
    return np.asarray(value, dtype=np.int64)


def gradients(loss: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Differentiate a loss of the project."""
    return torch.autograd.grad(loss, inputs)
