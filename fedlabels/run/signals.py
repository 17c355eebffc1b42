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
        self.waits = self.owes = False

    def listen(self) -> None:
        """Take the signals over, from whoever has them; those that are ignored stay ignored."""
        for number in (*_TOLD, *([_ASKED] if _ASKED else [])):
            handler = signal.getsignal(number)
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._hear)
                self._before[number] = handler

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        if self._told:  # by a signal, and now asked to as well
            return
        self._told = True
        for signal_number in _TOLD:
            if signal_number in self._before:
                signal.signal(signal_number, signal.SIG_DFL)
        if not self.waits:
            raise KeyboardInterrupt
        self.owes = True

    def leave(self) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


_listening: list[_Listener] = []


@contextmanager
def terminable() -> Iterator[None]:
    """Raise KeyboardInterrupt at SIGINT, SIGTERM or SIGHUP inside the block, once.

    The next signal has its default action: it ends the process at once. What is ignored when the
    block is entered stays ignored (``nohup``). Elsewhere than in the main thread it does nothing,
    and neither does a block inside another one.
    """
    if _listening or threading.current_thread() is not threading.main_thread():
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


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let the first signal inside a `terminable` block wait until this block is done.

    Raises
    ------
    KeyboardInterrupt
        At its end, if there was a signal and nothing else went wrong. A second one ends the process
        at once, as ever.
    """
    here = threading.current_thread() is threading.main_thread()
    listener = _listening[-1] if _listening and here else None
    if listener is None:
        yield
        return
    listener.waits = True
    try:
        yield
    finally:
        listener.waits = False
    if listener.owes:
        listener.owes = False
        raise KeyboardInterrupt


def ask_to_end() -> None:
    """Interrupt the main thread inside its `terminable` block, unless that was told already."""
    main = threading.main_thread().ident
    if _ASKED is not None and main is not None:
        signal.pthread_kill(main, _ASKED)
