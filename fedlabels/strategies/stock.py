"""Runs any strategy that ships with Flower as it is: robust rules, server optimizers, DP wrappers.

Flower's strategies see every client's model, so they cost one model of memory a client. What would
stop or bend them is kept away from them: see :class:`Stock`.
"""

import copy
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.app.exception import AppExitException
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower

from fedlabels.aggregation import weighted_mean
from fedlabels.errors import CheckpointError, ConfigError, RunError, unknown
from fedlabels.rounds import wire
from fedlabels.rounds.flower_compat import ADAPTIVE_CLIPPING, WideArray, peek
from fedlabels.rounds.job import Arrays, Need
from fedlabels.rounds.replies import Replies
from fedlabels.strategies.base import MODEL_KEPT, Outcome, ServerStrategy, State, restored
from fedlabels.strategies.support import Collected, SampledGrid, finite_norms, global_random, snapshot
from fedlabels.strategies.support.guard import wrapped
from fedlabels.strategies.support.replies import check, count_rows

_PREFIX = "flwr.serverapp.strategy."
_SAMPLING = {
    "fraction_train": 1.0,
    "fraction_evaluate": 1.0,
    "min_train_nodes": 1,
    "min_evaluate_nodes": 1,
    "min_available_nodes": 1,
}
_FIXED = frozenset({*_SAMPLING, "weighted_by_key", "arrayrecord_key", "configrecord_key"})
# Rules that compare clients by their distance, which is the same for differences from the model.
_DISTANCES = (flower.MultiKrum, flower.Bulyan)
_CLIPPING = (
    flower.DifferentialPrivacyServerSideFixedClipping,
    flower.DifferentialPrivacyClientSideFixedClipping,
)
# Rules that step or clip or add noise: running statistics are no parameters and are averaged.
_STEPS = (
    *_CLIPPING, flower.FedAvgM, flower.FedAdagrad, flower.FedAdam, flower.FedYogi, flower.QFedAvg,
)  # fmt: skip


@dataclass(frozen=True)
class StockSettings:
    """Settings of a stock strategy.

    Parameters
    ----------
    rule : str
        Class in ``flwr.serverapp.strategy``, such as ``"FedMedian"``; with that prefix or without.
    options : dict
        Its arguments, without those of sampling and record keys. An argument that is a strategy,
        as wrappers for differential privacy take one, is again a mapping of ``name`` and options:
        ``{"noise_multiplier": 0.1, ..., "strategy": {"name": "FedAvg"}}``.
    """

    rule: str = "FedAvg"
    options: dict[str, Any] = field(default_factory=dict)


class Stock(ServerStrategy):
    """An unchanged Flower strategy behind the toolkit's sampling, checks and state.

    - Global ``random`` and ``numpy.random``, Flower's only sources of noise, are seeded from the
      run's seed and the round, and put back afterwards.
    - Values are shown in float64, in the order of the model that was sent, whatever the order of a
      reply. Rules that compare clients by distance (Krum, MultiKrum, Bulyan) are shown differences
      from that model: the squares of large equal parts would cancel.
    - Integer and boolean tensors are hidden from the strategy and stay the server's; 0-d floats
      are shown with shape (1,), because in-place arithmetic misses 0-d values. Clients get and
      send whole models. Dtypes are restored.
    - Server optimizers and differential privacy are shown parameters only: running statistics of a
      batch normalization are averaged, as with our own server optimizers.
    - Clients with weight 0 are left out; metrics are cut to those that all clients report, and the
      ones that come out are merged by sums and counts, over all clients.
    - Replies are copies that the strategy may empty or overwrite. Updates that are exactly zero
      pass through clipping.
    - Failed clients are shown to the strategy, which decides: differential privacy skips a round
      in which one failed.

    Parameters
    ----------
    settings : StockSettings or None
        None is Flower's FedAvg.

    Raises
    ------
    ConfigError
        If the name is unknown or an option is not one of its arguments.
    """

    Settings: ClassVar[type] = StockSettings
    needs: Mapping[str, Need] = {wire.MODEL: "each"}

    def __init__(self, settings: StockSettings | None = None) -> None:
        settings = settings or StockSettings()
        self.strategy = _make(settings.rule, settings.options)
        self._marks = snapshot.marks(self.strategy)
        self._steps = any(isinstance(rule, _STEPS) for rule in wrapped(self.strategy))
        self._compares = any(isinstance(rule, _DISTANCES) for rule in wrapped(self.strategy))
        self.bounds_updates = any(isinstance(rule, _CLIPPING) for rule in wrapped(self.strategy))

    def summary(self) -> None:
        """Log the strategy's settings."""
        self.strategy.summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Make the messages of a round; ``config`` stays as it is."""
        self._received = wire.from_record(arrays)
        sampled = SampledGrid(grid, self.sample(server_round, grid))
        shown = self._shown(self._received)
        with global_random(self.server.seed, "stock-configure", server_round):
            messages = list(
                self.strategy.configure_train(server_round, shown, config.copy(), sampled)
            )
        _send_whole(messages, shown, arrays)
        return self._addressed("train", server_round, messages)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Ask the clients of the round to evaluate; ``config`` stays as it is."""
        sampled = SampledGrid(grid, self.sample(server_round, grid))
        with global_random(self.server.seed, "stock-evaluate", server_round):
            messages = list(
                self.strategy.configure_evaluate(server_round, arrays, config.copy(), sampled)
            )
        return self._addressed("evaluate", server_round, messages)

    def train_outcome(self, round_index: int, replies: Iterable[Message]) -> Outcome:
        """Let the strategy aggregate what it can digest."""
        if self._received is None:
            raise RunError("aggregate was called before configure: the model sent is not known")
        collected, digestible, uplinks = self._digestible(replies)
        arrays: ArrayRecord | None = None
        if any(reply.has_content() for reply in digestible):
            arrays = self._aggregated(round_index, digestible)
        metrics = collected.means()
        if not arrays:
            metrics[MODEL_KEPT] = 1.0
        new = self._whole(peek(arrays), uplinks, self._received) if arrays else None
        return Outcome(new, metrics, collected.weight, collected.by_status())

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate as Flower's round loop asks for it."""
        outcome = self.train_outcome(server_round, replies)
        return outcome.arrays, MetricRecord({**outcome.metrics})

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Merge metrics by sums and counts."""
        return MetricRecord({**self.aggregate("evaluate", server_round, replies).metrics})

    def state(self) -> State:
        """Return everything that the strategy holds.

        Raises
        ------
        CheckpointError
            If something changed since the start that has no stored form, such as a privacy
            accountant.
        """
        arrays: Arrays = {}
        return State(arrays, snapshot.take(self.strategy, self._marks, arrays))

    def load_state(self, state: State) -> None:
        """Go on from a stored state."""
        if not state.values:
            raise CheckpointError("the state is empty: resume with the run's strategy")
        snapshot.restore(self.strategy, state.values, state.arrays)

    def _aggregated(self, round_index: int, replies: Sequence[Message]) -> ArrayRecord | None:
        random = global_random(self.server.seed, "stock-aggregate", round_index)
        try:
            with random, finite_norms(self.strategy):
                arrays, _ = self.strategy.aggregate_train(round_index, replies)
        except AppExitException as error:  # Flower would end the whole ServerApp with it
            name = type(self.strategy).__name__
            raise RunError(
                f"Flower's {name} cannot aggregate round {round_index}: {error}"
            ) from error
        return arrays

    def _digestible(
        self, replies: Iterable[Message]
    ) -> tuple[Collected, list[Message], list[wire.Uplink]]:
        """Check replies, and rewrite them in a form that every stock strategy takes."""
        ordered = sorted(replies, key=lambda reply: self.client_of(reply.metadata.src_node_id))
        collected = Collected()
        simulated = isinstance(replies, Replies)
        usable = check(
            ordered, collected, expected=self.expected, client_of=self.client_of, finite=simulated
        )
        if isinstance(replies, Replies):
            collected = count_rows(replies)  # knows the clients that gave no reply, too
        uplinks = {client_id: up for client_id, up in usable if wire.MODEL in up.terms}
        common = set.intersection(*map(_counted_metrics, uplinks.values())) if uplinks else set()
        contents = {client_id: self._content(up, common) for client_id, up in uplinks.items()}
        shown: list[Message] = []
        for reply in ordered:
            client_id = self.client_of(reply.metadata.src_node_id)
            if reply.has_error():
                shown.append(reply)
            elif client_id in contents:
                clone = copy.copy(reply)  # the caller's reply keeps its content
                clone.content = contents[client_id]
                shown.append(clone)
        return collected, shown, list(uplinks.values())

    def _seen(self, model: Arrays) -> list[str]:
        """Name the tensors of the sent model that the strategy is shown, in its order."""
        hidden = self.server.private | (self.server.buffers if self._steps else frozenset())
        return [name for name, v in model.items() if v.dtype.kind == "f" and name not in hidden]

    def _shown(self, model: Arrays) -> ArrayRecord:
        """Show the strategy its part of some model."""
        sent, record = self._received or {}, ArrayRecord()
        for name in self._seen(sent):
            record[name] = WideArray(model[name], sent[name] if self._compares else None)
        return record

    def _content(self, up: wire.Uplink, metrics: set[str]) -> RecordDict:
        means = {name: up.metrics[name][0] / up.metrics[name][1] for name in sorted(metrics)}
        record = MetricRecord({wire.NUM_EXAMPLES: up.weight, **means})
        model = self._shown(up.terms[wire.MODEL].value)
        return RecordDict({wire.ARRAYS: model, wire.METRICS: record})

    def _whole(
        self, aggregated: Arrays, uplinks: Sequence[wire.Uplink], server: Arrays
    ) -> ArrayRecord:
        """Return the new model: what the strategy aggregated, and what it was not shown."""
        new = dict(aggregated)
        if self._compares:
            new = {name: v + server[name].reshape(v.shape) for name, v in aggregated.items()}
        if self._steps:
            values = [up.terms[wire.MODEL].value for up in uplinks]
            weights = [up.weight for up in uplinks]
            for name in self.server.buffers - self.server.private:
                stacked = np.stack([value[name] for value in values])
                new[name] = weighted_mean(stacked, weights)
        return wire.to_record(restored(new, server))


def _make(name: object, options: Mapping[str, Any]) -> flower.Strategy:
    kind = _find(name)
    forbidden = sorted(_FIXED & set(options))
    if forbidden:
        raise ConfigError(
            f"option {forbidden[0]!r} of Flower's {kind.__name__} is set by the run: use the run's"
            " own number of clients per round"
        )
    allowed = inspect.signature(kind).parameters
    arguments = {key: _option(value) for key, value in options.items()}
    arguments.update({key: value for key, value in _SAMPLING.items() if key in allowed})
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        open_to_user = ", ".join(key for key in allowed if key not in _FIXED)
        raise ConfigError(
            f"Flower's {kind.__name__}: {error}; its options are {open_to_user}"
        ) from error


def _option(value: object) -> object:
    if isinstance(value, Mapping) and "name" in value:
        return _make(value["name"], {str(k): v for k, v in value.items() if k != "name"})
    return value


def _find(name: object) -> type[flower.Strategy]:
    kinds = {
        key: value
        for key in flower.__all__
        if isinstance(value := getattr(flower, key), type)
        and issubclass(value, flower.Strategy)
        and not inspect.isabstract(value)
        and not key.startswith("FedXgb")  # trees as bytes, not tensors
        and "AdaptiveClipping" not in key
    }
    plain = str(name).removeprefix(_PREFIX)
    if "AdaptiveClipping" in plain and plain in flower.__all__:
        fixed = plain.replace("Adaptive", "Fixed")
        raise ConfigError(f"strategy.rule={plain} is refused. {ADAPTIVE_CLIPPING}. Use {fixed}")
    kind = kinds.get(plain)
    if kind is None:
        raise unknown(name, kinds, "strategy.rule")
    return kind


def _send_whole(messages: Iterable[Message], shown: ArrayRecord, whole: ArrayRecord) -> None:
    """Put the whole model back into messages; those that shared their content still do."""
    contents: dict[int, RecordDict] = {}
    for message in messages:
        content = message.content
        if id(content) not in contents:
            records = {k: whole if v is shown else v for k, v in content.items()}
            contents[id(content)] = RecordDict(records)
        message.content = contents[id(content)]


def _counted_metrics(up: wire.Uplink) -> set[str]:
    return {name for name, (_, count) in up.metrics.items() if count}
