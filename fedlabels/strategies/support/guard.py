"""Guards: Flower's strategies draw from global generators, torch's sums depend on threads."""

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from flwr.serverapp.strategy import Strategy

from fedlabels.seeds import generator


@contextmanager
def global_random(seed: int, *path: str | int) -> Iterator[None]:
    """Seed the global generators of ``random`` and numpy, and put them back at the end.

    Parameters
    ----------
    seed : int
        The run's seed, >= 0.
    *path : str or int
        What is drawn; the same path gives the same draws, whatever was drawn before.
    """
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - restored below
    first, second = generator(seed, *path).integers(2**32, size=2).tolist()
    random.seed(first)
    np.random.seed(second)  # noqa: NPY002 - Flower's noise has no other source
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread: the server's bits then do not depend on the backend."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Bound(float):
    """A clipping norm that may be divided by an update of norm 0: the factor is infinite."""

    def __truediv__(self, other: float) -> float:
        return float(self) / other if other else math.inf


@contextmanager
def finite_norms(strategy: Strategy) -> Iterator[None]:
    """Let clipping wrappers take updates that are exactly zero.

    Flower scales an update by ``min(1, clipping_norm / norm)`` and stops at norm 0, which a client
    without data sends. Within this guard the attribute ``clipping_norm`` of the strategy, and of
    those that it wraps, divides by 0 to infinity; the update then stays as it is. Nothing of
    Flower is replaced and every other number is the same.

    Parameters
    ----------
    strategy : flwr.serverapp.strategy.Strategy
        The outermost strategy.
    """
    guarded = [
        s for s in wrapped(strategy) if isinstance(getattr(s, "clipping_norm", None), int | float)
    ]
    for each in guarded:
        setattr(each, "clipping_norm", _Bound(getattr(each, "clipping_norm")))  # noqa: B009, B010
    try:
        yield
    finally:
        for each in guarded:
            setattr(each, "clipping_norm", float(getattr(each, "clipping_norm")))  # noqa: B009, B010


def wrapped(strategy: Strategy) -> Iterator[Strategy]:
    """Yield a strategy and, from outside in, those that it wraps."""
    inner: object = strategy
    while isinstance(inner, Strategy):
        yield inner
        inner = getattr(inner, "strategy", None)
