"""Values that the round loop and a strategy exchange."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from flwr.app import ArrayRecord

from fedlabels.cohort.layout import Layout
from fedlabels.cohort.types import EMPTY, Scalar
from fedlabels.rounds.job import Arrays


@dataclass(frozen=True)
class NoSettings:
    """Settings of a strategy that has none."""


@dataclass(frozen=True)
class Server:
    """What a strategy is told of the run that it serves.

    Parameters
    ----------
    seed : int
        The run's seed, >= 0.
    rounds : int
        Rounds planned; 0 when not known.
    clients_per_round : int or None
        Clients drawn each round; None takes all that are connected.
    min_clients : int
        Fewest connected clients that a round goes on with, >= 1.
    deadline_seconds : float
        How long to wait for clients to connect, >= 0.
    settings : mapping of str to Scalar
        Sent to the clients with every exchange.
    client_of : mapping of int to int
        Node id -> client_id. A node that is not in it counts by its node id.
    private : frozenset of str
        Names of the model's tensors that never leave a client.
    buffers : frozenset of str
        Names of its floating-point buffers: always averaged, never stepped by a server optimizer.
    layout : Layout or None
        What is known of the model's tensors; None when not known.
    num_classes, feature_dim : int
        Classes of the data, and width of the model's features; 0 when not known.
    """

    seed: int = 0
    rounds: int = 0
    clients_per_round: int | None = None
    min_clients: int = 1
    deadline_seconds: float = 60.0
    settings: Mapping[str, Scalar] = field(default_factory=lambda: EMPTY)
    client_of: Mapping[int, int] = field(default_factory=dict)
    private: frozenset[str] = frozenset()
    buffers: frozenset[str] = frozenset()
    layout: Layout | None = None
    num_classes: int = 0
    feature_dim: int = 0


@dataclass(frozen=True)
class Outcome:
    """What an exchange came to.

    Parameters
    ----------
    arrays : flwr.app.ArrayRecord or None
        The new model in the dtypes of the old one; None keeps the old one.
    metrics : dict of str to float
        Every metric as sum over count, and ``model_kept`` = 1 if nobody had weight.
    weight : float
        Number of examples behind it.
    clients : dict of str to int
        How many of the replies were ok, empty, failed and rejected.
    """

    arrays: ArrayRecord | None
    metrics: dict[str, float]
    weight: float = 0.0
    clients: Mapping[str, int] = field(default_factory=lambda: EMPTY)


class Merged(NamedTuple):
    """What the server makes of a round's sums and values.

    Parameters
    ----------
    model : Arrays or None
        New values in any float dtype; names that are missing keep the server's. A tensor of
        integers takes only values of its own dtype: a mean of counts means nothing. None keeps the
        whole model.
    figures : mapping of str to float
        What the server measured on the way, by the name of the metric.
    """

    model: Arrays | None
    figures: Mapping[str, float] = EMPTY


@dataclass(frozen=True)
class State:
    """What a strategy remembers between rounds.

    Parameters
    ----------
    arrays : dict of str to ndarray
        Flat, any dtype that can be sent.
    values : dict
        Anything JSON can hold.
    """

    arrays: Arrays = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
