"""Sums in float64 along a fixed binary tree over the positions of a cohort.

The tree halves the positions: [0, n) is the sum of [0, m) and [m, n) with m = ceil(n / 2), and so
on down to single positions. Which worker computes a node does not matter, so the total has the
same bits for any number of workers; a worker sends the largest nodes inside its range, which is one
array for each of two or four workers, however many clients.

Large models are not summed one by one: float64 values of all of them would go through memory
again and again. The terms of up to eight neighbours wait, and then their part of the tree is
computed piece by piece, each small enough for the cache; every entry sees the same additions.
"""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from fedlabels.cohort.device import CPU
from fedlabels.cohort.types import Reduce, Term, Tree

Key = tuple[int, int]
"""First position of a node, and the one behind its last."""

LARGE = 1 << 18
"""Entries from which on terms wait for their neighbours."""

_PIECE = 1 << 17  # entries; their float64 sums are 1 MiB, smaller pieces cost more calls
_WAITING = 8  # terms
_WAITING_BYTES = 1 << 26


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

    def __reduce__(self) -> Any:
        # tensors are pickled as files of torch, which takes longer than everything else here
        if isinstance(self.weight, dict):
            weight: Any = {name: value.numpy() for name, value in self.weight.items()}
        else:
            weight = float(self.weight)
        return _node, (self.total, weight, self.reduce, self.count)


def _node(total: Flat, weight: Any, reduce: Reduce, count: int) -> Node:
    if isinstance(weight, dict):
        weights = {name: torch.tensor(value) for name, value in weight.items()}
        return Node(total, weights, reduce, count)
    return Node(total, torch.tensor(weight, dtype=torch.float64), reduce, count)


@dataclass
class Waiting:
    """A part of the tree whose terms are not added up yet.

    Parameters
    ----------
    parts : tuple
        The entries of one term, piece after piece, and its weight; or two halves of the part.
    shapes : tuple of (str, shape)
        Names and shapes of the term's tensors.
    weight : Tensor
        Sum of the weights, float64.
    reduce : {"mean", "sum"}
        How the term is read at the end.
    count : int
        Terms in it.
    size : int
        Bytes that it holds.
    """

    parts: Any
    shapes: tuple[tuple[str, torch.Size], ...]
    weight: Tensor
    reduce: Reduce
    count: int
    size: int

    def write(self, flat: Flat, buffers: "Buffers", *, add: bool) -> None:
        """Compute the sum into memory of its shapes, or add it to what is there."""
        pieces = _pieces(self.shapes)
        for number, target in enumerate(flat.memory.split_with_sizes(pieces)):
            into = buffers.scratch(0, len(target)) if add else target
            _sum(self.parts, number, into, buffers, 1)
            if add:
                target.add_(into)

    def node(self, buffers: "Buffers") -> Node:
        """Return the sum."""
        total = buffers.take(dict(self.shapes))
        self.write(total, buffers, add=False)
        return Node(total, self.weight, self.reduce, self.count)


def _sum(parts: Any, number: int, into: Tensor, buffers: "Buffers", depth: int) -> None:
    """Compute one piece of a part of the tree."""
    first, second = parts
    if isinstance(first, list):
        values = first[number]
        if len(values) == 1:
            into.copy_(values[0])
        else:
            torch._foreach_copy_(list(into.split_with_sizes([len(v) for v in values])), values)
        if second != 1:
            into.mul_(second)
        return
    _sum(first, number, into, buffers, depth)
    other = buffers.scratch(depth, len(into))
    _sum(second, number, other, buffers, depth + 1)
    into.add_(other)


@lru_cache(maxsize=16)
def _cuts(shapes: tuple[tuple[str, torch.Size], ...]) -> list[list[tuple[int, int, int]]]:
    """Cut tensors that lie one after the other into pieces: (tensor, start, stop) of each part.

    Large tensors are cut, small ones put together.
    """
    cuts: list[list[tuple[int, int, int]]] = [[]]
    room = _PIECE
    for place, (_, shape) in enumerate(shapes):
        start, size = 0, shape.numel()
        while start < size:
            if not room:
                cuts.append([])
                room = _PIECE
            stop = min(size, start + room)
            cuts[-1].append((place, start, stop))
            room -= stop - start
            start = stop
    return cuts


@lru_cache(maxsize=16)
def _pieces(shapes: tuple[tuple[str, torch.Size], ...]) -> list[int]:
    return [sum(stop - start for _, start, stop in piece) for piece in _cuts(shapes)]


def waiting(term: Term) -> Waiting | None:
    """Return a term that waits for its neighbours; None if it is not worth it.

    Large terms on the CPU with one weight for all tensors are.
    """
    values, weight = list(term.value.values()), term.weight
    entries = sum(v.numel() for v in values)
    if entries < LARGE or isinstance(weight, dict) or values[0].device.type != "cpu":
        return None
    shapes = tuple((name, value.shape) for name, value in term.value.items())
    flat = [_flat_copy(value) for value in values]
    pieces = [[flat[k][start:stop] for k, start, stop in piece] for piece in _cuts(shapes)]
    number = torch.ones((), dtype=torch.float64) if weight is None else weight.double()
    size = sum(v.numel() * v.element_size() for v in values)
    return Waiting((pieces, float(number)), shapes, number, term.reduce, 1, size)


def _flat_copy(value: Tensor) -> Tensor:
    """Return the entries in memory of their own: whoever made them may write there again."""
    flat = value.reshape(-1)
    return flat.clone() if flat.data_ptr() == value.data_ptr() else flat


class Buffers:
    """Sums that were added to others already and can be written again; all on one device.

    Memory that the system hands out anew is cleared page by page on first use, which costs more
    than the sum itself.
    """

    def __init__(self) -> None:
        self._free: list[Flat] = []
        self._scratch: list[Tensor] = []

    def scratch(self, depth: int, size: int) -> Tensor:
        """Return memory for one piece of a sum, any content, a different one for every depth."""
        while len(self._scratch) <= depth:
            self._scratch.append(torch.empty(_PIECE, dtype=torch.float64))
        return self._scratch[depth][:size]

    def take(self, shapes: dict[str, torch.Size], device: torch.device = CPU) -> Flat:
        """Return a sum of these shapes with any content."""
        for place, tree in enumerate(self._free):
            if tree.shapes == shapes:
                return self._free.pop(place)
        return Flat(shapes, device=device)

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
    shapes = {name: value.shape for name, value in term.value.items()}
    device = next((value.device for value in term.value.values()), CPU)
    total = (buffers or Buffers()).take(shapes, device)
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
    """Add two neighbours, in order and by name; the left one is overwritten where it can be.

    Raises
    ------
    ValueError
        If they have other tensors.
    """
    if left is None or right is None:
        return right if left is None else left
    right = _like(left, right)
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


def _like(left: Node, right: Node) -> Node:
    """Return the right node with its tensors in the order of the left one."""
    if tuple(left.total.shapes.items()) == tuple(right.total.shapes.items()):
        return right
    if left.total.shapes != right.total.shapes:
        raise ValueError(
            f"two parts of a sum have other tensors: {', '.join(left.total.shapes)} and"
            f" {', '.join(right.total.shapes)}"
        )
    total = Flat(dict(left.total.shapes), device=left.total.memory.device)
    total.fill(right.total)
    return Node(total, right.weight, right.reduce, right.count)


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
        Where the sums' memory comes from, and goes when they went into others.
    """

    def __init__(self, positions: int, buffers: Buffers | None = None) -> None:
        self._positions, self._buffers = positions, buffers or Buffers()
        self._nodes: dict[Key, Node | Waiting | None] = {}

    @property
    def nodes(self) -> dict[Key, Node | None]:
        """The largest complete nodes; None where no client of a node has a value."""
        for key, node in self._nodes.items():
            if isinstance(node, Waiting):
                self._nodes[key] = node.node(self._buffers)
        return {k: v for k, v in self._nodes.items() if not isinstance(v, Waiting)}

    def push(self, position: int, term: Term | None) -> None:
        """Add the term at a position; positions come in ascending order, each once."""
        node: Node | Waiting | None = None
        if term is not None:
            node = waiting(term) or leaf(term, self._buffers)
        key = position, position + 1
        while key != (0, self._positions):
            whole = _parent(key, self._positions)
            first = whole[0], key[0]
            if key[1] != whole[1] or first not in self._nodes:
                break
            node, key = self._joined(self._nodes.pop(first), node), whole
        self._nodes[key] = node

    def _joined(
        self, left: Node | Waiting | None, right: Node | Waiting | None
    ) -> Node | Waiting | None:
        """Add two neighbours; what is small enough waits."""
        if left is None or right is None:
            return right if left is None else left
        if isinstance(left, Waiting) and isinstance(right, Waiting):
            count, size = left.count + right.count, left.size + right.size
            if count <= _WAITING and size <= _WAITING_BYTES and left.shapes == right.shapes:
                parts, weight = (left.parts, right.parts), left.weight + right.weight
                return Waiting(parts, left.shapes, weight, left.reduce, count, size)
        if isinstance(left, Waiting):
            left = left.node(self._buffers)
        if isinstance(right, Waiting) and tuple(left.total.shapes.items()) == right.shapes:
            right.write(left.total, self._buffers, add=True)
            left.weight = left.weight + right.weight  # type: ignore[operator]
            left.count += right.count
            return left
        if isinstance(right, Waiting):
            right = right.node(self._buffers)
        joined = combine(left, right)
        self._buffers.give(right.total)
        return joined


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
