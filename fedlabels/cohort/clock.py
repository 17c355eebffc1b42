"""Where the time goes: a clock for each thread, off until somebody starts it.

While it is off, a phase costs one look at an attribute. While it is on, time belongs to the
innermost phase that is open, so the phases of a track add up to its length. On a GPU the clock
waits for the device where a phase begins and ends: else a phase would be charged for the work of
the one before it. That waiting is what makes a profiled run on a GPU slower than others.
"""

import functools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

PHASES = (
    "configure", "ship", "work", "gather", "views", "forward_backward", "update", "reduce",
    "ship_back", "aggregate", "evaluate", "write", "other",
)  # fmt: skip
"""Names in the order of a round; ``work`` is a server that waits for its workers."""

MAX_EVENTS = 20_000  # of one track: 2 MB; the times themselves go on being counted
_OFF: AbstractContextManager[None] = nullcontext()

Event = tuple[str, float, float, tuple[int, ...]]
"""Phase, begin and end in seconds of ``time.perf_counter``, and the clients that it was for."""


@dataclass
class Track:
    """What a clock has seen from start to stop.

    Parameters
    ----------
    name : str
        What was timed.
    begin, end : float
        Seconds of ``time.perf_counter``.
    seconds : dict of str to float
        Time by phase without the phases inside it; they add up to ``end - begin``.
    events : list of Event
        Phases as they ended, MAX_EVENTS at most.
    entries : int
        How often a phase was asked for.
    dropped : int
        Events beyond MAX_EVENTS.
    """

    name: str
    begin: float
    end: float
    seconds: dict[str, float] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    entries: int = 0
    dropped: int = 0

    def shifted(self, by: float) -> "Track":
        """Return the track in the time of another clock, ``by`` seconds ahead of this one."""
        events = [(name, a + by, b + by, clients) for name, a, b, clients in self.events]
        return replace(self, begin=self.begin + by, end=self.end + by, events=events)


Source = Callable[[bool], Sequence[Sequence[Track]]]
"""Hands over the tracks of every worker since the last call; False leaves their events out."""


class Running:
    """A clock that is on.

    Parameters
    ----------
    name : str
        Name of the track.
    base : str
        Phase of all time outside of phases.
    flat : bool
        Whether phases inside are ignored: all time is the base's.
    """

    def __init__(self, name: str, base: str = "other", *, flat: bool = False) -> None:
        self.flat = flat
        self.source: Source | None = None
        self._device = bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
        self._open = [base]
        self._track = Track(name, 0.0, 0.0, {base: 0.0})
        self._track.begin = self._since = self._now()

    def _now(self) -> float:
        if self._device and not torch.cuda.is_current_stream_capturing():
            torch.cuda.synchronize()
        return time.perf_counter()

    def _charge(self) -> float:
        """Give the time since the last change to the phase that is open."""
        now, seconds, name = self._now(), self._track.seconds, self._open[-1]
        seconds[name] = seconds.get(name, 0.0) + now - self._since
        self._since = now
        return now

    def enter(self, name: str, clients: Sequence[int]) -> float | None:
        """Open a phase; None when it is the one that is open already."""
        self._track.entries += 1
        begin = None if name == self._open[-1] and not clients else self._charge()
        self._open.append(name)
        return begin

    def leave(self, begin: float | None, clients: Sequence[int]) -> None:
        """Close the innermost phase."""
        if begin is not None:
            end = self._charge()
            if len(self._track.events) < MAX_EVENTS:
                self._track.events.append((self._open[-1], begin, end, tuple(clients)))
            else:
                self._track.dropped += 1
        self._open.pop()

    def stop(self) -> Track:
        """Return what was seen."""
        self._track.end = self._charge()
        return self._track


class Clock(threading.local):
    """The clock of this thread.

    Attributes
    ----------
    running : Running or None
        None while it is off.
    """

    def __init__(self) -> None:
        self.running: Running | None = None


CLOCK = Clock()


class _Phase:
    """One phase of a running clock."""

    __slots__ = ("_begin", "_clients", "_name", "_running")

    def __init__(self, running: Running, name: str, clients: Sequence[int]) -> None:
        self._running, self._name, self._clients = running, name, clients
        self._begin: float | None = None

    def __enter__(self) -> None:
        self._begin = self._running.enter(self._name, self._clients)

    def __exit__(self, *error: object) -> None:
        self._running.leave(self._begin, self._clients)


def phase(name: str, clients: Sequence[int] = ()) -> AbstractContextManager[None]:
    """Charge a block to a phase.

    Parameters
    ----------
    name : str
        One of PHASES.
    clients : sequence of int
        Whom the block is for, as a trace shows it.

    Examples
    --------
    >>> start("demo")
    >>> with phase("gather"):
    ...     with phase("views"):
    ...         pass
    >>> sorted(stop().seconds)
    ['gather', 'other', 'views']
    """
    running = CLOCK.running
    return _OFF if running is None or running.flat else _Phase(running, name, clients)


@contextmanager
def whole(name: str) -> Iterator[None]:
    """Charge a block to a phase with all that happens inside; phases inside do not count."""
    running = CLOCK.running
    if running is None or running.flat:
        yield
        return
    with phase(name):
        running.flat = True
        try:
            yield
        finally:
            running.flat = False


def during(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Charge all calls of a function to a phase."""

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            if CLOCK.running is None:
                return function(*args, **kwargs)
            with phase(name):
                return function(*args, **kwargs)

        return timed

    return wrap


def each(name: str, values: Iterable[T]) -> Iterable[T]:
    """Charge what it takes to make the next value to a phase, and not what is done with it."""
    return values if CLOCK.running is None else _each(name, iter(values))


def _each(name: str, values: Iterator[T]) -> Iterator[T]:
    while True:
        with phase(name):
            try:
                value = next(values)
            except StopIteration:
                return
        yield value


def start(name: str) -> None:
    """Turn this thread's clock on."""
    CLOCK.running = Running(name)


def stop() -> Track | None:
    """Turn this thread's clock off; None if it was."""
    running, CLOCK.running = CLOCK.running, None
    return None if running is None else running.stop()


def follow(source: Source) -> None:
    """Say where the tracks of workers are found, if this thread's clock is on."""
    if CLOCK.running is not None:
        CLOCK.running.source = source


@contextmanager
def recorded(
    tracks: list[Track] | None, name: str, base: str = "other", *, flat: bool = False
) -> Iterator[None]:
    """Time a block with a clock of its own and add it to ``tracks``; None times nothing.

    The clock that was on before, such as that of a server in the same thread, is put back as it
    was: for it, the block is part of the phase that it has open.
    """
    if tracks is None:
        yield
        return
    before = CLOCK.running
    CLOCK.running = running = Running(name, base, flat=flat)
    try:
        yield
    finally:
        CLOCK.running = before
        tracks.append(running.stop())


def handed_over(tracks: list[Track] | None, events: bool) -> list[Track]:
    """Empty a list of tracks and return what was in it, on request without events."""
    if tracks is None:
        return []
    given = tracks[:]
    tracks.clear()
    return given if events else [replace(track, events=[]) for track in given]


def in_our_time(
    tracks: Sequence[Track], asked: float, theirs: float, answered: float
) -> list[Track]:
    """Return tracks of another process in the time of this one.

    Processes of one machine share their clock. The clock of another machine lies outside the
    moments in which it was asked; then the middle between them is taken for the moment of its
    answer, which is right to half the time that the answer took.

    Parameters
    ----------
    tracks : sequence of Track
        In their time.
    asked, answered : float
        When the clock was asked and its answer came, in our time.
    theirs : float
        The answer.
    """
    if asked <= theirs <= answered:
        return list(tracks)
    return [track.shifted((asked + answered) / 2 - theirs) for track in tracks]
