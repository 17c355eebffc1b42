"""How far a reader is, told to whoever wants to show it: this package itself shows nothing."""

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Listener = Callable[[str, int, int], object]
"""Gets what is being done, how many of it are done, and how many there are."""

_Entry = TypeVar("_Entry")
_STEPS = 200  # calls in a pass, about: a bar needs no more, and small entries are not slowed down
_LISTENER: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def told(listener: Listener) -> Iterator[None]:
    """Tell a listener how far readers are, within the block and in this thread.

    Parameters
    ----------
    listener : callable
        Gets a name, such as ``"images"``, the number done and the number in all.
    """
    before = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(before)


def counted(entries: Iterable[_Entry], name: str) -> Iterator[_Entry]:
    """Pass through what is read one by one, and tell how far it is.

    Parameters
    ----------
    entries : iterable
        Files, series or the like; nothing is told of those whose number is not known before.
    name : str
        What they are, in plural.
    """
    listener = _LISTENER.get()
    if listener is None or not isinstance(entries, Sized):
        yield from entries
        return
    total = len(entries)
    every = max(1, total // _STEPS)
    for done, entry in enumerate(entries):
        if done % every == 0:
            listener(name, done, total)
        yield entry
    listener(name, total, total)
