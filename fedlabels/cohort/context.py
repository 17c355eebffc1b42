"""What layers and optimizers must know of the call they run in: rows, draws, execution.

A module's ``forward`` takes only the input, so the rows that count and the random numbers reach
BatchNorm and Dropout through this one object. It is per thread and reset after every call.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol

import torch
from torch import Tensor

Statistics = Literal["running", "fixed", "cumulative"]


class Uniform(Protocol):
    """What layers ask of the random numbers of a step; see `draws.Draws`."""

    def fold(self, number: int | Tensor) -> "Uniform":
        """Return another stream, chosen by a number."""

    def uniform(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """Draw from [0, 1)."""


class Context(threading.local):
    """The state of the running call.

    Attributes
    ----------
    rows : Tensor or None, shape (batch,)
        1 for real rows, 0 for padding; None when every row is real.
    draws : Draws or None
        Random numbers of the running step.
    donate : bool
        Optimizers may overwrite the tensors that they are given.
    inside : bool
        A primitive of the cohort runs: values have no leading axis.
    clients : int
        Clients whose functions run as one; 1 unless stacked.
    statistics : {"running", "fixed", "cumulative"}
        What training calls make of the statistics of BatchNorm, see `statistics`.
    """

    def __init__(self) -> None:
        self.rows: Tensor | None = None
        self.draws: Uniform | None = None
        self.donate = False
        self.inside = False
        self.clients = 1
        self.statistics: Statistics = "running"


CONTEXT = Context()


@contextmanager
def primitive(*, donate: bool, clients: int = 1) -> Iterator[None]:
    """Mark that a primitive runs, for how many at once, and whether optimizers work in place."""
    before = CONTEXT.inside, CONTEXT.donate, CONTEXT.clients
    CONTEXT.inside, CONTEXT.donate, CONTEXT.clients = True, donate, clients
    try:
        yield
    finally:
        CONTEXT.inside, CONTEXT.donate, CONTEXT.clients = before


@contextmanager
def statistics(kind: Statistics) -> Iterator[None]:
    """Choose what training calls make of the statistics of BatchNorm.

    Parameters
    ----------
    kind : {"running", "fixed", "cumulative"}
        Normalize by the batch and follow it slowly, as usual; normalize by the statistics as they
        are and leave them so (gradients reach the layer's parameters, dropout stays on); normalize
        by the batch and average over all batches since the layer's counter was 0.
    """
    before = CONTEXT.statistics
    CONTEXT.statistics = kind
    try:
        yield
    finally:
        CONTEXT.statistics = before
