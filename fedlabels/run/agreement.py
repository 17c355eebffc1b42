"""Whether a strategy and its clients fit: what one sends is what the other reads, or nothing runs.

A strategy says what it sends by configuring a round that is never run; a client says by `reads` and
`makes` what it makes of it. What only later rounds send is checked when they come, before anybody
trains.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flwr.app import ConfigRecord, Message

from fedlabels import clients, strategies
from fedlabels.cohort import Client, Reads
from fedlabels.errors import ConfigError, FedLabelsError, RunError
from fedlabels.rounds import wire
from fedlabels.rounds.job import Arrays, Job, JobResult
from fedlabels.run.world import World
from fedlabels.simulation.grid import FIRST_NODE_ID, CohortGrid
from fedlabels.strategies.base import Server, ServerStrategy
from fedlabels.worker.mods import MODS

_OF_THE_ROUND = {wire.ROUND, wire.ROUNDS}


@dataclass(frozen=True)
class Sent:
    """Names of what a strategy sends.

    Parameters
    ----------
    arrays, settings, payloads : frozenset of str
        Global arrays, settings, and what goes beside the arrays, to all clients or to one.
    models : frozenset of str
        Terms that it wants back and that are models like the one that it sends.
    """

    arrays: frozenset[str] = frozenset()
    settings: frozenset[str] = frozenset()
    payloads: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()


class _Nowhere:
    """Where a round that is never run would run."""

    def run(self, job: Job) -> JobResult:
        raise RunError("this round is configured only")

    def close(self) -> None:
        """Do nothing."""


def sent_by(
    name: str, settings: Mapping[str, Any], server: Server, model: Arrays, members: int
) -> Sent:
    """Find out what a strategy sends in the first round, with a strategy made for that.

    Parameters
    ----------
    name, settings : str and mapping
        Of the strategy.
    server : Server
        The run, as the strategy is told of it.
    model : Arrays
        A model, for names and shapes.
    members : int
        Clients of the federation.
    """
    strategy = strategies.build(name, settings)
    nodes = {FIRST_NODE_ID + i: i for i in range(members)}
    strategy.bind(replace(server, client_of=nodes, min_clients=1, deadline_seconds=0.0))
    initial = strategy.initial(model)
    grid, record = CohortGrid(range(members), _Nowhere()), wire.to_record(initial)
    sent = Sent(frozenset(initial), payloads=frozenset(strategy.shared("evaluate", 0)))
    for exchange in strategy.exchanges(1):
        messages = strategy.configure(exchange, 1, record, grid)
        settings_, payloads = _names(messages)
        sent = replace(sent, settings=sent.settings | settings_, payloads=sent.payloads | payloads)
    alike = {term for term in strategy.needs if set(strategy.expected(term) or ()) == set(model)}
    return replace(sent, models=frozenset(alike))


def _names(messages: Iterable[Message]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of settings and payloads of some messages."""
    settings, payloads = set[str](), set[str]()
    for message in messages:
        config = message.content.get(wire.CONFIG)
        settings |= set(config if isinstance(config, ConfigRecord) else ()) - _OF_THE_ROUND
        for key in message.content.array_records:
            for start in (wire.SHARED, wire.OWN):
                if key.startswith(start):
                    payloads.add(key.removeprefix(start))
    return frozenset(settings), frozenset(payloads)


def reads_of(client: Client) -> Reads:
    """Return what a client says that it reads.

    A declaration holds for the ``fit`` of its class: a subclass that trains otherwise says it anew.
    """
    declared = client.reads
    return declared if _declares_beside_fit(client, "reads") else Reads(arrays=declared.arrays)


def makes_of(client: Client) -> tuple[str, ...] | None:
    """Return the terms that a client says that it makes; None where it does not say."""
    return client.makes if _declares_beside_fit(client, "makes") else None


def _declares_beside_fit(client: Client, name: str) -> bool:
    kinds = type(client).__mro__
    trains, declares = (next(i for i, k in enumerate(kinds) if n in vars(k)) for n in ("fit", name))
    return declares <= trains


def unread(
    client: Client, mods: Sequence[str], settings: Collection[str], payloads: Collection[str]
) -> str | None:
    """Say what of these settings and payloads neither the client nor a mod reads; None: all is."""
    reads = reads_of(client)
    known = {*reads.settings, *(key for mod in mods for key in MODS[mod].reads)}
    lost = sorted(set(settings) - known)
    beside = sorted(set(payloads) - set(reads.payloads))
    if lost:
        return f"the strategy sends the setting {', '.join(lost)}, which the client does not read"
    if beside:
        return (
            f"the strategy sends {', '.join(beside)} with the model, which the client never reads"
        )
    return None


def misfit(client: Client, strategy: ServerStrategy, sent: Sent, mods: Sequence[str]) -> str | None:
    """Say why a client and a strategy do not fit; None when they do."""
    wanted, terms = reads_of(client).arrays, makes_of(client)
    arrays = ", ".join(sorted(sent.arrays)) or "nothing"
    if wanted is None and not strategy.has_model:
        return f"the client trains a model that it is sent, but the strategy sends {arrays}"
    missing = sorted(set(wanted or ()) - sent.arrays)
    if missing:
        return f"the client reads {', '.join(missing)} of the server, which sends other arrays"
    for exchange in strategy.exchanges(1):
        if exchange != "train" and not callable(getattr(client, exchange, None)):
            return f"the strategy asks for the exchange {exchange}, which the client does not have"
    absent = [] if terms is None else sorted(set(strategy.needs) - set(terms))
    if absent:
        sends = ", ".join(terms or ()) or "none"
        return f"the strategy needs the term {', '.join(absent)}, the client sends {sends}"
    return unread(client, mods, sent.settings, sent.payloads)


def check_agreement(config: Mapping[str, Any], world: World, model: Arrays) -> None:
    """Check a run before anything of it is written.

    Parameters
    ----------
    config : mapping
        Resolved settings.
    world : World
        Client and strategy.
    model : Arrays
        The first model.

    Raises
    ------
    ConfigError
        If client, strategy and mods do not fit; the text says what would.
    """
    client, strategy, mods = world.client, world.strategy, config["deploy"]["mods"]
    chosen = _Choice(config, world, model)
    label = f"strategy {_label(config['strategy'])} and client {config['client']['name']}"
    _check_statistics(client, strategy, world, mods)
    try:
        sent = chosen.sent(config["strategy"])
    except FedLabelsError:
        raise
    except Exception:
        return  # it cannot configure a round without a run: its messages are checked as they come
    problem = misfit(client, strategy, sent, mods)
    if problem is not None:
        raise ConfigError(f"{label} do not fit: {problem}. {chosen.remedy(sent)}")
    for mod in mods:
        _check_mod(mod, client, strategy, sent)


def _label(settings: Mapping[str, Any]) -> str:
    rule = settings.get("rule")
    return str(settings["name"]) + (f" (rule={rule})" if rule else "")


def _check_mod(mod: str, client: Client, strategy: ServerStrategy, sent: Sent) -> None:
    kind = MODS[mod]
    missing = sorted(set(kind.reads) - sent.settings)
    if missing:
        raise ConfigError(
            f"deploy.mods: {mod} needs the setting {', '.join(missing)}, which the strategy does"
            " not send; use strategy=stock strategy.rule=DifferentialPrivacyClientSideFixedClipping"
        )
    terms = makes_of(client)
    if kind.clips and (set(strategy.needs) != {wire.MODEL} or set(terms or ()) - {wire.MODEL}):
        sends = ", ".join(terms or strategy.needs) or "nothing"
        raise ConfigError(
            f"deploy.mods: {mod} bounds the update of the model, but what goes up is {sends}; use a"
            " client and a strategy that exchange one model"
        )


def _check_statistics(
    client: Client, strategy: ServerStrategy, world: World, mods: Sequence[str]
) -> None:
    """Refuse running statistics under differential privacy, which cannot hold for them."""
    if not (strategy.bounds_updates or any(MODS[mod].clips for mod in mods)):
        return
    sent = sorted(world.layout.names(role="buffer") - client.private(world.layout))
    if sent:
        raise ConfigError(
            f"the model sends statistics of its batches ({sent[0]} and {len(sent) - 1} more), which"
            " clipping does not bound and noise would ruin; use model.norm=group, or a client that"
            " keeps them (client=fedbn client.bn_policy=silo)"
        )


class _Choice:
    """Which clients and strategies would fit in a run."""

    def __init__(self, config: Mapping[str, Any], world: World, model: Arrays) -> None:
        self._config, self._world, self._model = config, world, model
        self._mods = config["deploy"]["mods"]

    def sent(self, settings: Mapping[str, Any]) -> Sent:
        """Return what a strategy of these settings sends."""
        world, config = self._world, self._config
        server = Server(
            seed=config["seed"],
            rounds=config["rounds"],
            clients_per_round=config["per_round"],
            private=world.client.private(world.layout),
            buffers=world.layout.names(role="buffer"),
            layout=world.layout,
            num_classes=world.source.train.num_classes,
            feature_dim=world.feature_dim,
        )
        rest = {key: value for key, value in settings.items() if key != "name"}
        return sent_by(settings["name"], rest, server, self._model, config["clients"])

    def remedy(self, sent: Sent) -> str:
        """Say what to change."""
        client, strategy = self._world.client, self._world.strategy
        mods = [
            name
            for name, kind in MODS.items()
            if kind.reads and misfit(client, strategy, sent, [*self._mods, name]) is None
        ]
        options = [f"deploy.mods=[{mod}]" for mod in mods]
        options += [self._option("client", n) for n in clients.names() if self._serves(n, sent)]
        options += [self._option("strategy", n) for n in strategies.names() if self._is_served(n)]
        known = f"What fits: {', '.join(options)}. " if options else ""
        return f"{known}What a client reads and sends is declared in it: docs/contract.md"

    def _option(self, part: str, name: str) -> str:
        """Name an option with its defaults; the refused one with what it is to change."""
        chosen = self._config[part]
        if name != chosen["name"]:
            return f"{part}={name}"
        usual = (
            clients.build({"name": name}) if part == "client" else strategies.find(name).Settings()
        )
        other = {
            k: getattr(usual, k) for k in chosen if k != "name" and getattr(usual, k) != chosen[k]
        }
        kinds = {key: value for key, value in other.items() if key in ("rule", "variant")}
        shown = (f"{part}.{key}={value}" for key, value in (kinds or other).items())
        return " ".join([f"{part}={name}", *shown])

    def _serves(self, name: str, sent: Sent) -> bool:
        try:
            client = clients.build({"name": name})
        except FedLabelsError:
            return False  # it has no default settings
        return misfit(client, self._world.strategy, sent, self._mods) is None

    def _is_served(self, name: str) -> bool:
        try:
            sent, strategy = self.sent({"name": name}), strategies.build(name)
        except FedLabelsError:
            return False
        return misfit(self._world.client, strategy, sent, self._mods) is None


def check_messages(messages: Sequence[Message], client: Client, mods: Sequence[str]) -> None:
    """Check what a strategy is about to send in a round.

    Raises
    ------
    RunError
        If the client does not read it, which was not to be seen before the run.
    """
    problem = unread(client, mods, *_names(messages))
    if problem is not None:
        raise RunError(f"{problem}: declare it in the client's `reads` (docs/contract.md)")
