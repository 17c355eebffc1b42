"""Learns which client a connected node is, beside the rounds, and who may take part.

Questions are sent in one look at the connected nodes and their answers collected in later ones. A
node that was refused is told why, and asked again after a pause that grows.
"""

from fedlabels import telemetry

telemetry.disable()  # before Flower is imported

# ruff: noqa: E402
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from flwr.app import Message
from flwr.serverapp import Grid

from fedlabels.deploy.bindings import Bindings, Claim
from fedlabels.deploy.pulls import Pulls
from fedlabels.deploy.spec import LARGEST
from fedlabels.errors import one_line
from fedlabels.rounds import wire

LOG = logging.getLogger(__name__)
PAUSE, LONGEST = 60.0, 3600.0
"""Seconds until a refused node is asked again, and the most that doubling makes of them."""
_POLL = 0.2  # seconds between two looks at pending answers

Prepare = Callable[[Sequence[Message], str, float], None]


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


@dataclass
class Fleet:
    """The devices that were met.

    Parameters
    ----------
    client_of : dict of int to int
        Node id -> client_id, of those that are connected.
    held : dict of int to Held
        By client_id.
    """

    client_of: dict[int, int] = field(default_factory=dict)
    held: dict[int, Held] = field(default_factory=dict)


@dataclass(frozen=True)
class _Joining:
    """What a device said, if it may take part."""

    claim: Claim
    held: Held
    note: str


@dataclass
class _Refusal:
    """Why a device does not take part."""

    problem: str
    silent: bool
    tries: int
    until: float  # by the monotonic clock
    joining: _Joining | None = None


class Reception:
    """Meets nodes.

    Parameters
    ----------
    grid : flwr.serverapp.Grid
        Flower's.
    fleet : Fleet
        Filled with who may take part.
    bindings : Bindings
        Who is which client.
    prepare : callable
        Gets messages, why their receivers are refused (empty: they are asked who they are), and
        the seconds that they are good for; adds what devices must know.
    seconds : float
        Deadline for an answer, > 0.
    """

    def __init__(
        self, grid: Grid, fleet: Fleet, bindings: Bindings, prepare: Prepare, seconds: float
    ) -> None:
        self._grid, self._fleet, self._bindings = grid, fleet, bindings
        self._prepare, self._seconds = prepare, seconds
        self._pulls = Pulls(grid)
        self._keys: Mapping[int, str] = {}
        self._asked: dict[str, tuple[int, float]] = {}  # message id -> node, deadline
        self._refusals: dict[str, _Refusal] = {}  # by key: a restart is not a new device

    def look(self, least: int) -> None:
        """Ask nodes that are new, hear those that have answered.

        Parameters
        ----------
        least : int
            Fewest known clients that a round can begin with; only below it answers are waited for.
        """
        self._connected()
        self._free()
        self._collect()
        self._settle()
        self._ask()
        self._collect()
        while len(self._fleet.client_of) < least and self._asked:
            time.sleep(_POLL)
            self._collect()

    def doubt(self, node: int) -> None:
        """Ask a node again who it is, because it answered as somebody else."""
        self._fleet.client_of.pop(node, None)

    def _connected(self) -> None:
        nodes = {info.node_id: info.public_key for info in self._grid.get_nodes()}
        # a grid that knows no keys has one node for each device
        self._keys = {
            node: hashlib.sha256(key).hexdigest()[:32] if key else f"node:{node}"
            for node, key in sorted(nodes.items())
        }
        for gone in set(self._fleet.client_of) - set(self._keys):
            LOG.warning("client %d is gone (node %d)", self._fleet.client_of.pop(gone), gone)
        present = set(self._keys.values())
        for key, refusal in self._refusals.items():
            if key not in present and not refusal.silent:
                refusal.until = 0.0  # it may come back mended

    def _free(self) -> None:
        for client_id in self._bindings.freed():
            LOG.warning("client %d was freed", client_id)
            for node, other in list(self._fleet.client_of.items()):
                if other == client_id:
                    text = f"client {client_id} was freed for another device"
                    self._refuse(node, text, told=True)

    def _ask(self) -> None:
        now = time.monotonic()
        pending = {node for node, _ in self._asked.values()}
        content = wire.encode_down(wire.Downlink(0, 0, {}))
        messages = []
        for node, key in self._keys.items():
            refusal = self._refusals.get(key)
            due = refusal is None or now >= refusal.until
            if due and node not in self._fleet.client_of and node not in pending:
                messages.append(Message(content, node, "query"))
        self._send(messages, "")

    def _send(self, messages: Sequence[Message], refused: str) -> None:
        if not messages:
            return
        self._prepare(messages, refused, self._seconds)
        try:
            ids = list(self._grid.push_messages(messages))
        except NotImplementedError:  # a grid that only exchanges
            replies = self._grid.send_and_receive(messages, timeout=self._seconds)
            answers = {reply.metadata.reply_to_message_id: reply for reply in replies}
            for message in () if refused else messages:
                answer = answers.get(message.metadata.message_id)
                self._answered(message.metadata.dst_node_id, answer)
            return
        if not refused:
            until = time.monotonic() + self._seconds
            for message, id_ in zip(messages, ids, strict=False):
                if id_:  # Flower gives none for a node that went away meanwhile
                    self._asked[id_] = (message.metadata.dst_node_id, until)

    def _collect(self) -> None:
        if not self._asked:
            return
        replies = self._pulls.look(self._asked)
        found = {reply.metadata.reply_to_message_id: reply for reply in replies}
        now = time.monotonic()
        # by node, so that it does not depend on who was quicker in the same moment
        for id_, (node, until) in sorted(self._asked.items(), key=lambda item: item[1][0]):
            if id_ in found or now >= until or node not in self._keys:
                del self._asked[id_]
                if node in self._keys:
                    self._answered(node, found.get(id_))

    def _answered(self, node: int, reply: Message | None) -> None:
        if reply is None:
            text = f"it did not say who it is within {self._seconds:g} s"
            self._refuse(node, text, silent=True)
        elif reply.has_error():
            text = f"Flower: {one_line(reply.error.reason or str(reply.error.code))}"
            self._refuse(node, text, silent=True)
        else:
            try:
                remark = wire.decode_remark(reply.content)
            except Exception as error:  # a stranger's answer must not end the run
                remark = wire.Remark(error=f"its answer cannot be read ({type(error).__name__})")
            if remark.client_id is not None and remark.client_id > LARGEST:
                remark = wire.Remark(error=f"it says client {remark.client_id}, above {LARGEST}")
            if remark.error or remark.client_id is None:
                self._refuse(node, remark.error or "it does not say which client it is")
                return
            mark = hashlib.sha256(remark.mark.encode()).hexdigest() if remark.mark else ""
            claim = Claim(remark.client_id, self._keys[node], mark)
            counts = (remark.counts.get(name, 0) for name in ("labeled", "unlabeled", "test"))
            self._admit(node, _Joining(claim, Held(*counts), remark.note))

    def _settle(self) -> None:
        """Let refused devices in whose client has become free."""
        for node, key in self._keys.items():
            refusal = self._refusals.get(key)
            joining = None if refusal is None else refusal.joining
            if joining is not None and self._problem(node, joining.claim) is None:
                self._admit(node, joining)

    def _problem(self, node: int, claim: Claim) -> str | None:
        others = [n for n, c in self._fleet.client_of.items() if c == claim.client_id and n != node]
        return self._bindings.problem(claim, present=bool(others))

    def _admit(self, node: int, joining: _Joining) -> None:
        claim, held = joining.claim, joining.held
        problem = self._problem(node, claim)
        if problem is not None:
            self._refuse(node, problem, joining=joining, told=True)
            return
        for other, client_id in list(self._fleet.client_of.items()):
            if client_id == claim.client_id and other != node:
                self._refuse(other, f"client {client_id} came back as another node", told=True)
        self._bindings.take(claim)
        self._refusals.pop(claim.key, None)
        self._fleet.client_of[node] = claim.client_id
        self._fleet.held[claim.client_id] = held
        if joining.note:
            LOG.warning("client %d: %s", claim.client_id, joining.note)
        LOG.info(
            "client %d has joined: %d labeled, %d unlabeled, %d test samples",
            claim.client_id, held.labeled, held.unlabeled, held.test,
        )  # fmt: skip

    def _refuse(
        self,
        node: int,
        problem: str,
        *,
        silent: bool = False,
        joining: _Joining | None = None,
        told: bool = False,
    ) -> None:
        self._fleet.client_of.pop(node, None)
        key = self._keys[node]
        before = self._refusals.get(key)
        tries = 1 if before is None else before.tries + 1
        until = time.monotonic() + min(PAUSE * 2.0 ** min(tries - 1, 30), LONGEST)
        self._refusals[key] = _Refusal(problem, silent, tries, until, joining)
        if self._bindings.refuse(key, problem, node):
            LOG.error("node %d cannot take part: %s", node, problem)
            if told:
                content = wire.encode_down(wire.Downlink(0, 0, {}))
                self._send([Message(content, node, "query")], problem)
