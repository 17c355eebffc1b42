"""Ctrl-C, SIGTERM and SIGHUP end a run in the same order: a checkpoint, a true status, exit 130."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

INTERRUPTED = 130
"""Exit status of what was interrupted, by whichever signal."""

# SIGHUP: the terminal was closed. There is none on Windows, and no SIGUSR1.
_TOLD = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_ASKED = getattr(signal, "SIGUSR1", None)


class _Listener:
    """Raises KeyboardInterrupt at the first signal; a second one ends the process at once."""

    def __init__(self) -> None:
        self._before = dict[int, Any]()
        self._told = False

    def listen(self) -> None:
        """Take the signals over, from whoever has them; those that are ignored stay ignored."""
        for number in (*_TOLD, *([_ASKED] if _ASKED else [])):
            handler = signal.getsignal(number)
            if handler is signal.SIG_IGN or self._told:
                continue
            if handler != self._hear:
                signal.signal(number, self._hear)
                self._before.setdefault(number, handler)

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        if self._told:  # by a signal, and now asked to as well
            return
        self._told = True
        for told in _TOLD:
            if told in self._before:
                signal.signal(told, signal.SIG_DFL)
        raise KeyboardInterrupt

    def leave(self) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


_listening: list[_Listener] = []


@contextmanager
def terminable() -> Iterator[None]:
    """Raise KeyboardInterrupt at SIGINT, SIGTERM or SIGHUP inside the block, once.

    The next signal has its default action: it ends the process at once. What is ignored when the
    block is entered stays ignored (``nohup``). Elsewhere than in the main thread it does nothing.
    Blocks may be nested; enter one after Ray was started, which puts a handler of its own in place.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if _listening:
        _listening[-1].listen()
        yield
        return
    listener = _Listener()
    _listening.append(listener)
    try:
        listener.listen()
        yield
    finally:
        _listening.pop()
        listener.leave()


def ask_to_end() -> None:
    """Interrupt the main thread inside its `terminable` block, unless that was told already."""
    main = threading.main_thread().ident
    if _ASKED is not None and main is not None:
        signal.pthread_kill(main, _ASKED)
