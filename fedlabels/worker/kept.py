"""What a client keeps, and what is kept of it: real numbers that arrays and files can hold."""

from collections.abc import Mapping

import torch
from torch import Tensor

from fedlabels.rounds.job import Arrays
from fedlabels.rounds.judge import RejectedError, infinite, typed

HELD = frozenset(
    (
        torch.float16, torch.float32, torch.float64, torch.bool, torch.uint8, torch.int8,
        torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64,
    )
)  # fmt: skip
"""Types of real numbers that arrays, files and messages hold."""


def held(what: str, value: Tensor) -> Tensor:
    """Return a tensor if an array can hold it.

    Raises
    ------
    RejectedError
        If its numbers are not real ones of a type that arrays have, or it does not lie in memory.
    """
    if value.dtype not in HELD:
        due = "real numbers" if value.is_complex() else "float32"
        raise RejectedError(f"{what} is {typed(value.dtype)}: keep {due}")
    if value.layout is not torch.strided:
        raise RejectedError(f"{what} is not dense: keep what its to_dense() returns")
    return value


def named_trees(state: object) -> dict[str, dict[str, Tensor]]:
    """Return a client's new state if it can be kept, under names that come back as they are.

    Raises
    ------
    RejectedError
        If it is not; the tree or the tensor is named.
    """
    if not isinstance(state, Mapping):
        raise RejectedError(f"the state must be named trees of tensors, got {type(state).__name__}")
    for name, tree in state.items():
        if not isinstance(name, str) or "/" in name:
            raise RejectedError(
                f"the state has a tree {name!r}: the name of a tree is a str without '/'"
            )
        if not isinstance(tree, Mapping):
            raise RejectedError(
                f"state '{name}' must be a tree, {{name: tensor}}, got {type(tree).__name__}"
            )
        for key, value in tree.items():
            if not isinstance(key, str) or not key:
                raise RejectedError(
                    f"state '{name}' has a tensor {key!r}: the name of a tensor is a str, not empty"
                )
            if not isinstance(value, Tensor):
                raise RejectedError(
                    f"state '{name}/{key}' must be a tensor, got {type(value).__name__}"
                )
            held(f"state '{name}/{key}'", value)
    return {name: dict(tree) for name, tree in state.items()}


def check_state(state: Arrays) -> None:
    """Check that a client's new state is finite.

    Raises
    ------
    RejectedError
        If it is not; the tensor is named.
    """
    bad = infinite(state)
    if bad is not None:
        raise RejectedError(f"state '{bad}' has entries that are not finite; the old one is kept")
