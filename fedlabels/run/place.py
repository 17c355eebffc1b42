"""Where the clients of a run are: simulated here, or real devices."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedlabels.cohort.types import EMPTY
from fedlabels.rounds.grid import RoundGrid
from fedlabels.rounds.job import Arrays, Backend, ClientRow
from fedlabels.run.callbacks import Measure
from fedlabels.run.data import evaluates_clients
from fedlabels.run.folder import RunFolder
from fedlabels.run.setup import build_backend, build_server_backend
from fedlabels.run.world import World
from fedlabels.settings.hashing import schedule_of
from fedlabels.simulation.backend import SimulationBackend
from fedlabels.simulation.grid import FIRST_NODE_ID, CohortGrid
from fedlabels.strategies.support.contract import Server
from fedlabels.worker.state import Version

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class RoundPlan:
    """What is settled of a round before it begins.

    Parameters
    ----------
    index : int
        The round, from 1.
    evaluates : bool
        Whether the round ends with an evaluation.
    kept_from : int
        Oldest round that a resume may go back to.
    tested : mapping of str to Arrays
        Payloads of an evaluation of what the round before left.
    measures : sequence of Measure
        Callbacks that add figures to the round's row.
    """

    index: int
    evaluates: bool
    kept_from: int
    tested: Mapping[str, Arrays] = field(default_factory=lambda: EMPTY)
    measures: Sequence[Measure] = ()


class Place(ABC):
    """Where the clients are.

    Attributes
    ----------
    client_of : mapping of int to int
        Node id -> client_id.
    dealt : bool
        Whether the federation was dealt here, so that it is known who holds what.
    asks_at_the_end : bool
        Whether clients test the last model in an exchange of its own.
    min_clients : int
        Fewest connected clients that a round goes on with.
    deadline_seconds : float
        How long a round waits for clients to connect.
    lost_rounds : int
        So many rounds, one after the other, without a usable reply or a new model end the run.
    wants_a_good_round : bool
        Whether a run all of whose rounds were lost ends with an error, too.
    """

    client_of: Mapping[int, int]
    dealt: bool = True
    asks_at_the_end: bool = False
    min_clients: int = 1
    deadline_seconds: float = 60.0
    lost_rounds: int = 3
    wants_a_good_round: bool = True

    @abstractmethod
    def start(
        self, folder: RunFolder, committed: int, states: Mapping[int, Version] | None
    ) -> SimulationBackend:
        """Start what makes the first model and tests on the server."""

    @abstractmethod
    def grid(self, folder: RunFolder, backend: Backend) -> RoundGrid:
        """Return the grid of the clients."""

    @abstractmethod
    def held(self, client_id: int) -> tuple[int, int]:
        """Return how many labeled and unlabeled samples a client has."""

    def kept(self) -> dict[str, Any]:
        """Return JSON values that a checkpoint keeps of the clients; the default keeps none."""
        return {}

    @abstractmethod
    def begin(self, plan: RoundPlan) -> None:
        """Hear that a round begins."""

    @abstractmethod
    def evaluates_clients(self) -> bool:
        """Say whether clients test their own models in an exchange of their own."""

    @abstractmethod
    def goes_on(self, rows: Sequence[ClientRow]) -> bool:
        """Say whether the run goes on although some clients failed."""

    @abstractmethod
    def allowance(self) -> str:
        """Say which failures are allowed."""


def server_of(config: Settings, world: World, place: Place) -> Server:
    """Return what a strategy is told of its run.

    Parameters
    ----------
    config : mapping
        Resolved settings.
    world : World
        Data, client, layout of the model.
    place : Place
        Where the clients are.
    """
    return Server(
        seed=config["seed"],
        rounds=schedule_of(config),
        clients_per_round=config["per_round"],
        min_clients=place.min_clients,
        deadline_seconds=place.deadline_seconds,
        client_of=place.client_of,
        private=world.client.private(world.layout),
        buffers=world.layout.names(role="buffer"),
        layout=world.layout,
        num_classes=world.source.train.num_classes,
        feature_dim=world.feature_dim,
    )


def usable(rows: Sequence[ClientRow], needs: Collection[str] = ()) -> bool:
    """Say whether anybody sent what can be used, or said that there is nothing to send.

    Parameters
    ----------
    rows : sequence of ClientRow
        What became of the clients.
    needs : collection of str
        Terms that the strategy reads; where there are some, an update without a tensor is of no
        use, though its weight is above 0.
    """
    sent = [row for row in rows if row.status == "ok"]
    if sent and needs:
        return any(row.bytes_up for row in sent)
    return bool(sent) or any(row.status == "empty" for row in rows)


class Elsewhere(Place):
    """Clients that are not simulated: what the server does itself is done in this process.

    Parameters
    ----------
    config : mapping
        Resolved settings.
    world : World
        Strategy, client, and the server's own data.
    """

    dealt = False

    def __init__(self, config: Settings, world: World) -> None:
        self._config, self._world = config, world

    def start(
        self, folder: RunFolder, committed: int, states: Mapping[int, Version] | None
    ) -> SimulationBackend:
        """Start the worker that makes the first model and tests on the server."""
        return build_server_backend(self._config, self._world, folder, committed)


class Simulated(Place):
    """Clients that the backend simulates.

    Parameters
    ----------
    config : mapping
        Resolved settings.
    world : World
        Data, federation, population.
    """

    def __init__(self, config: Settings, world: World) -> None:
        self._config, self._world = config, world
        self.wants_a_good_round = config["max_client_failures"] < 1
        self.client_of = {FIRST_NODE_ID + i: i for i in range(config["clients"])}

    def start(
        self, folder: RunFolder, committed: int, states: Mapping[int, Version] | None
    ) -> SimulationBackend:
        """Start workers."""
        return build_backend(self._config, self._world, folder, committed, states)

    def grid(self, folder: RunFolder, backend: Backend) -> CohortGrid:
        """Return a grid over all clients of the federation."""
        return CohortGrid(range(self._config["clients"]), backend)

    def held(self, client_id: int) -> tuple[int, int]:
        """Return how many labeled and unlabeled samples a client has."""
        federation = self._world.federation
        return int(federation.labeled.sizes[client_id]), int(federation.unlabeled.sizes[client_id])

    def begin(self, plan: RoundPlan) -> None:
        """Do nothing: nothing has to be told to simulated clients."""

    def evaluates_clients(self) -> bool:
        """Say whether clients test their own models in an exchange of their own."""
        return evaluates_clients(self._config, self._world.client)

    def goes_on(self, rows: Sequence[ClientRow]) -> bool:
        """Say whether few enough failed; all failed never goes on."""
        failed = sum(row.status == "failed" for row in rows)
        allowed = float(self._config["max_client_failures"]) * len(rows)
        return not failed or (failed <= allowed and failed < len(rows))

    def allowance(self) -> str:
        """Say which failures are allowed."""
        return f"a share of {self._config['max_client_failures']:g}"
