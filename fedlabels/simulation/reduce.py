"""Sums in float64 along a fixed binary tree over the positions of a cohort.

The tree halves the positions: [0, n) is the sum of [0, m) and [m, n) with m = ceil(n / 2), and so
on down to single positions. Which worker computes a node does not matter, so the total has the
same bits for any number of workers; a worker sends the largest nodes inside its range, which is one
array for each of two or four workers, however many clients.
"""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedlabels.cohort.device import CPU
from fedlabels.cohort.types import Reduce, Term, Tree

Key = tuple[int, int]
"""First position of a node, and the one behind its last."""


class Flat(Mapping[str, Tensor]):
    """Tensors of float64 that lie one after the other in one piece of memory.

    Parameters
    ----------
    shapes : dict of str to shape
        Names and shapes, in order.
    memory : Tensor of float64, shape (entries,), or None
        None takes new memory.
    device : torch.device
        Where that is.
    """

    def __init__(
        self,
        shapes: dict[str, torch.Size],
        memory: Tensor | None = None,
        device: torch.device = CPU,
    ) -> None:
        sizes = [shape.numel() for shape in shapes.values()]
        self.shapes = shapes
        if memory is None:
            memory = torch.empty(sum(sizes), dtype=torch.float64, device=device)
        self.memory = memory
        self.read_only = False
        cut = self.memory.split_with_sizes(sizes) if sizes else ()
        self._views = {k: v.view(shapes[k]) for k, v in zip(shapes, cut, strict=True)}

    def __getitem__(self, name: str) -> Tensor:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def fill(self, tree: Mapping[str, Tensor]) -> None:
        """Copy a tree of the same shapes."""
        if self._views:
            torch._foreach_copy_([self._views[k] for k in tree], list(tree.values()))

    def __reduce__(self) -> Any:
        # as a numpy array, which travels without being copied into a stream of bytes
        return _unpacked, (self.shapes, self.memory.numpy())


def _unpacked(shapes: dict[str, torch.Size], memory: Any) -> Flat:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # of memory that cannot be written: see combine
        flat = Flat(shapes, torch.from_numpy(memory))
    flat.read_only = not memory.flags.writeable
    return flat


@dataclass
class Node:
    """A partial sum of one term.

    Parameters
    ----------
    total : Flat
        Sum of weight times value.
    weight : Tensor or Tree
        Sum of the weights, float64.
    reduce : {"mean", "sum"}
        How the term is read at the end.
    count : int
        Clients in it.
    """

    total: Flat
    weight: Tensor | Tree
    reduce: Reduce
    count: int = 1

    def home(self) -> "Node":
        """Return it on the CPU: one transfer, and one a weight."""
        if self.total.memory.device.type == "cpu":
            return self
        weight: Tensor | Tree
        if isinstance(self.weight, dict):
            weight = {name: value.cpu() for name, value in self.weight.items()}
        else:
            weight = self.weight.cpu()
        total = Flat(self.total.shapes, self.total.memory.cpu())
        return Node(total, weight, self.reduce, self.count)


class Buffers:
    """Sums that were added to others already and can be written again; all on one device.

    Memory that the system hands out anew is cleared page by page on first use, which costs more
    than the sum itself.
    """

    def __init__(self) -> None:
        self._free: list[Flat] = []

    def take(self, like: Mapping[str, Tensor]) -> Flat:
        """Return a sum of these shapes with any content."""
        shapes = {k: v.shape for k, v in like.items()}
        for place, tree in enumerate(self._free):
            if tree.shapes == shapes:
                return self._free.pop(place)
        return Flat(shapes, device=next((v.device for v in like.values()), CPU))

    def give(self, tree: Flat) -> None:
        """Take back a sum that nobody reads any more."""
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
    total.fill(term.value)
    weight: Tensor | Tree
    if isinstance(term.weight, dict):
        weight = {k: w.double() for k, w in term.weight.items()}
        for name in total:
            total[name].mul_(weight[name])
    else:
        weight = total.memory.new_ones(())
        weight = weight if term.weight is None else term.weight.double()
        total.memory.mul_(weight)
    return Node(total, weight, term.reduce)


def combine(left: Node | None, right: Node | None) -> Node | None:
    """Add two neighbours, in order; the left one is overwritten where it can be."""
    if left is None or right is None:
        return right if left is None else left
    if left.total.read_only:  # it came through shared memory
        left.total = Flat(left.total.shapes, left.total.memory + right.total.memory)
    else:
        left.total.memory += right.total.memory
    if isinstance(left.weight, dict) and isinstance(right.weight, dict):
        left.weight = {k: w + right.weight[k] for k, w in left.weight.items()}
    else:
        left.weight = left.weight + right.weight  # type: ignore[operator]
    left.count += right.count
    return left


def middle(start: int, stop: int) -> int:
    """Return where a node is cut: the left half is the longer one."""
    return start + (stop - start + 1) // 2


def _parent(key: Key, positions: int) -> Key:
    """Return the node of which another one (not the root) is a half."""
    start, stop = 0, positions
    while True:
        cut = middle(start, stop)
        if key in ((start, cut), (cut, stop)):
            return start, stop
        start, stop = (start, cut) if key[1] <= cut else (cut, stop)


class TreeSum:
    """Collects one term, position after position.

    Parameters
    ----------
    positions : int
        Size of the whole cohort.
    buffers : Buffers or None
        Gets back the memory of sums that went into others.

    Attributes
    ----------
    nodes : dict of (start, stop) to Node or None
        The largest complete nodes; None where no client of a node has a value.
    """

    def __init__(self, positions: int, buffers: Buffers | None = None) -> None:
        self._positions, self._buffers = positions, buffers
        self.nodes: dict[Key, Node | None] = {}

    def push(self, position: int, node: Node | None) -> None:
        """Add the value at a position; positions come in ascending order, each once."""
        key = position, position + 1
        while key != (0, self._positions):
            whole = _parent(key, self._positions)
            first = whole[0], key[0]
            if key[1] != whole[1] or first not in self.nodes:
                break
            left = self.nodes.pop(first)
            joined = combine(left, node)
            if left is not None and node is not None and self._buffers is not None:
                self._buffers.give(node.total)
            node, key = joined, whole
        self.nodes[key] = node


def finish(nodes: dict[Key, Node | None], positions: int) -> Node | None:
    """Add up the nodes of all workers.

    Parameters
    ----------
    nodes : dict
        Of all workers together; they cover all positions.
    positions : int
        Number of positions.
    """

    def total(start: int, stop: int) -> Node | None:
        if (start, stop) in nodes:
            return nodes[start, stop]
        if stop - start <= 1:
            return None
        cut = middle(start, stop)
        return combine(total(start, cut), total(cut, stop))

    return total(0, positions)
