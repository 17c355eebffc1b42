"""Replies pulled one by one, so that a device that dies while it uploads holds up nobody else.

Flower's pull takes all replies that have begun to arrive and waits until each is whole: at least
three minutes after the last piece of a device that is gone. Replies of others are not pulled
meanwhile, and `Grid.send_and_receive` ends without them once its time is up.
"""

from fedlabels import telemetry

telemetry.disable()  # before Flower is imported

# ruff: noqa: E402
import queue
import threading
import time
from collections import deque
from collections.abc import Collection

from flwr.app import Message
from flwr.serverapp import Grid

WIDTH = 16
"""How many pulls begin side by side."""
HELD = 1.0
"""Seconds after which a pull no longer counts as one of them: its reply is on its way."""
_POLL = 0.5  # seconds between two looks

_End = tuple[str, list[Message], Exception | None]


class Pulls:
    """Pulls each reply by itself, in a thread of its own.

    Parameters
    ----------
    grid : flwr.serverapp.Grid
        Flower's; its pulls may be called from several threads.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._begun: dict[str, float] = {}  # message id -> when its pull began
        self._ends: queue.SimpleQueue[_End] = queue.SimpleQueue()

    def arriving(self, message_id: str) -> bool:
        """Whether the reply to a message has begun to arrive and is not whole."""
        return message_id in self._begun

    def look(self, message_ids: Collection[str]) -> list[Message]:
        """Pull once for each message that no pull waits for.

        Parameters
        ----------
        message_ids : collection of str
            What replies are wanted to; others that have come are dropped.

        Returns
        -------
        list of Message
            The replies that are whole, those that began to arrive at an earlier look included.

        Raises
        ------
        Exception
            What Flower's pull of one of them raised.
        """
        found: list[Message] = []
        due = deque(id_ for id_ in message_ids if id_ not in self._begun)
        while True:
            while due and self._young() < WIDTH:
                self._begin(due.popleft())
            wait = bool(self._young())
            if not wait and self._ends.empty():
                return found
            try:
                id_, replies, error = self._ends.get(timeout=HELD if wait else None)
            except queue.Empty:
                continue
            del self._begun[id_]
            if id_ in message_ids:
                if error is not None:
                    raise error
                found += replies

    def gather(self, message_ids: Collection[str], seconds: float) -> list[Message]:
        """Return the replies to messages that are whole within a time.

        Parameters
        ----------
        message_ids : collection of str
            What replies are wanted to.
        seconds : float
            How long they are waited for, > 0.

        Raises
        ------
        Exception
            What Flower's pull of one of them raised.
        """
        wanted, found = set(message_ids), list[Message]()
        until = time.monotonic() + seconds
        while True:
            replies = self.look(wanted)
            found += replies
            wanted -= {reply.metadata.reply_to_message_id for reply in replies}
            left = until - time.monotonic()
            if not wanted or left <= 0:
                return found
            time.sleep(min(_POLL, left))

    def _young(self) -> int:
        since = time.monotonic() - HELD
        return sum(begun > since for begun in self._begun.values())

    def _begin(self, id_: str) -> None:
        self._begun[id_] = time.monotonic()
        threading.Thread(target=self._pull, args=(id_,), daemon=True).start()

    def _pull(self, id_: str) -> None:
        try:
            self._ends.put((id_, list(self._grid.pull_messages([id_])), None))
        except Exception as error:  # raised where the reply is waited for
            self._ends.put((id_, [], error))
