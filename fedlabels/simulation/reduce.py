"""Sums in float64 along a fixed binary tree over the positions of a cohort.

Node (level, i) covers the positions [i * 2**level, (i + 1) * 2**level). Which worker computes a
node does not matter, so the total has the same bits for any number of workers, and a worker sends
one partial sum for every complete subtree of its range: few arrays, however many clients.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedlabels.cohort.types import Reduce, Term, Tree

Key = tuple[int, int]


@dataclass
class Node:
    """A partial sum of one term.

    Parameters
    ----------
    total : Tree
        Sum of weight times value, float64.
    weight : Tensor or Tree
        Sum of the weights, float64.
    reduce : {"mean", "sum"}
        How the term is read at the end.
    count : int
        Clients in it.
    """

    total: Tree
    weight: Tensor | Tree
    reduce: Reduce
    count: int = 1


class Buffers:
    """Trees of float64 that were summed up already and can be written again.

    Memory that the system hands out anew is cleared page by page on first use, which costs more
    than the sum itself.
    """

    def __init__(self) -> None:
        self._free: list[Tree] = []

    def take(self, like: Tree) -> Tree:
        """Return a tree of these shapes with any content."""
        shapes = {k: v.shape for k, v in like.items()}
        for place, tree in enumerate(self._free):
            if {k: v.shape for k, v in tree.items()} == shapes:
                return self._free.pop(place)
        return {k: torch.empty(v.shape, dtype=torch.float64) for k, v in like.items()}

    def give(self, tree: Tree) -> None:
        """Take back a tree that nobody reads any more."""
        self._free.append(tree)


def leaf(term: Term, buffers: Buffers | None = None) -> Node:
    """Weigh one client's term.

    Parameters
    ----------
    term : Term
        One client's tensors, without a leading axis.
    buffers : Buffers or None
        Where the sums' memory comes from; None takes new memory.
    """
    total = (buffers or Buffers()).take(term.value)
    weight: Tensor | Tree
    if isinstance(term.weight, dict):
        weight = {k: w.double() for k, w in term.weight.items()}
    else:
        weight = torch.ones((), dtype=torch.float64)
        weight = weight if term.weight is None else term.weight.double()
    for name, value in term.value.items():
        total[name].copy_(value).mul_(weight[name] if isinstance(weight, dict) else weight)
    return Node(total, weight, term.reduce)


def combine(left: Node | None, right: Node | None) -> Node | None:
    """Add two neighbours, in order; the left one is overwritten."""
    if left is None or right is None:
        return right if left is None else left
    for name, value in right.total.items():
        left.total[name] += value
    if isinstance(left.weight, dict) and isinstance(right.weight, dict):
        left.weight = {k: w + right.weight[k] for k, w in left.weight.items()}
    else:
        left.weight = left.weight + right.weight  # type: ignore[operator]
    left.count += right.count
    return left


class TreeSum:
    """Collects one term, position after position.

    Parameters
    ----------
    buffers : Buffers or None
        Gets back the memory of sums that went into others.

    Attributes
    ----------
    nodes : dict of (level, index) to Node or None
        Complete subtrees; None where no client of the subtree has a value.
    """

    def __init__(self, buffers: Buffers | None = None) -> None:
        self._buffers = buffers
        self.nodes: dict[Key, Node | None] = {}

    def push(self, position: int, node: Node | None) -> None:
        """Add the value at a position; positions come in ascending order, each once."""
        level, index = 0, position
        while index % 2 and (level, index - 1) in self.nodes:
            left = self.nodes.pop((level, index - 1))
            if left is not None and node is not None and self._buffers is not None:
                self._buffers.give(node.total)
            node = combine(left, node)
            level, index = level + 1, index // 2
        self.nodes[level, index] = node


def finish(nodes: dict[Key, Node | None], positions: int) -> Node | None:
    """Add up the subtrees of all workers.

    Parameters
    ----------
    nodes : dict
        Of all workers together; they cover all positions.
    positions : int
        Number of positions.
    """

    def total(level: int, index: int) -> Node | None:
        if (level, index) in nodes:
            return nodes[level, index]
        if level == 0 or index << level >= positions:
            return None
        return combine(total(level - 1, 2 * index), total(level - 1, 2 * index + 1))

    return total(max(positions - 1, 0).bit_length(), 0)
