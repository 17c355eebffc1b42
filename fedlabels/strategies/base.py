"""What every strategy is: Flower's ``Strategy`` with this toolkit's sampling, checks and state.

:class:`ServerStrategy` is the contract that the round loop speaks. :class:`CohortStrategy` fulfils
it on top of a linear strategy of Flower, one that only needs a weighted mean: write a subclass,
usually with :meth:`CohortStrategy.merge` alone.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower
from numpy.typing import NDArray

from fedlabels.cohort.types import Reduce
from fedlabels.errors import CheckpointError, RunError
from fedlabels.rounds import wire
from fedlabels.rounds.flower_compat import lazy_record, peek
from fedlabels.rounds.job import Arrays, Need
from fedlabels.strategies.support import (
    Collected,
    Merged,
    NoSettings,
    Outcome,
    SampledGrid,
    Server,
    State,
    collect,
    connected_nodes,
    draw,
    global_random,
)

__all__ = [
    "MODEL_KEPT",
    "MODEL_REFUSED",
    "CohortStrategy",
    "Merged",
    "NoSettings",
    "Outcome",
    "Server",
    "ServerStrategy",
    "State",
    "restored",
]

MODEL_KEPT = "model_kept"
"""Metric that is 1.0 in a round after which the model is the same, because nobody had weight."""

MODEL_REFUSED = "model_refused"
"""Metric that is 1.0 in a round whose new model was not finite: the old one was kept."""


class ServerStrategy(flower.Strategy):
    """The server side of a method: a Flower strategy that the round loop can drive.

    Attributes
    ----------
    Settings : type
        Frozen dataclass of the settings; the constructor takes one, or none for the defaults.
    needs : mapping of str to {"sum", "each"}
        Per term: reduced where it is made, or every client's value.
    reduces : mapping of str to {"mean", "sum"}
        How a summed term is reduced; a client that says otherwise is rejected. Of a term that is
        not named here devices send a mean, and simulated clients what most of them send.
    server : Server
        The run it serves, from :meth:`bind`.
    any_architecture : bool
        Whether clients may have different models: then no term may hold weights.
    same_features : bool
        Whether all architectures must have features of one width.
    has_model : bool
        Whether the global arrays are a model that can be tested; see :meth:`initial`.
    bounds_updates : bool
        Whether it bounds what one client may change, as differential privacy does; then a model
        may have no running statistics that leave the clients.
    """

    Settings: ClassVar[type] = NoSettings
    needs: Mapping[str, Need] = {wire.MODEL: "sum"}
    reduces: Mapping[str, Reduce] = {}
    any_architecture: ClassVar[bool] = False
    same_features: ClassVar[bool] = False
    has_model: ClassVar[bool] = True
    bounds_updates: bool = False
    server: Server = Server()
    _received: Arrays | None = None
    _waited: bool = False

    def bind(self, server: Server) -> None:
        """Tell the strategy which run it serves, before the first round."""
        self.server = server

    def initial(self, model: Arrays) -> Arrays:
        """Return the global arrays before the first round; the default is the model.

        Parameters
        ----------
        model : Arrays
            Initial weights of the model.

        Returns
        -------
        Arrays
            What the server keeps and sends; names, shapes and dtypes never change again. A
            strategy that exchanges something else than weights returns that, and sets
            ``has_model = False``.
        """
        return model

    def exchanges(self, round_index: int) -> Sequence[str]:
        """Name the exchanges of a round, in order; the default is ``("train",)``."""
        return ("train",)

    def configure(
        self, exchange: str, round_index: int, arrays: ArrayRecord, grid: Grid
    ) -> list[Message]:
        """Draw clients and make their messages.

        Parameters
        ----------
        exchange : str
            ``"train"`` and ``"evaluate"`` go through Flower's own methods; any other one is sent
            with the message type ``"train.<exchange>"``.
        round_index : int
            Round, from 1.
        arrays : flwr.app.ArrayRecord
            The global model.
        grid : flwr.serverapp.Grid
            Where the clients are.

        Returns
        -------
        list of flwr.app.Message
            By client_id, sharing their records.

        Raises
        ------
        RunError
            If too few clients are connected at the deadline.
        """
        config = wire.config_record(round_index, self.server.rounds, self.server.settings)
        if exchange == "train":
            return list(self.configure_train(round_index, arrays, config, grid))
        if exchange == "evaluate":
            return list(self.configure_evaluate(round_index, arrays, config, grid))
        self._received = peek(arrays)
        content = RecordDict({wire.ARRAYS: arrays, wire.CONFIG: config})
        nodes = self.sample(round_index, grid)
        messages = [Message(content, node, f"train.{exchange}") for node in nodes]
        return self._addressed(exchange, round_index, messages)

    def aggregate(self, exchange: str, round_index: int, replies: Iterable[Message]) -> Outcome:
        """Turn the replies of an exchange into a new model and metrics.

        Parameters
        ----------
        exchange : str
            Name of the exchange; one that is neither ``"train"`` nor overridden gives metrics only.
        round_index : int
            Round, from 1.
        replies : iterable of flwr.app.Message
            Of a simulation (with sums) or of devices.

        Returns
        -------
        Outcome
            The new arrays, or None, and metrics.
        """
        if exchange == "train":
            return self.train_outcome(round_index, replies)
        collected = self.collect(replies)
        return Outcome(None, collected.means(), collected.weight, collected.by_status())

    @abstractmethod
    def train_outcome(self, round_index: int, replies: Iterable[Message]) -> Outcome:
        """Aggregate the replies of the exchange ``"train"``."""

    def shared(self, exchange: str, round_index: int) -> Mapping[str, Arrays]:
        """Return payloads for all clients beside the model; the default has none."""
        return {}

    def own(self, exchange: str, round_index: int, client_id: int) -> Mapping[str, Arrays]:
        """Return payloads for one client alone; the default has none."""
        return {}

    def expected(self, term: str) -> Arrays | None:
        """Return what a device's term must look like; None takes any.

        The default knows the model: the names that are not private, with shapes and dtypes.
        """
        if term != wire.MODEL or self._received is None:
            return None
        return {n: v for n, v in self._received.items() if n not in self.server.private}

    def state(self) -> State:
        """Return what is needed to go on after a restart, beside the model."""
        return State()

    def load_state(self, state: State) -> None:
        """Go on from a state that :meth:`state` returned."""
        if state.arrays or state.values:
            raise CheckpointError(
                f"strategy {type(self).__name__} keeps no state, but the checkpoint has"
                f" {sorted([*state.arrays, *state.values])[:3]}: resume with the run's strategy"
            )

    def sample(self, round_index: int, grid: Grid) -> list[int]:
        """Draw the clients of a round; the same for all its exchanges.

        Returns
        -------
        list of int
            Node ids, by client_id.

        Raises
        ------
        RunError
            If fewer than ``server.min_clients`` are connected at the deadline.
        """
        server = self.server
        wanted = server.min_clients if self._waited else server.clients_per_round or 0
        nodes = connected_nodes(
            grid,
            wanted=wanted,
            minimum=max(1, server.min_clients),
            deadline_seconds=server.deadline_seconds,
        )
        # Who has not come by the first deadline is not waited for again in every round.
        self._waited = True
        nodes.sort(key=self.client_of)
        return draw(nodes, server.clients_per_round, seed=server.seed, round_index=round_index)

    def client_of(self, node_id: int) -> int:
        """Return the client_id of a node, or its node id when it is not known."""
        return self.server.client_of.get(node_id, node_id)

    def collect(self, replies: Iterable[Message]) -> Collected:
        """Read replies by ``needs``; bad updates of devices are dropped and counted."""
        return collect(replies, needs=self.needs, expected=self.expected, client_of=self.client_of)

    def _addressed(
        self, exchange: str, round_index: int, messages: Iterable[Message]
    ) -> list[Message]:
        """Order messages by client_id and add the payloads that go beside the model."""
        ordered = sorted(messages, key=lambda message: self.client_of(message.metadata.dst_node_id))
        common = {
            wire.shared_key(name): wire.to_record(arrays)
            for name, arrays in self.shared(exchange, round_index).items()
        }
        for message in ordered:
            client_id = self.client_of(message.metadata.dst_node_id)
            extra = {
                wire.OWN + name: wire.to_record(arrays)
                for name, arrays in self.own(exchange, round_index, client_id).items()
            }
            if common or extra:
                message.content = RecordDict({**message.content, **common, **extra})
        return ordered


class CohortStrategy(ServerStrategy, flower.FedAvg):
    """A strategy that needs no more than sums: FedAvg, and what is computed from its mean.

    Subclasses that build on another linear strategy of Flower name it second:
    ``class FedAdam(CohortStrategy, flower.FedAdam)``. Flower's class then gets one reply, the mean
    in float64 with the total weight, whatever the number of clients.

    Parameters
    ----------
    settings : object
        Not used here; subclasses take an object of their ``Settings``.
    **options
        Arguments of Flower's class, without those of its sampling.
    """

    def __init__(self, settings: object = None, /, **options: Any) -> None:
        super().__init__(
            fraction_train=1.0,
            fraction_evaluate=1.0,
            min_train_nodes=1,
            min_evaluate_nodes=1,
            min_available_nodes=1,
            **options,
        )

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Make the messages of a round through Flower's class; ``config`` stays as it is."""
        self._received = peek(arrays)
        sampled = SampledGrid(grid, self.sample(server_round, grid))
        with global_random(self.server.seed, "configure", server_round):
            messages = super().configure_train(server_round, arrays, config.copy(), sampled)
        return self._addressed("train", server_round, messages)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Ask the clients of the round to evaluate; ``config`` stays as it is."""
        sampled = SampledGrid(grid, self.sample(server_round, grid))
        with global_random(self.server.seed, "configure", server_round):
            messages = super().configure_evaluate(server_round, arrays, config.copy(), sampled)
        return self._addressed("evaluate", server_round, messages)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate as Flower's round loop asks for it."""
        outcome = self.train_outcome(server_round, replies)
        return outcome.arrays, MetricRecord({**outcome.metrics})

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Merge metrics as Flower's round loop asks for it."""
        return MetricRecord({**self.aggregate("evaluate", server_round, replies).metrics})

    def train_outcome(self, round_index: int, replies: Iterable[Message]) -> Outcome:
        """Aggregate: sums to a new model, metrics by sums and counts, and the server's figures."""
        collected = self.collect(replies)
        server = self._server_arrays()
        model, figures = self.merge(round_index, collected, server)
        arrays = None if model is None else lazy_record(restored(model, server))
        kept = {MODEL_KEPT: 1.0} if model is None else {}
        metrics = {**collected.means(), **kept, **figures}
        return Outcome(arrays, metrics, collected.weight, collected.by_status())

    def merge(self, round_index: int, collected: Collected, server: Arrays) -> Merged:
        """Compute the new model, and figures of how; this is what a method overrides.

        Parameters
        ----------
        round_index : int
            Round, from 1.
        collected : Collected
            The terms in ``needs``: sums in float64, or every client's value.
        server : Arrays
            The model that was sent, not to be written to.

        Returns
        -------
        Merged
            The default is the mean of the term ``"model"``, passed through Flower's class, without
            figures; no model where nobody has weight.
        """
        term = collected.usable(wire.MODEL)
        if term is None:
            return Merged(None)
        mean = {**server, **term.value(keep=server)}
        if self._is_plain():
            return Merged(mean)
        model = self.flower_step(round_index, mean, collected.weight)
        if model is None:
            return Merged(None)
        # a server optimizer on running statistics could make a variance negative: they are averaged
        return Merged({**model, **{name: mean[name] for name in self.server.buffers & mean.keys()}})

    def flower_step(self, round_index: int, mean: Arrays, weight: float) -> Arrays | None:
        """Let Flower's class aggregate one reply that stands for all.

        Parameters
        ----------
        round_index : int
            Round, from 1.
        mean : Arrays
            Every tensor of the model.
        weight : float
            Total weight; one reply is its own mean whatever it weighs.
        """
        up = wire.Uplink({wire.MODEL: wire.UpTerm(mean)}, weight if weight > 0 else 1.0)
        reply = Message(wire.encode_up(up), 0, "train")
        arrays, _ = super().aggregate_train(round_index, [reply])
        return None if arrays is None else wire.from_record(arrays)

    def _is_plain(self) -> bool:
        """Say whether Flower's class is its FedAvg: one reply is its own mean, there is no step."""
        own: Any = super().aggregate_train
        replaced = type(self).flower_step is not CohortStrategy.flower_step
        return not replaced and own.__func__ is flower.FedAvg.aggregate_train

    def _server_arrays(self) -> Arrays:
        if self._received is None:
            raise RunError("aggregate was called before configure: the model sent is not known")
        return self._received


def restored(new: Mapping[str, NDArray[Any]], server: Mapping[str, NDArray[Any]]) -> Arrays:
    """Give new values the server's names, order, shapes and dtypes.

    Parameters
    ----------
    new : mapping of str to ndarray
        New values; names that are missing keep the server's.
    server : mapping of str to ndarray
        The model. Integer and boolean tensors are its own unless the new value has their dtype: a
        mean of them means nothing.

    Returns
    -------
    Arrays
        All names of the server.
    """
    with np.errstate(over="ignore"):  # the round loop refuses a model that is not finite
        return {name: _restored(new.get(name), old) for name, old in server.items()}


def _restored(new: NDArray[Any] | None, old: NDArray[Any]) -> NDArray[Any]:
    if new is None or (old.dtype.kind != "f" and new.dtype != old.dtype):
        return old
    return np.asarray(new).reshape(old.shape).astype(old.dtype)
