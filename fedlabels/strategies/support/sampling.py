"""Which clients take part: drawn by client_id with the run's seed, and never an endless wait."""

import logging
import time
from collections.abc import Iterable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedlabels.errors import RunError
from fedlabels.rounds.flower_compat import Run, pulled_ids
from fedlabels.seeds import generator

LOG = logging.getLogger(f"fedlabels.{__name__}")
_POLL_SECONDS = 0.5


def connected_nodes(grid: Grid, *, wanted: int, minimum: int, deadline_seconds: float) -> list[int]:
    """Return the connected nodes once there are enough.

    Parameters
    ----------
    grid : flwr.serverapp.Grid
        Where the nodes connect.
    wanted : int
        Returns at once when so many are there.
    minimum : int
        Enough when the deadline has passed.
    deadline_seconds : float
        How long to wait, >= 0.

    Returns
    -------
    list of int
        Node ids, ascending, at least ``minimum``.

    Raises
    ------
    RunError
        If fewer than ``minimum`` are connected at the deadline.
    """
    end, announced = time.monotonic() + deadline_seconds, False
    while True:
        nodes = sorted(grid.get_node_ids())
        left = end - time.monotonic()
        if len(nodes) >= max(wanted, minimum) or (left <= 0 and len(nodes) >= minimum):
            return nodes
        if left <= 0:
            raise RunError(
                f"{len(nodes)} clients were connected after {deadline_seconds:g} s, at least"
                f" {minimum} are needed: start more, wait longer or lower the minimum"
            )
        if not announced:
            LOG.info("%d of %d clients are there; waiting up to %.0f s", len(nodes), wanted, left)
            announced = True
        time.sleep(min(_POLL_SECONDS, left))


def draw(candidates: list[int], count: int | None, *, seed: int, round_index: int) -> list[int]:
    """Draw clients without replacement.

    Parameters
    ----------
    candidates : list of int
        In the order of their client_id.
    count : int or None
        How many; None, or more than there are, takes all.
    seed : int
        The run's seed, >= 0.
    round_index : int
        Round, from 1.

    Returns
    -------
    list of int
        In the candidates' order.

    Examples
    --------
    >>> draw([5, 6, 7], None, seed=0, round_index=1)
    [5, 6, 7]
    """
    if count is None or count >= len(candidates):
        return list(candidates)
    rng = generator(seed, "sample", round_index)
    places = rng.choice(len(candidates), size=count, replace=False)
    return [candidates[place] for place in sorted(places.tolist())]


class GridBefore(Grid):
    """A grid that stands before another one and passes everything on.

    Parameters
    ----------
    grid : flwr.serverapp.Grid
        The grid behind it.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def get_node_ids(self) -> Iterable[int]:
        """Pass on."""
        return self._grid.get_node_ids()

    def set_run(self, run: Run) -> None:
        """Pass on."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run of the grid behind."""
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Pass on."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Pass on."""
        return self._grid.push_messages(messages)

    def pull_messages(  # type: ignore[override]  # as since Flower 1.43
        self,
        reply_to_message_ids: Iterable[str] | None = None,
        *,
        message_ids: Iterable[str] | None = None,
    ) -> Iterable[Message]:
        """Pass on, by position: every Flower knows the messages so."""
        ids = pulled_ids(reply_to_message_ids, message_ids)
        return self._grid.pull_messages(*([] if ids is None else [ids]))

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Pass on."""
        return self._grid.send_and_receive(messages, timeout=timeout)


class SampledGrid(GridBefore):
    """A grid that shows only the sampled nodes, so that Flower's own sampling takes them all.

    Parameters
    ----------
    grid : flwr.serverapp.Grid
        The grid behind it; everything else is passed on.
    nodes : list of int
        The sampled nodes.
    """

    def __init__(self, grid: Grid, nodes: list[int]) -> None:
        super().__init__(grid)
        self._nodes = nodes

    def get_node_ids(self) -> list[int]:
        """Return the sampled nodes."""
        return list(self._nodes)
