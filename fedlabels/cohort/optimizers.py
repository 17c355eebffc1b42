"""SGD and Adam on trees.

``step`` consumes the tree and the state that it is given: looped execution overwrites them in
place, which costs nothing; stacked execution makes new tensors, because the values of clients that
have no batch left must survive.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fedlabels.cohort.clock import during
from fedlabels.cohort.context import CONTEXT
from fedlabels.cohort.tree import select, square_norm
from fedlabels.cohort.types import Tree

State = dict[str, Tree]


class Optimizer(Protocol):
    """What a training step needs of an optimizer."""

    def init(self, tree: Tree, wrt: Iterable[str]) -> State:
        """Make the state for the tensors named in ``wrt``."""
        ...

    def step(
        self, tree: Tree, grads: Tree, state: State, when: Tensor | None = None
    ) -> tuple[Tree, State]:
        """Return the tree and the state after one step; a false ``when`` changes nothing."""
        ...


def clip_by_norm(grads: Tree, limit: float) -> Tree:
    """Scale gradients so that their global norm is at most ``limit`` (> 0)."""
    norm = square_norm(grads).sqrt()
    factor = (limit / norm.clamp_min(1e-12)).clamp_max(1.0)
    return {k: g * factor for k, g in grads.items()}


def _unit_norm(x: Tensor) -> Tensor:
    """Return the norm of every output unit, so that it broadcasts to ``x``."""
    if sum(size > 1 for size in x.shape) <= 1:  # biases and gains of any shape are one unit
        return (x * x).sum().sqrt()
    return (x * x).sum(tuple(range(1, x.dim())), keepdim=True).sqrt()


def clip_units(
    weight: Tensor, grad: Tensor, ratio: float, eps: float = 1e-3
) -> tuple[Tensor, Tensor]:
    """Clip the gradient of each output unit by the norm of its weights.

    Parameters
    ----------
    weight, grad : Tensor, shape (outputs, ...)
        A tensor and its gradient. Units are filters of a convolution and rows of a dense layer;
        biases, gains and scalars are one unit.
    ratio : float
        Largest norm of a gradient over that of its weights, > 0.
    eps : float
        Least norm that weights count with, > 0.

    Returns
    -------
    Tensor, Tensor
        The clipped gradient, and which units were clipped (bool, broadcasts to ``grad``).

    Notes
    -----
    Brock et al., ICML 2021, arXiv 2102.06171; W2 of docs/methods/fedwon.md.
    """
    limit = ratio * _unit_norm(weight).clamp_min(eps)
    norm = _unit_norm(grad)
    clipped = norm > limit
    return torch.where(clipped, grad * (limit / norm.clamp_min(1e-6)), grad), clipped


def clip_adaptive(
    tree: Tree, grads: Tree, ratio: float, skip: Collection[str] = (), eps: float = 1e-3
) -> Tree:
    """Clip the gradients of all tensors but those named in ``skip``; see `clip_units`."""
    return {k: g if k in skip else clip_units(tree[k], g, ratio, eps)[0] for k, g in grads.items()}


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent.

    Parameters
    ----------
    lr : float
        Learning rate, > 0.
    momentum : float
        In [0, 1).
    nesterov : bool
        Nesterov's form of the momentum.
    weight_decay : float
        L2 coefficient, >= 0, added to the gradient.
    clip : float or None
        Largest global gradient norm.
    agc : float or None
        Ratio of adaptive gradient clipping, > 0; comes before everything else.
    agc_eps : float
        Least norm that weights count with in it, > 0.
    agc_skip : frozenset of str
        Tensors that it leaves alone: those of the last layer, see ``Layout.head``.
    decay_skip : frozenset of str
        Tensors without weight decay.
    """

    lr: float
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    clip: float | None = None
    agc: float | None = None
    agc_eps: float = 1e-3
    agc_skip: frozenset[str] = frozenset()
    decay_skip: frozenset[str] = frozenset()

    def init(self, tree: Tree, wrt: Iterable[str]) -> State:
        """Return zero momentum for the tensors in ``wrt``; empty without momentum."""
        if not self.momentum:
            return {}
        return {"momentum": {k: torch.zeros_like(tree[k]) for k in wrt}}

    @during("update")
    def step(
        self, tree: Tree, grads: Tree, state: State, when: Tensor | None = None
    ) -> tuple[Tree, State]:
        """Move ``tree`` along the gradients; see `Optimizer`."""
        with torch.no_grad():
            moves, new_state = self._moves(tree, grads, state)
            if when is not None:
                moves = {k: torch.where(when, v, torch.zeros_like(v)) for k, v in moves.items()}
                new_state = select(when, new_state, state)
            if not CONTEXT.donate:
                return {**tree, **{k: tree[k] - self.lr * v for k, v in moves.items()}}, new_state
            torch._foreach_add_([tree[k] for k in moves], list(moves.values()), alpha=-self.lr)
            return tree, new_state

    def _moves(self, tree: Tree, grads: Tree, state: State) -> tuple[Tree, State]:
        if self.agc is not None:
            grads = clip_adaptive(tree, grads, self.agc, self.agc_skip, self.agc_eps)
        if self.clip is not None:
            grads = clip_by_norm(grads, self.clip)
        if self.weight_decay:
            grads = {
                k: g if k in self.decay_skip else g + self.weight_decay * tree[k]
                for k, g in grads.items()
            }
        if not self.momentum:
            return grads, state
        velocity = {k: self.momentum * state["momentum"][k] + g for k, g in grads.items()}
        moves = velocity
        if self.nesterov:
            moves = {k: g + self.momentum * velocity[k] for k, g in grads.items()}
        return moves, {"momentum": velocity}


@dataclass(frozen=True)
class Adam:
    """Adam with bias correction (Kingma and Ba, ICLR 2015).

    Parameters
    ----------
    lr : float
        Learning rate, > 0.
    beta_1, beta_2 : float
        Decay of the two moments, in [0, 1).
    eps : float
        Added to the root of the second moment.
    weight_decay : float
        L2 coefficient, >= 0, added to the gradient.
    clip : float or None
        Largest global gradient norm.
    decay_skip : frozenset of str
        Tensors without weight decay.
    """

    lr: float = 1e-3
    beta_1: float = 0.9
    beta_2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip: float | None = None
    decay_skip: frozenset[str] = frozenset()

    def init(self, tree: Tree, wrt: Iterable[str]) -> State:
        """Return zero moments for the tensors in ``wrt`` and the step counter."""
        names = list(wrt)
        zero = {k: torch.zeros_like(tree[k]) for k in names}
        # a counter per tensor: it gets the leading axis of a stack without asking for its size
        steps = {k: torch.zeros_like(tree[k].flatten()[:1].sum()) for k in names}
        return {
            "mean": zero,
            "square": {k: torch.zeros_like(v) for k, v in zero.items()},
            "steps": steps,
        }

    @during("update")
    def step(
        self, tree: Tree, grads: Tree, state: State, when: Tensor | None = None
    ) -> tuple[Tree, State]:
        """Move ``tree`` along the corrected first moment; see `Optimizer`."""
        with torch.no_grad():
            if self.clip is not None:
                grads = clip_by_norm(grads, self.clip)
            new: Tree = dict(tree)
            out: State = {"mean": {}, "square": {}, "steps": {}}
            for name, grad in grads.items():
                if self.weight_decay and name not in self.decay_skip:
                    grad = grad + self.weight_decay * tree[name]
                count = state["steps"][name] + 1
                mean = self.beta_1 * state["mean"][name] + (1 - self.beta_1) * grad
                square = self.beta_2 * state["square"][name] + (1 - self.beta_2) * grad * grad
                root = (square / (1 - self.beta_2**count)).sqrt() + self.eps
                new[name] = tree[name] - self.lr * (mean / (1 - self.beta_1**count)) / root
                out["mean"][name], out["square"][name], out["steps"][name] = mean, square, count
            if when is not None:
                new, out = select(when, new, tree), select(when, out, state)
            return new, out
