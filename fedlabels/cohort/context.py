"""What layers and optimizers must know of the call they run in: rows, draws, execution.

A module's ``forward`` takes only the input, so the rows that count and the random numbers reach
BatchNorm and Dropout through this one object. It is per thread and reset after every call.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from fedlabels.cohort.draws import Draws


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
    """

    def __init__(self) -> None:
        self.rows: Tensor | None = None
        self.draws: Draws | None = None
        self.donate = False
        self.inside = False


CONTEXT = Context()


@contextmanager
def primitive(*, donate: bool) -> Iterator[None]:
    """Mark that a primitive runs, and whether optimizers may work in place."""
    before = CONTEXT.inside, CONTEXT.donate
    CONTEXT.inside, CONTEXT.donate = True, donate
    try:
        yield
    finally:
        CONTEXT.inside, CONTEXT.donate = before
