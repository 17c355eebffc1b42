"""The server's view of real devices: who is there, what was sent, what came back, and in time.

`DeviceGrid` stands between a strategy and Flower's grid. It adds what devices must know to every
message, waits no longer than a deadline, and lets no reply through that does not fit: a bad update
is counted and dropped.
"""

from fedlabels import telemetry

telemetry.disable()  # before Flower is imported

# ruff: noqa: E402
import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedlabels.deploy.bindings import Bindings
from fedlabels.deploy.pulls import Pulls
from fedlabels.deploy.reception import Fleet, Held, Reception
from fedlabels.errors import WireError, one_line
from fedlabels.rounds import wire
from fedlabels.rounds.flower_compat import LazyArray, error_reply, lazy_record, peek
from fedlabels.rounds.grid import RoundGrid
from fedlabels.rounds.job import Arrays, ClientRow, JobResult, Need, num_bytes
from fedlabels.rounds.judge import MAX_WEIGHT, Form, Votes, difference, vote, winners
from fedlabels.strategies.support.replies import (
    SLACK,
    Due,
    Expected,
    Limits,
    ToldError,
    check_uplink,
)
from fedlabels.strategies.support.sampling import GridBefore

LOG = logging.getLogger(__name__)


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
    bindings : Bindings or None
        Who is which client; None begins with nobody.

    Attributes
    ----------
    least : int
        Fewest known clients that a round can begin with; only below it new ones are waited for.
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
    floored : frozenset of str
        Tensors that are never negative; set by whoever knows the model.
    """

    def __init__(
        self,
        grid: Grid,
        spec: str,
        fleet: Fleet,
        patience: Patience,
        limits: Limits,
        bindings: Bindings | None = None,
    ) -> None:
        super().__init__(grid)
        self._spec, self._fleet = spec, fleet
        self._patience, self._limits = patience, limits
        self._reception = Reception(
            grid, fleet, bindings or Bindings(), self._prepare_query, patience.describe
        )
        self._pulls = Pulls(grid)
        self._doubted: list[int] = []  # nodes that are no longer what they said they are
        self._round = 0
        self._pushed: set[str] = set()  # ids of the messages of the latest exchange
        self.least = 1
        self.needs: Mapping[str, Need] = {}
        self.keep: tuple[str, ...] = ()
        self.last: list[JobResult] = []
        self.expected: Expected | None = None
        self.evaluate = False
        self.kept_from = 0
        self.tested: Mapping[str, Arrays] = {}
        self.floored: frozenset[str] = frozenset()
        self._judgements: dict[int, tuple[wire.Uplink, dict[str, Form]]] = {}
        self._named: set[str] = set()

    # ---- Flower's interface

    def get_node_ids(self) -> list[int]:
        """Return the connected nodes that are known, one a client; new ones are asked."""
        for node in self._doubted:
            self._reception.doubt(node)
        self._doubted = []
        self._reception.look(self.least)
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
        self._judgements = {}
        for message in sent:
            row, reply = self._judged(message, answers.get(message.metadata.message_id))
            rows.append(row)
            out.append(reply)
        self._agree(sent, rows, out)
        for row in rows:
            if row.error:
                row.error = one_line(row.error)
                LOG.warning("round %d, client %d: %s", first, row.client_id, row.error)
        self.last = [JobResult(sorted(rows, key=lambda row: row.client_id))]
        return out

    # ---- what is behind it

    def _ask(
        self, messages: Sequence[Message], task: wire.Task, timeout: float
    ) -> dict[str, Message]:
        """Send messages with what devices must know, and return the replies by message id."""
        self._prepare(messages, task, timeout)
        began = time.monotonic()
        self._pushed = {id_ for id_ in self._grid.push_messages(messages) if id_}
        replies = self._pulls.gather(self._pushed, timeout)
        what, spent = messages[0].metadata.message_type, time.monotonic() - began
        LOG.info("%s: %d of %d devices answered, %.1f s", what, len(replies), len(messages), spent)
        return {reply.metadata.reply_to_message_id: reply for reply in replies}

    def _prepare(self, messages: Sequence[Message], task: wire.Task, timeout: float) -> None:
        """Add what devices must know; a message that nobody waits for any more is not handed out.

        Flower's own time to live is twelve hours: a device that was late once would work through
        all rounds that it missed, and be late in each.
        """
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
            message.metadata.ttl = timeout

    def _prepare_query(self, messages: Sequence[Message], refused: str, timeout: float) -> None:
        self._prepare(messages, wire.Task(self._spec, 0, 0, False, refused), timeout)

    def _judged(self, message: Message, reply: Message | None) -> tuple[ClientRow, Message]:
        """Say what became of one device; a reply that cannot be used becomes an error."""
        client_id = self._fleet.client_of[message.metadata.dst_node_id]
        row = ClientRow(client_id, "failed", bytes_down=_bytes(message.content))
        if reply is None:
            row.error = self._missing(message.metadata.message_id)
            return row, error_reply(message, row.error)
        if reply.has_error():
            row.error = f"Flower: {reply.error.reason or reply.error.code}"
            return row, error_reply(message, row.error)
        try:
            remark = wire.decode_remark(reply.content)
            if remark.note:
                LOG.warning("client %d: %s", client_id, remark.note)
            if remark.client_id not in (None, client_id):
                row.status = "rejected"
                raise ToldError(f"it answers as client {remark.client_id}")
            if remark.error:
                raise WireError(remark.error)
            row.status = "rejected"
            due, limits = self._due(message, client_id), self._limits_of(client_id)
            up, forms = check_uplink(reply.content, due, limits)
            row.bytes_up = sum(num_bytes(term.value) for term in up.terms.values())
            row.status = "ok" if up.weight > 0 and up.terms else "empty"
            row.weight, row.metrics = up.weight, dict(up.metrics)
            self._judgements[client_id] = up, forms
            return row, reply
        except Exception as error:  # whatever a device sends, the run goes on without it
            if isinstance(error, ToldError):
                self._doubted.append(message.metadata.dst_node_id)
            row.error = str(error) if isinstance(error, WireError) else f"{type(error).__name__}"
            return row, error_reply(message, row.error)

    def _missing(self, message_id: str) -> str:
        """Return why there is no reply to a message."""
        if message_id not in self._pushed:
            return "Flower did not take the message to it"
        if self._pulls.arriving(message_id):
            return f"its reply began to arrive and was not whole within {self._patience.round:g} s"
        return f"no reply within {self._patience.round:g} s"

    def _due(self, message: Message, client_id: int) -> Due:
        asked = message.metadata.message_type.partition(".")[0]
        needs = {} if asked == "evaluate" else self.needs
        tested = self.evaluate or asked == "evaluate"
        tests = self._held(client_id).test if tested else None
        return Due(needs, self.reduces, self.expected or _anything, self.floored, tests)

    def _held(self, client_id: int) -> Held:
        return self._fleet.held.get(client_id, Held())

    def _limits_of(self, client_id: int) -> Limits:
        """Return the limits of a device: where no number of examples is set, by what it holds."""
        if self._limits.examples is not None:
            return self._limits
        held = self._held(client_id)
        samples = max(1, held.labeled + held.unlabeled, held.test)
        return replace(self._limits, examples=min(SLACK * samples, MAX_WEIGHT))

    def _agree(
        self, sent: Sequence[Message], rows: list[ClientRow], replies: list[Message]
    ) -> None:
        """Keep of the good replies what was judged, and what most devices agree on."""
        votes: Votes = {}
        for client_id, (_, forms) in sorted(self._judgements.items()):
            vote(votes, client_id, forms)
        like = winners(votes)
        self._name_metrics()
        for place, row in enumerate(rows):
            if row.client_id not in self._judgements:
                continue
            try:
                replies[place].content = self._agreed(row.client_id, row, like)
            except WireError as error:
                rows[place] = ClientRow(
                    row.client_id, "rejected", str(error), bytes_down=row.bytes_down
                )
                replies[place] = error_reply(sent[place], str(error))

    def _agreed(self, client_id: int, row: ClientRow, like: Mapping[str, Form]) -> RecordDict:
        """Return a good reply as it was judged; of most devices it must have the form.

        Raises
        ------
        WireError
            If it has another one.
        """
        up, forms = self._judgements[client_id]
        for name, form in forms.items():
            if form != like[name]:
                raise WireError(f"term {name!r}: {difference(form, like[name])}")
        row.metrics = {k: v for k, v in up.metrics.items() if k in self._named}
        return wire.encode_up(replace(up, metrics=row.metrics), write=lazy_record)

    def _name_metrics(self) -> None:
        """Note the metrics that more than half of the devices report which report any.

        One device alone cannot make columns of its own. What tests found counts by itself, because
        not all devices have test samples.
        """
        self._named = {"device_loss", "device_accuracy"}
        for tested in (True, False):
            sent = [
                {name for name in up.metrics if name.startswith("device_") == tested}
                for up, _ in self._judgements.values()
            ]
            voters = sum(map(bool, sent))
            names = {name for one in sent for name in one}
            self._named |= {n for n in names if 2 * sum(n in one for one in sent) > voters}


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
