"""A Flower grid whose nodes are simulated clients: messages become jobs of a backend.

Any Flower strategy runs on it, with ``Strategy.start`` as well. All messages that share their
records are one job, so the backend gets a cohort and not single clients; what is shared is
decoded once.
"""

from fedlabels import telemetry

telemetry.disable()  # before Flower is imported

# ruff: noqa: E402
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from flwr.app import ArrayRecord, Message, RecordDict

from fedlabels.cohort.clock import phase
from fedlabels.errors import ConfigError, RunError, WireError
from fedlabels.rounds import wire
from fedlabels.rounds.flower_compat import (
    Run,
    error_reply,
    identify,
    lazy_record,
    peek,
    pulled_ids,
    set_message_id,
)
from fedlabels.rounds.grid import RoundGrid
from fedlabels.rounds.job import (
    Arrays,
    Backend,
    ClientRow,
    EachTerm,
    Job,
    JobResult,
    Need,
    Task,
)
from fedlabels.rounds.replies import Replies

FIRST_NODE_ID = 1000


class CohortGrid(RoundGrid):
    """Grid over the clients of a federation.

    Parameters
    ----------
    client_ids : iterable of int
        The clients that can be sampled, each >= 0 and once.
    backend : Backend
        Runs the jobs.

    Attributes
    ----------
    needs : mapping of str to {"sum", "each"}
        How terms come back; set by the run loop. The default, every client's model, is what stock
        strategies want. An evaluation has no terms.
    keep : tuple of str
        Terms of which every client's value comes back beside that; set by the run loop.
    last : list of JobResult
        Results of the latest :meth:`send_and_receive`.

    Raises
    ------
    ConfigError
        If there is no client, or a client_id is negative or given twice.
    """

    def __init__(self, client_ids: Iterable[int], backend: Backend) -> None:
        self._clients = sorted(client_ids)
        different = len(set(self._clients)) == len(self._clients)
        if not self._clients or self._clients[0] < 0 or not different:
            raise ConfigError("client_ids must be different, >= 0 and at least one")
        self._backend = backend
        self._run: Run | None = None
        self._sent = 0
        self._waiting: dict[str, Message] = {}
        self.needs: Mapping[str, Need] = {wire.MODEL: "each"}
        self.keep: tuple[str, ...] = ()
        self.last: list[JobResult] = []
        identify()

    def set_run(self, run: Run) -> None:
        """Set the run; a simulation needs none."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that was set."""
        if self._run is None:
            raise RunError("this simulated grid belongs to no Flower run; call set_run first")
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Make a message; Flower deprecates this in favor of ``Message(...)``."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Return the node ids, by client_id."""
        return [FIRST_NODE_ID + client_id for client_id in self._clients]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Run the messages and keep their replies until they are pulled."""
        sent = list(messages)
        for reply in self.send_and_receive(sent):
            self._waiting[reply.metadata.reply_to_message_id] = reply
        return [message.metadata.message_id for message in sent]

    def pull_messages(  # type: ignore[override]  # as since Flower 1.43
        self,
        reply_to_message_ids: Iterable[str] | None = None,
        *,
        message_ids: Iterable[str] | None = None,
    ) -> list[Message]:
        """Return the replies to pushed messages, each once; None for all of them."""
        ids = pulled_ids(reply_to_message_ids, message_ids)
        names = list(self._waiting) if ids is None else ids
        return [self._waiting.pop(name) for name in names if name in self._waiting]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Replies:
        """Let the clients work and return their replies, in message order.

        Parameters
        ----------
        messages : iterable of flwr.app.Message
            At most one for each client.
        timeout : float or None
            Not used: a backend answers for every client.

        Returns
        -------
        Replies
            One reply a message; with every term needed as ``"each"``, clients that made no term
            are left out. Failed and rejected clients answer with an error.

        Raises
        ------
        WireError
            If a message is not of the agreed form, or its node is unknown or asked twice.
        """
        sent = list(messages)
        self.last = []
        self._name(sent)
        memory: dict[int, Arrays] = {}

        def read(record: ArrayRecord) -> Arrays:
            # The messages keep the records alive, so an identity names one record.
            if id(record) not in memory:
                memory[id(record)] = _read(record)
            return memory[id(record)]

        exchanged: list[tuple[list[Message], JobResult, Mapping[str, Need]]] = []
        for group in _groups(sent):
            needs = _needs(group[0], self.needs)
            with phase("ship"):
                downs = _downs(group, read)
                job = _job(group, downs, needs, self.keep if needs else ())
                job = replace(job, reduces=self.reduces)
            result = self._backend.run(job)
            self.last.append(result)
            _check_answered(group, result)
            exchanged.append((group, result, needs))
        replies = Replies(partial(_in_order, sent, exchanged), self.last)
        self.kept = replies.kept
        return replies

    def _name(self, messages: Sequence[Message]) -> None:
        nodes = [message.metadata.dst_node_id for message in messages]
        unknown = set(nodes) - set(self.get_node_ids())
        if unknown or len(set(nodes)) < len(nodes):
            raise WireError(
                f"every message must go to another node of this grid; unknown nodes:"
                f" {sorted(unknown)}, messages: {len(nodes)}, nodes: {len(set(nodes))}"
            )
        for message in messages:
            self._sent += 1
            set_message_id(message, f"message-{self._sent}")


@dataclass(frozen=True)
class _Rows:
    """Values of every client, found by client_id."""

    terms: Mapping[str, EachTerm]
    position: Mapping[str, Mapping[int, int]]

    @classmethod
    def of(cls, each: Mapping[str, EachTerm]) -> "_Rows":
        places = {n: {c: i for i, c in enumerate(t.client_ids)} for n, t in each.items()}
        return cls(each, places)

    def uplink(self, row: ClientRow) -> wire.Uplink:
        terms: dict[str, wire.UpTerm] = {}
        for name, term in self.terms.items():
            index = self.position[name].get(row.client_id)
            if index is not None:
                terms[name] = wire.UpTerm(term.row(index), term.weights[index])
        return wire.Uplink(terms, row.weight, row.metrics)


def _client_of(message: Message) -> int:
    return message.metadata.dst_node_id - FIRST_NODE_ID


def _groups(messages: Iterable[Message]) -> Iterator[list[Message]]:
    """Split by exchange and shared records; groups and their members by client_id."""
    groups: dict[object, list[Message]] = {}
    for message in sorted(messages, key=_client_of):
        key = (message.metadata.message_type, wire.shared_identity(message.content))
        groups.setdefault(key, []).append(message)
    yield from groups.values()


def _read(record: ArrayRecord) -> Arrays:
    try:
        return peek(record)
    except (ValueError, TypeError, EOFError, OSError):
        return wire.from_record(record)  # names the array that is damaged


def _downs(group: Sequence[Message], read: Callable[[ArrayRecord], Arrays]) -> list[wire.Downlink]:
    """Decode the messages of a group: what they share only once."""
    first = wire.decode_down(group[0].content, read=read)
    return [first, *(replace(first, own=wire.decode_own(m.content, read=read)) for m in group[1:])]


def _in_order(
    sent: Sequence[Message],
    exchanged: Sequence[tuple[Sequence[Message], JobResult, Mapping[str, Need]]],
) -> list[Message]:
    """Make the replies to some messages, in their order; only strategies of others ask for them."""
    with phase("ship_back"):
        answers: dict[int, Message] = {}
        for group, result, needs in exchanged:
            answers.update(_answers(group, result, needs))
        return [answers[i] for i in map(_client_of, sent) if i in answers]


def _needs(message: Message, needs: Mapping[str, Need]) -> Mapping[str, Need]:
    return {} if message.metadata.message_type.startswith("evaluate") else needs


def _job(
    group: Sequence[Message],
    downs: Sequence[wire.Downlink],
    needs: Mapping[str, Need],
    keep: tuple[str, ...],
) -> Job:
    tasks = (
        Task(_client_of(message), down.own) for message, down in zip(group, downs, strict=True)
    )
    return Job(
        exchange=group[0].metadata.message_type.rpartition(".")[2],
        round=downs[0].round,
        rounds=downs[0].rounds,
        tasks=tuple(tasks),
        shared=downs[0].shared,
        settings=downs[0].settings,
        needs=needs,
        keep=keep,
    )


def _check_answered(group: Sequence[Message], result: JobResult) -> None:
    asked = sorted(_client_of(message) for message in group)
    if asked != [row.client_id for row in result.rows]:
        raise RunError(
            f"backend answered for clients {[r.client_id for r in result.rows]}, asked were {asked}"
        )


def _answers(
    group: Sequence[Message], result: JobResult, needs: Mapping[str, Need]
) -> dict[int, Message]:
    """Make the replies; a client without terms gets none when every term is wanted singly."""
    asked = {_client_of(message): message for message in group}
    skip_empty = bool(needs) and all(need == "each" for need in needs.values())
    values = _Rows.of(result.each)
    answers: dict[int, Message] = {}
    for row in result.rows:
        message = asked[row.client_id]
        if row.status in ("failed", "rejected"):
            reason = f"client {row.client_id} {row.status}: {row.error or 'no reason given'}"
            answers[row.client_id] = error_reply(message, reason)
        elif not (row.status == "empty" and skip_empty):
            content = wire.encode_up(values.uplink(row), write=lazy_record)
            answers[row.client_id] = Message(content, reply_to=message)
    return answers
