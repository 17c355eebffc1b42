"""The server's view of real devices: who is there, what was sent, what came back, and in time.

`DeviceGrid` stands between a strategy and Flower's grid. It learns which client a node is, adds
what devices must know to every message, waits no longer than a deadline, and lets no reply through
that does not fit: a bad update is counted and dropped.
"""

from fedlabels import telemetry

telemetry.disable()  # before Flower is imported

# ruff: noqa: E402
import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedlabels import wire
from fedlabels.errors import WireError
from fedlabels.simulation.flower_compat import LazyArray, error_reply, peek
from fedlabels.simulation.grid import RoundGrid
from fedlabels.simulation.job import Arrays, ClientRow, JobResult, Need
from strategies.support.replies import Expected, Limits, check_uplink
from strategies.support.sampling import GridBefore

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Held:
    """What a device said of its data.

    Parameters
    ----------
    labeled, unlabeled, test : int
        Samples.
    """

    labeled: int = 0
    unlabeled: int = 0
    test: int = 0


@dataclass(frozen=True)
class Patience:
    """How long the server waits, in seconds, > 0.

    Parameters
    ----------
    describe : float
        For a new node to say who it is.
    round : float
        For the replies of an exchange; who is later has failed in this round.
    """

    describe: float = 120.0
    round: float = 3600.0


@dataclass
class Fleet:
    """The devices that were met.

    Parameters
    ----------
    client_of : dict of int to int
        Node id -> client_id.
    held : dict of int to Held
        By client_id.
    """

    client_of: dict[int, int] = field(default_factory=dict)
    held: dict[int, Held] = field(default_factory=dict)


class DeviceGrid(GridBefore, RoundGrid):
    """Grid over the devices that have said who they are.

    Parameters
    ----------
    grid : flwr.serverapp.Grid
        Flower's.
    spec : str
        What every device must know; `DeviceSpec.dumps`.
    fleet : Fleet
        Filled with who is met.
    patience : Patience
        How long to wait.
    limits : Limits
        Bounds of an update.

    Attributes
    ----------
    needs : mapping of str to {"sum", "each"}
        Set by the run loop; devices always send every term.
    keep : tuple of str
        Set by the run loop; nothing is kept of devices.
    last : list of JobResult
        One, with a row a device, of the latest exchange.
    expected : callable or None
        Term -> arrays that it must be like; set by the run loop from the strategy.
    evaluate : bool
        Whether devices test the received model in the next exchange.
    kept_from : int
        Oldest round that this server may go back to.
    tested : mapping of str to Arrays
        Payloads that only that test needs.
    """

    def __init__(
        self, grid: Grid, spec: str, fleet: Fleet, patience: Patience, limits: Limits
    ) -> None:
        super().__init__(grid)
        self._spec, self._fleet = spec, fleet
        self._patience, self._limits = patience, limits
        self._refused: dict[int, str] = {}
        self._round = 0
        self.needs: Mapping[str, Need] = {}
        self.keep: tuple[str, ...] = ()
        self.last: list[JobResult] = []
        self.expected: Expected | None = None
        self.evaluate = False
        self.kept_from = 0
        self.tested: Mapping[str, Arrays] = {}

    # ---- Flower's interface

    def get_node_ids(self) -> list[int]:
        """Return the connected nodes that are known, one a client, after asking the new ones."""
        connected = sorted(self._grid.get_node_ids())
        for gone in set(self._fleet.client_of) - set(connected):
            LOG.warning("client %d is gone (node %d)", self._fleet.client_of.pop(gone), gone)
        for gone in set(self._refused) - set(connected):
            del self._refused[gone]
        new = [n for n in connected if n not in self._fleet.client_of and n not in self._refused]
        if new:
            self._meet(new)
        return sorted(self._fleet.client_of)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Send messages and return a reply to each, in order.

        Parameters
        ----------
        messages : iterable of flwr.app.Message
            At most one for each node.
        timeout : float or None
            Seconds; None waits as long as was set for a round.

        Returns
        -------
        list of Message
            Errors stand for devices that failed, were late, or sent what does not fit.
        """
        sent = list(messages)
        if not sent:
            self.last = []
            return []
        first = wire.decode_round(sent[0].content)
        committed = first - 1 if first != self._round else first
        self._round = first
        task = wire.Task(self._spec, committed, self.kept_from, self.evaluate)
        answers = self._ask(sent, task, timeout or self._patience.round)
        rows, out = list[ClientRow](), list[Message]()
        for message in sent:
            row, reply = self._judged(message, answers.get(message.metadata.message_id))
            if row.error:
                LOG.warning("round %d, client %d: %s", first, row.client_id, row.error)
            rows.append(row)
            out.append(reply)
        self.last = [JobResult(sorted(rows, key=lambda row: row.client_id))]
        return out

    # ---- what is behind it

    def _ask(
        self, messages: Sequence[Message], task: wire.Task, timeout: float
    ) -> dict[str, Message]:
        """Send messages with what devices must know, and return the replies by message id."""
        record, made = wire.encode_task(task), dict[int, RecordDict]()
        plain: dict[int, ArrayRecord] = {}
        extra = {}
        if task.evaluate:
            extra = {wire.TESTED + name: wire.to_record(a) for name, a in self.tested.items()}
        for message in messages:
            content = message.content
            if id(content) not in made:
                made[id(content)] = RecordDict({**content, wire.DEVICE: record, **extra})
                for key, arrays in content.array_records.items():
                    made[id(content)][key] = _plain(arrays, plain)
            message.content = made[id(content)]
        began = time.monotonic()
        replies = list(self._grid.send_and_receive(messages, timeout=timeout))
        what, spent = messages[0].metadata.message_type, time.monotonic() - began
        LOG.info("%s: %d of %d devices answered, %.1f s", what, len(replies), len(messages), spent)
        return {reply.metadata.reply_to_message_id: reply for reply in replies}

    def _judged(self, message: Message, reply: Message | None) -> tuple[ClientRow, Message]:
        """Say what became of one device; a reply that cannot be used becomes an error."""
        client_id = self._fleet.client_of[message.metadata.dst_node_id]
        row = ClientRow(client_id, "failed", bytes_down=_bytes(message.content))
        if reply is None:
            row.error = f"no reply within {self._patience.round:g} s"
            return row, error_reply(message, row.error)
        if reply.has_error():
            row.error = f"Flower: {reply.error.reason or reply.error.code}"
            return row, error_reply(message, row.error)
        row.bytes_up = _bytes(reply.content)
        said = wire.decode_said(reply.content)
        if said.note:
            LOG.warning("client %d: %s", client_id, said.note)
        try:
            if said.error:
                row.error = said.error
                raise WireError(said.error)
            row.status = "rejected"
            up = check_uplink(reply.content, self.expected or _anything, self._limits)
            row.status = "ok" if up.weight > 0 and up.terms else "empty"
            row.weight, row.metrics = up.weight, dict(up.metrics)
            return row, reply
        except WireError as error:
            row.error = str(error)
            return row, error_reply(message, row.error)

    def _meet(self, nodes: Sequence[int]) -> None:
        """Ask new nodes who they are; one that cannot say is left alone until it comes back."""
        content = wire.encode_down(wire.Downlink(0, 0, {}))
        asked = [Message(content, node, "query") for node in nodes]
        answers = self._ask(asked, wire.Task(self._spec, 0, 0, False), self._patience.describe)
        for message in asked:
            node, reply = message.metadata.dst_node_id, answers.get(message.metadata.message_id)
            problem = self._met(node, reply)
            if problem is not None:
                self._refused[node] = problem
                LOG.error("node %d cannot take part: %s", node, problem)

    def _met(self, node: int, reply: Message | None) -> str | None:
        """Note who a node is; return what is wrong."""
        if reply is None:
            return f"it did not say who it is within {self._patience.describe:g} s"
        if reply.has_error():
            return f"Flower: {reply.error.reason or reply.error.code}"
        said = wire.decode_said(reply.content)
        if said.error or said.client_id is None:
            return said.error or "it does not say which client it is"
        for other, client_id in list(self._fleet.client_of.items()):
            if client_id == said.client_id:  # restarted, and Flower has not missed the old node yet
                LOG.warning("client %d is now node %d, no longer %d", client_id, node, other)
                del self._fleet.client_of[other]
                self._refused[other] = f"client {client_id} came back as another node"
        held = Held(*(said.counts.get(name, 0) for name in ("labeled", "unlabeled", "test")))
        self._fleet.client_of[node] = said.client_id
        self._fleet.held[said.client_id] = held
        if said.note:
            LOG.warning("client %d: %s", said.client_id, said.note)
        LOG.info(
            "client %d has joined: %d labeled, %d unlabeled, %d test samples",
            said.client_id, held.labeled, held.unlabeled, held.test,
        )  # fmt: skip
        return None


def _anything(term: str) -> Arrays | None:
    return None


def _plain(value: ArrayRecord, made: dict[int, ArrayRecord]) -> ArrayRecord:
    """Return a record whose arrays are bytes, as Flower's transport wants them."""
    if not any(isinstance(array, LazyArray) for array in value.values()):
        return value
    if id(value) not in made:
        made[id(value)] = wire.to_record(peek(value))
    return made[id(value)]


def _bytes(content: RecordDict) -> int:
    """Return the bytes of all arrays of a message, without what transport adds."""
    arrays = (array for record in content.array_records.values() for array in record.values())
    return sum(np.dtype(array.dtype).itemsize * math.prod(array.shape) for array in arrays)
