"""A Flower grid whose nodes are devices in this process, with everything that can go wrong."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Error, Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid

from fedlabels.data import load
from fedlabels.deploy.client_app import app
from fedlabels.rounds.flower_compat import Run, identify, set_message_id

Change = Callable[[Message, Message], Message | None]


class Loopback(Grid):
    """Nodes by id with their node configuration; ``change`` may spoil or drop replies.

    ``keys`` has the public keys of nodes, where SuperNodes have some.
    """

    def __init__(self, nodes: Mapping[int, Mapping[str, Any]], change: Change | None = None):
        self.nodes = dict(nodes)
        self.change = change or (lambda message, reply: reply)
        self.sent: list[Message] = []
        self.keys: dict[int, bytes] = {}
        self._waiting: dict[str, Message | None] = {}
        identify()

    def set_run(self, run: Run) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Run:
        raise NotImplementedError

    def create_message(self, *arguments: Any, **named: Any) -> Message:
        raise NotImplementedError

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        found = [self._waiting.pop(id_, None) for id_ in message_ids]
        return [reply for reply in found if reply is not None]

    def get_node_ids(self) -> list[int]:
        return list(self.nodes)

    def get_nodes(self) -> list[NodeInfo]:
        keys = self.keys
        return [NodeInfo(node_id=n, public_key=keys.get(n, b"")) for n in self.get_node_ids()]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        raise NotImplementedError  # Flower's waits for all of a reply that has begun to arrive

    def _push(self, message: Message) -> str:
        self.sent.append(message)
        id_ = f"message-{len(self.sent)}"
        set_message_id(message, id_)
        if message.metadata.dst_node_id in self.nodes:  # else it is gone
            self._waiting[id_] = self.change(message, self._reply(message))
        return id_

    def _reply(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        context = Context(1, node, dict(self.nodes[node]), RecordDict(), {})
        content = RecordDict(dict(message.content))  # what a device gets is its own
        mine = Message(content, node, message.metadata.message_type)
        set_message_id(mine, message.metadata.message_id)
        reply = app(mine, context)
        reply.metadata.__dict__["_src_node_id"] = node
        return reply


def error(message: Message, reason: str) -> Message:
    """Return what Flower makes of a dead node: an error that comes from the server."""
    return Message(Error(3, reason), reply_to=message)


def write_devices(folder: Path, counts: Mapping[int, tuple[int, int]]) -> dict[int, Path]:
    """Write digits for devices: client_id -> (labeled, unlabeled) samples; and their test files."""
    source = load("digits")
    start, out = 0, {}
    for client_id, (labeled, unlabeled) in counts.items():
        take = np.arange(start, start + labeled + unlabeled)
        start += labeled + unlabeled
        y = source.train.y[take].copy()
        y[labeled:] = -1
        out[client_id] = folder / f"device-{client_id}"
        out[client_id].mkdir(parents=True)
        np.savez(out[client_id] / "train.npz", x=source.train.x[take], y=y)
        rows = slice(20 * client_id, 20 * client_id + 20)
        np.savez(out[client_id] / "test.npz", x=source.test.x[rows], y=source.test.y[rows])
    return out


def nodes_of(
    folders: Mapping[int, Path], states: Path, first: int = 100
) -> dict[int, dict[str, Any]]:
    """Return node configurations, node ``first + client_id`` for each device."""
    return {
        first + client_id: {
            "client-id": client_id,
            "data-dir": str(folder),
            "state-dir": str(states / str(client_id)),
            "threads": 1,
        }
        for client_id, folder in folders.items()
    }
