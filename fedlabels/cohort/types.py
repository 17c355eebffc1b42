"""Words of the client contract: what a client gets, returns, and is told of its data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedlabels.errors import NotSentError

Tree = dict[str, Tensor]
"""State-dict names of one net (parameters AND buffers) -> tensor."""

Scalar = bool | int | float | str
Reduce = Literal["mean", "sum"]
Indices = NDArray[np.int64]

EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class DataSpec:
    """What a model must know of the data.

    Parameters
    ----------
    shape : tuple of int
        Shape of one sample, for images (channels, height, width).
    num_classes : int
        Number of classes, >= 2.
    """

    shape: tuple[int, ...]
    num_classes: int


@dataclass(frozen=True)
class Reads:
    """What a client reads of what a strategy sends; anything else that is sent is refused.

    Parameters
    ----------
    settings : tuple of str
        Names in ``request.settings``.
    payloads : tuple of str
        Names in ``request.shared`` and ``request.own``, beside ``"model"``.
    arrays : tuple of str or None
        Global arrays that ``request.shared["model"]`` must hold; None is a whole model.
    """

    settings: tuple[str, ...] = ()
    payloads: tuple[str, ...] = ()
    arrays: tuple[str, ...] | None = None


class Received(dict[str, Any]):
    """What came down, by name; a name that did not come is told with those that did.

    Parameters
    ----------
    what : str
        What the values are, such as ``"setting"``.
    values : mapping
        The values.

    Raises
    ------
    NotSentError
        On looking for a name that did not come; it is a KeyError.
    """

    def __init__(self, what: str, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self._what = what

    def __missing__(self, name: object) -> Any:
        sent = ", ".join(map(repr, self)) or "none"
        raise NotSentError(
            f"the strategy does not send the {self._what} {name!r}; it sends: {sent}. Take a"
            " strategy that sends it, or ask with .get() where the client can do without"
        )


@dataclass(frozen=True)
class FitRequest:
    """What the server asks of a client in one exchange.

    Parameters
    ----------
    exchange : str
        Name of the exchange, ``"train"`` unless the strategy names others.
    round : int
        Round index, from 1 (0 is the state before the first round).
    rounds : int
        Rounds planned.
    settings : mapping
        Scalars sent along with the task.
    shared : mapping of str to Tree
        Payloads that are the same for all clients, ``"model"`` among them.
    own : mapping of str to Tree
        Payloads of this client alone.
    """

    exchange: str
    round: int
    rounds: int
    settings: Mapping[str, Scalar] = field(default_factory=lambda: EMPTY)
    shared: Mapping[str, Tree] = field(default_factory=lambda: EMPTY)
    own: Mapping[str, Tree] = field(default_factory=lambda: EMPTY)


@dataclass(frozen=True)
class Term:
    """Something that goes up.

    Parameters
    ----------
    value : Tree
        Named tensors of one client (a model, counts, prototypes).
    weight : Tensor or Tree or None
        A number, or numbers that broadcast to the entries of each tensor; None counts as 1.
    reduce : {"mean", "sum"}
        ``"mean"`` is the weighted mean over the clients, ``"sum"`` the weighted sum.
    """

    value: Tree
    weight: Tensor | Tree | None = None
    reduce: Reduce = "mean"


@dataclass(frozen=True)
class Ratio:
    """A metric that adds up over clients: ``sum / count``."""

    sum: Tensor
    count: Tensor


@dataclass(frozen=True)
class FitResult:
    """What a client returns.

    Parameters
    ----------
    terms : mapping of str to Term
        What goes up. ``"model"``, weighted by the number of examples, is the term that stock
        strategies see; it is a model, not a difference.
    metrics : mapping of str to Ratio
        Sums and counts.
    state : mapping of str to Tree
        The client's NEW state, kept where the client is.
    """

    terms: Mapping[str, Term] = field(default_factory=lambda: EMPTY)
    metrics: Mapping[str, Ratio] = field(default_factory=lambda: EMPTY)
    state: Mapping[str, Tree] = field(default_factory=lambda: EMPTY)


class PseudoLabels(NamedTuple):
    """Pseudo-labels of one batch, scored against the hidden truth outside the client.

    Parameters
    ----------
    sample : Tensor, shape (batch,)
        Positions of the samples in the data set (``batch.index``).
    label : Tensor, shape (batch,)
        Pseudo-labels.
    keep : Tensor, shape (batch,)
        Whether the sample is trained on.
    expert : Tensor, shape (batch,)
        Which candidate wrote the label, as an integer.
    candidates : dict of str to Tensor, shape (batch,)
        Labels that each expert would have written; scored on the kept samples, too.
    """

    sample: Tensor
    label: Tensor
    keep: Tensor
    expert: Tensor
    candidates: dict[str, Tensor] = {}  # noqa: RUF012 - a default of a NamedTuple, never changed
