"""Small functions on trees: nested dicts and tuples of tensors."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from fedlabels.cohort.types import Tree

Nested = Any
"""A tensor, or a dict / tuple / named tuple of such."""


def tree_map(function: Callable[..., Any], tree: Nested, *others: Nested) -> Nested:
    """Apply a function to the tensors that stand in the same place of each tree."""
    if isinstance(tree, Mapping):
        return {k: tree_map(function, v, *(o[k] for o in others)) for k, v in tree.items()}
    if isinstance(tree, tuple):
        parts = [tree_map(function, *values) for values in zip(tree, *others, strict=True)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return function(tree, *others)


def select(condition: Tensor, new: Nested, old: Nested) -> Nested:
    """Pick between two trees by a scalar condition of one client.

    Parameters
    ----------
    condition : Tensor of bool, shape ()
        Take ``new`` where true.
    new, old : nested trees of equal structure
        An optimizer step consumes its input, so ``old`` must not be the tree that was stepped;
        for a conditional step use the optimizer's ``when``.
    """
    return tree_map(lambda a, b: torch.where(condition, a, b), new, old)


def difference(left: Tree, right: Mapping[str, Tensor]) -> Tree:
    """Return ``left - right`` for the floating-point tensors of ``left``."""
    return {k: v - right[k] for k, v in left.items() if v.is_floating_point()}


def frozen(trees: Mapping[str, Any]) -> dict[str, Any]:
    """Return trees whose entries cannot be replaced (one client's change would reach another)."""
    return {k: MappingProxyType(v) if isinstance(v, dict) else v for k, v in trees.items()}


def clone(tree: Nested) -> Nested:
    """Copy every tensor."""
    return tree_map(torch.clone, tree)


def stack(trees: Sequence[Nested]) -> Nested:
    """Join trees of equal structure along a new leading axis."""
    return tree_map(lambda *leaves: torch.stack(leaves), *trees)


def row(tree: Nested, position: int) -> Nested:
    """Take one position of the leading axis of every tensor."""
    return tree_map(lambda leaf: leaf[position], tree)


def expand_like(mask: Tensor, tensor: Tensor) -> Tensor:
    """Append axes to a mask so that it broadcasts to a tensor."""
    return mask.reshape(mask.shape + (1,) * (tensor.dim() - mask.dim()))


def square_norm(tree: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of squares over all entries, shape ()."""
    total = [(value * value).sum() for value in tree.values()]
    return torch.stack(total).sum() if total else torch.zeros(())
