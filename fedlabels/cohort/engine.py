"""Runs a client's methods for others than one: one by one, as a stack, or as replayed graphs.

What went wrong is the caller's: errors are raised, or returned where others must not suffer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from fedlabels.cohort.client import Client
from fedlabels.cohort.cohort import Cohort, Nets
from fedlabels.cohort.data import Shard, Source
from fedlabels.cohort.device import scope
from fedlabels.cohort.graphed import GraphedCohort
from fedlabels.cohort.looped import LoopedCohort
from fedlabels.cohort.recorders import Lane, make_lanes
from fedlabels.cohort.stacked import StackedCohort
from fedlabels.cohort.tree import row, stack
from fedlabels.cohort.types import EMPTY, DataSpec, FitRequest, FitResult, Received, Tree
from fedlabels.errors import RunError

EXECUTIONS = ("looped", "stacked", "graphed")
PER_LANE = 4  # clients that a lane is given before any result is looked at


@dataclass(frozen=True)
class Member:
    """One client of a cohort: what is its own.

    Parameters
    ----------
    shard : Shard
        Who it is and which samples it holds.
    own, state : mapping of str to Tree
        Its payloads, and what it kept from earlier rounds.
    """

    shard: Shard
    own: Mapping[str, Tree] = field(default_factory=lambda: EMPTY)
    state: Mapping[str, Tree] = field(default_factory=lambda: EMPTY)


@dataclass(frozen=True)
class Made:
    """What a method returned for one client.

    Parameters
    ----------
    cohort : Cohort
        Which it ran in; holds the pseudo-labels.
    result : FitResult
        On the device, of the whole stack.
    row : int or None
        The client's place in the stack; None alone.
    """

    cohort: Cohort
    result: FitResult
    row: int | None = None

    @property
    def clients(self) -> int:
        """How many clients the values of the result are of."""
        return len(self.cohort)

    def take(self, value: Any) -> Any:
        """Return the client's part of a value of the result."""
        return value if self.row is None else row(value, self.row)


class Engine:
    """Runs clients of one kind on one device.

    Parameters
    ----------
    client : Client
    nets : Nets
        Of the client; they say on which device.
    source : Source
        Resident data, there.
    spec : DataSpec
    seed : int
        The run's seed.
    lanes : int
        Lanes of graphed execution, >= 1.
    make : callable
        Makes them when they are first needed.
    """

    def __init__(
        self,
        client: Client,
        nets: Nets,
        source: Source,
        spec: DataSpec,
        seed: int,
        lanes: int = 4,
        make: Callable[[torch.device, int], list[Lane]] | None = None,
    ) -> None:
        self.client, self.nets, self.device = client, nets, nets.device
        self._settings: dict[str, Any] = {
            "spec": spec, "nets": nets, "source": source, "seed": seed
        }  # fmt: skip
        self._make = make or make_lanes
        self._lanes: list[Lane] = []
        self._count = lanes
        self.window = PER_LANE * lanes
        """Clients that graphed execution takes at once."""

    def prepare(self) -> None:
        """Make the lanes of graphed execution, if there are none.

        Raises
        ------
        ConfigError
            If the device has no graphs.
        """
        if not self._lanes:
            self._lanes = self._make(self.device, self._count)

    def begin(self) -> None:
        """Begin a range of clients: what an earlier one recorded need not hold any more."""
        for lane in self._lanes:
            lane.begin()

    def cohort(self, shard: Shard | None = None, round_index: int = 0) -> LoopedCohort:
        """Return a cohort of one, such as for an evaluation of shared weights."""
        return LoopedCohort(
            **self._settings, round_index=round_index, shards=[Shard(0) if shard is None else shard]
        )

    def looped(self, request: FitRequest, member: Member) -> Made:
        """Run one client."""
        with scope(self.device):
            return self._alone(LoopedCohort, request, member)

    def stacked(self, request: FitRequest, members: Sequence[Member]) -> list[Made]:
        """Run clients as one; all have the same own payloads and state by name."""
        with scope(self.device):
            cohort = StackedCohort(
                **self._settings,
                round_index=request.round,
                shards=[member.shard for member in members],
                state=stack([dict(member.state) for member in members]),
            )
            own = stack([dict(member.own) for member in members])
            result = self._call(cohort, replace(request, own=Received("own payload", own)))
        return [Made(cohort, result, k) for k in range(len(members))]

    def graphed(self, request: FitRequest, members: Sequence[Member]) -> list[Made | Exception]:
        """Run clients side by side, each in a lane; the host waits for none of them.

        Parameters
        ----------
        members : sequence of Member
            ``window`` of them at most: the results of all are on the device together.

        Returns
        -------
        list of Made or Exception
            In order; the current stream may read the results.

        Raises
        ------
        ConfigError
            If the device has no graphs.
        """
        self.prepare()
        for lane in self._lanes:
            lane.follow()
        made = []
        for place, member in enumerate(members):
            lane = self._lanes[place % len(self._lanes)]
            with scope(self.device), lane.open():
                made.append(self._tried(lane, request, member))
        for lane in self._lanes:
            lane.join()
        return made

    def _tried(self, lane: Lane, request: FitRequest, member: Member) -> Made | Exception:
        try:
            return self._alone(GraphedCohort, request, member, lane=lane)
        except Exception as error:
            lane.forget()  # a recording that broke off holds nothing that can be trusted
            return error

    def _alone(
        self, kind: type[LoopedCohort], request: FitRequest, member: Member, **more: Any
    ) -> Made:
        cohort = kind(
            **self._settings,
            round_index=request.round,
            shards=[member.shard],
            state=member.state,
            **more,
        )
        asked = replace(request, own=Received("own payload", member.own))
        return Made(cohort, self._call(cohort, asked))

    def _call(self, cohort: Cohort, request: FitRequest) -> FitResult:
        method = getattr(self.client, "fit" if request.exchange == "train" else request.exchange)
        try:
            result: FitResult = method(cohort, request)
        except (Exception, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # sys.exit() in a client ends that client, not the run
            raise RunError(
                f"the client raised {type(error).__name__}({error}), which would end the whole"
                " program: raise an Exception instead"
            ) from error
        return result
