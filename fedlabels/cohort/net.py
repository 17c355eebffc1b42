"""A net is a skeleton module plus weights that are bound for the length of one call."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fedlabels.cohort.clock import during
from fedlabels.cohort.context import CONTEXT
from fedlabels.cohort.device import CPU
from fedlabels.cohort.layout import Layout
from fedlabels.cohort.tree import tree_map
from fedlabels.cohort.types import Tree

_DROPOUT_TAG = 1_000  # away from the small numbers that a client's own code folds with


def build_seeded(build: Callable[[], dict[str, nn.Module]], seed: int) -> dict[str, nn.Module]:
    """Build modules with torch's generator seeded inside a fork: global state is left as it was.

    They are built on the CPU, wherever new tensors go otherwise: weights are the same everywhere.

    Parameters
    ----------
    build : callable
        Makes the modules.
    seed : int
        Any integer; taken modulo 2**63.
    """
    with torch.random.fork_rng(devices=[]), CPU:
        torch.manual_seed(seed % (1 << 63))
        return build()


class Net:
    """A skeleton whose parameters and buffers are replaced by a tree's during a call.

    Parameters
    ----------
    name : str
        Name under which the client builds it.
    skeleton : torch.nn.Module
        Never trained itself; its initial values are ``init``.
    low : torch.dtype or None
        Type in which matrix products and convolutions are computed (autocast); weights, gradients
        and results keep theirs.

    Attributes
    ----------
    layout : Layout
        What is known of every tensor.
    """

    def __init__(self, name: str, skeleton: nn.Module, low: torch.dtype | None = None) -> None:
        self.name, self._low = name, low
        self.skeleton, self.layout = skeleton, Layout(skeleton)
        self._slots: dict[str, tuple[dict[str, Any], str]] = {}
        self.parameters: tuple[str, ...] = tuple(self._collect("_parameters"))
        self.buffers: tuple[str, ...] = tuple(self._collect("_buffers"))
        self.init: Tree = {k: d[n].detach().clone() for k, (d, n) in self._slots.items()}
        self._home = [(d, n, d[n]) for d, n in self._slots.values()]
        self._modules = list(skeleton.modules())
        self._training: bool | None = None
        for tag, module in enumerate(self._modules):
            if hasattr(module, "tag"):
                setattr(module, "tag", _DROPOUT_TAG + tag)  # noqa: B010 - nn.Module types it as Tensor

    def _collect(self, kind: str) -> list[str]:
        names = []
        for prefix, module in self.skeleton.named_modules():
            slots: dict[str, Any] = getattr(module, kind)
            for name, value in slots.items():
                full = f"{prefix}.{name}" if prefix else name
                if value is not None and (kind == "_parameters" or full in self._persistent()):
                    self._slots[full] = (slots, name)
                    names.append(full)
        return names

    def _persistent(self) -> frozenset[str]:
        return frozenset(self.skeleton.state_dict(keep_vars=True))

    def at(self, tree: Tree, *, train: bool = False, batch: Any = None) -> "View":
        """Bind weights.

        Parameters
        ----------
        tree : Tree
            One client's tensors. A training call puts the new buffers (BatchNorm statistics) into
            this dict; the tensors themselves are never written to.
        train : bool
            Training mode: batch statistics and dropout.
        batch : Batch, optional
            Whose rows and draws the layers use; needed by Dropout, and by BatchNorm on padded
            batches.
        """
        return View(self, tree, train, batch)

    @during("forward_backward")
    def bound(self, view: "View", function: Callable[..., Any], *args: Any) -> Any:
        """Run a function of the skeleton with a view's weights in place."""
        if not CONTEXT.inside:
            raise RuntimeError(
                f"net '{self.name}' was called outside a primitive of the cohort; call it inside "
                "the function given to scan, map or predict"
            )
        before = CONTEXT.rows, CONTEXT.draws
        try:
            for name, (slots, key) in self._slots.items():
                slots[key] = view.tree[name]
            if self._training is not view.train:  # setting an attribute of a module is slow
                for module in self._modules:
                    module.training = view.train
                self._training = view.train
            CONTEXT.rows = view.batch.rows if view.batch is not None else None
            CONTEXT.draws = view.batch.draws if view.batch is not None else None
            out = function(*args) if self._low is None else self._lowered(function, *args)
            if view.train and self.buffers:
                self._keep_buffers(view)
            return out
        finally:
            CONTEXT.rows, CONTEXT.draws = before
            for slots, key, value in self._home:  # a tensor of a finished vmap is dead: keep none
                slots[key] = value

    def _lowered(self, function: Callable[..., Any], *args: Tensor) -> Any:
        kind = args[0].dtype
        with torch.autocast(args[0].device.type, self._low):
            out = function(*args)
        return tree_map(lambda leaf: leaf.to(kind) if leaf.is_floating_point() else leaf, out)

    def _keep_buffers(self, view: "View") -> None:
        if not isinstance(view.tree, dict):
            raise RuntimeError(
                f"net '{self.name}' was called in training mode on shared weights, whose buffers "
                "must not change; pass dict(...) of them"
            )
        for name in self.buffers:
            slots, key = self._slots[name]
            view.tree[name] = slots[key]


class View:
    """A net with weights: call it, or one of its parts."""

    def __init__(self, net: Net, tree: Tree, train: bool, batch: Any) -> None:
        self.net, self.tree, self.train, self.batch = net, tree, train, batch

    def __call__(self, *args: Tensor) -> Tensor:
        """Run the whole net."""
        result: Tensor = self.net.bound(self, self.net.skeleton, *args)
        return result

    def features(self, *args: Tensor) -> Tensor:
        """Run the net up to its last layer."""
        return self.part("features")(*args)

    def head(self, *args: Tensor) -> Tensor:
        """Run the last layer."""
        return self.part("head")(*args)

    def part(self, name: str) -> Callable[..., Tensor]:
        """Return a submodule or method of the net as a function."""
        target = getattr(self.net.skeleton, name)
        return lambda *args: self.net.bound(self, target, *args)


def parameters_of(tree: Mapping[str, Tensor], net: Net) -> Tree:
    """Return the trainable part of a tree."""
    return {name: tree[name] for name in net.parameters}
