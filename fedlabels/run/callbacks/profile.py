"""Where the time of a run goes: ``callbacks=profile``.

The server's phases of a round add up to its wall time. Those of all workers, with the time in which
they had nothing to do, add up to the wall time once for each worker. The course of one round is
written as a trace that https://ui.perfetto.dev opens.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedlabels.cohort import clock
from fedlabels.cohort.clock import CLOCK, PHASES, Track
from fedlabels.errors import ConfigError
from fedlabels.machine.files import write_atomic
from fedlabels.run.folder import RunFolder

SIDES = ("server", "workers")
IDLE = "idle"  # workers that wait for the server or for the slowest of them
_ORDER = {name: place for place, name in enumerate((*PHASES, IDLE))}


@dataclass(frozen=True)
class Times:
    """Where the time of some rounds went.

    Parameters
    ----------
    wall : float
        Seconds from the begin of a round to the begin of the next, summed over the rounds.
    workers : int
        Workers; the most that a round had.
    sides : dict of side to dict of phase to float
        ``"server"``: seconds that add up to ``wall``; ``"workers"``: worker-seconds, ``"idle"``
        among them, that add up to ``wall`` times the workers.
    rounds : int
        How many.
    """

    wall: float
    workers: int
    sides: Mapping[str, Mapping[str, float]]
    rounds: int = 1

    def rows(self) -> Iterator[tuple[str, str, float, float]]:
        """Yield side, phase, seconds and share of the side's time, in the order of a round."""
        for side in SIDES:
            times = self.sides[side]
            whole = sum(times.values()) or 1.0
            for name in sorted(times, key=lambda name: _ORDER.get(name, -1)):
                yield side, name, times[name], times[name] / whole

    def plus(self, other: "Times") -> "Times":
        """Add further rounds."""
        sides = {s: dict(Counter(self.sides[s]) + Counter(other.sides[s])) for s in SIDES}
        workers = max(self.workers, other.workers)
        return Times(self.wall + other.wall, workers, sides, self.rounds + other.rounds)


def times_of(server: Track, workers: Sequence[Sequence[Track]]) -> Times:
    """Add up the tracks of one round.

    Parameters
    ----------
    server : Track
        Of the thread that leads the run.
    workers : sequence of sequence of Track
        What each worker timed, in the server's time.
    """
    wall = server.end - server.begin
    busy: Counter[str] = Counter()
    for tracks in workers:
        for track in tracks:
            busy.update(track.seconds)
    # clocks of two machines agree only roughly: never less than nothing
    idle = max(0.0, wall * len(workers) - sum(busy.values()))
    sides = {"server": _split(server, workers), "workers": {**busy, IDLE: idle}}
    return Times(wall, len(workers), sides)


def _split(server: Track, workers: Sequence[Sequence[Track]]) -> dict[str, float]:
    """Take the way to the first worker and from the last one out of the waiting for them."""
    seconds = Counter(server.seconds)
    tracks = [track for worker in workers for track in worker]
    for name, begin, end, _ in server.events:
        inside = [t for t in tracks if begin <= (t.begin + t.end) / 2 <= end]
        if name != "work" or not inside:
            continue
        outward = min(max(0.0, min(t.begin for t in inside) - begin), end - begin)
        homeward = min(max(0.0, end - max(t.end for t in inside)), end - begin - outward)
        seconds.update({"ship": outward, "ship_back": homeward, "work": -outward - homeward})
    return dict(seconds)


@dataclass
class Profile:
    """Times every round, server and workers; the workers must have been told, see `WorkerSpec`.

    Parameters
    ----------
    trace_round : int or None
        Round whose course is written to ``profile.json``, >= 1; None is the second that this
        process runs (the first one warms up), or the first if there is no other.

    Attributes
    ----------
    total : Times or None
        Of all rounds of this process but the first, or of the first if there is no other.
    """

    trace_round: int | None = None
    total: Times | None = None
    _folder: RunFolder | None = None
    _rounds: int = 0

    def __post_init__(self) -> None:
        if self.trace_round is not None and self.trace_round < 1:
            raise ConfigError(
                f"callbacks.profile.trace_round must be >= 1 or null, got {self.trace_round}"
            )

    def on_run_start(self, *, folder: RunFolder, config: Mapping[str, Any]) -> None:
        """Start this thread's clock."""
        self._folder = folder
        clock.start("round")

    def on_round_end(self, *, record: Mapping[str, Any]) -> bool:
        """Never stop the run."""
        return False

    def on_round_closed(self, *, record: Mapping[str, Any]) -> None:
        """Write where the round's time went; what that takes belongs to no round."""
        source = CLOCK.running.source if CLOCK.running is not None else None
        server = clock.stop()
        if server is not None and self._folder is not None:
            self._rounds += 1
            index = int(record["round"])
            traced = self._traces(index)
            workers = source(traced) if source is not None else []
            self._write(self._folder, index, times_of(server, workers))
            if traced:
                write_atomic(self._folder.trace, trace(index, server, workers))
        clock.start("round")

    def on_run_end(self, *, folder: RunFolder) -> None:
        """Stop the clock."""
        clock.stop()

    def lines(self) -> list[str]:
        """Return the table that is shown at the end of a run."""
        return [] if self.total is None else list(_table(self.total))

    def _traces(self, index: int) -> bool:
        if self.trace_round is None:
            return self._rounds <= 2
        return index == self.trace_round

    def _write(self, folder: RunFolder, index: int, times: Times) -> None:
        names = ("side", "phase", "seconds", "share")
        rows = [dict(zip(names, row, strict=True)) for row in times.rows()]
        folder.profile.append([{"round": index, **row} for row in rows])
        # the first round warms up: it counts only while there is no other
        self.total = times if self.total is None or self._rounds <= 2 else self.total.plus(times)


def profile_of(config: Mapping[str, Any]) -> Profile | None:
    """Return the callback that the settings ask for; None when they ask for none.

    Raises
    ------
    ConfigError
        If the round to trace is < 1.
    """
    # a run from before there were callbacks has none
    wanted = dict(config.get("callbacks", {}).get("profile") or {})
    return Profile(wanted.get("trace_round")) if wanted.get("enabled") else None


def _table(times: Times) -> Iterator[str]:
    several = f"{times.rounds} rounds without the first" if times.rounds > 1 else "one round"
    plural = "s" if times.workers != 1 else ""
    yield (
        f"where the time goes: {several}, {times.wall / times.rounds:.3f} s a round,"
        f" {times.workers} worker{plural}"
    )
    heads = ("server", "s/round", "%", "workers", "worker-s/round", "%")
    yield "  {:<17}{:>9}{:>7}   {:<17}{:>15}{:>7}".format(*heads)
    cells: dict[str, list[str]] = {side: [] for side in SIDES}
    widths = {"server": 9, "workers": 15}
    for side, name, seconds, share in times.rows():
        each = seconds / times.rounds
        cells[side].append(f"{name:<17}{each:>{widths[side]}.4f}{100 * share:>7.1f}")
    left, right = cells["server"], cells["workers"]
    for row in range(max(len(left), len(right))):
        first = left[row] if row < len(left) else " " * 33
        second = right[row] if row < len(right) else ""
        yield f"  {first}   {second}".rstrip()


# ---- the course of a round


def trace(index: int, server: Track, workers: Sequence[Sequence[Track]]) -> bytes:
    """Write the course of a round in Chrome's trace format, times in microseconds.

    Parameters
    ----------
    index : int
        The round.
    server : Track
        Of the thread that leads the run; its begin is 0.
    workers : sequence of sequence of Track
        What each worker timed, in the server's time.
    """
    lanes = [[server], *workers]
    events = []
    for lane, tracks in enumerate(lanes):
        name = f"worker {lane - 1}" if lane else "server"
        events.append(_named("thread_name", lane, name=name))
        events.append(_named("thread_sort_index", lane, sort_index=lane))
        for track in tracks:
            events += [_event(lane, server.begin, *event) for event in _course(track, index)]
    events.sort(key=lambda event: (event["tid"], event.get("ts", -1), -event.get("dur", 0)))
    missing = sum(track.dropped for tracks in lanes for track in tracks)
    facts = {
        "round": index,
        "phases": sum(track.entries for tracks in lanes for track in tracks),
        "left out": missing,
    }
    whole = {"traceEvents": events, "displayTimeUnit": "ms", "otherData": facts}
    return (json.dumps(whole, separators=(",", ":")) + "\n").encode()


def _course(track: Track, index: int) -> Iterator[clock.Event]:
    name = f"round {index}" if track.name == "round" else track.name
    yield name, track.begin, track.end, ()
    yield from track.events


def _named(kind: str, lane: int, **facts: Any) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": 1, "tid": lane, "args": facts}


def _event(
    lane: int, origin: float, name: str, begin: float, end: float, clients: tuple[int, ...]
) -> dict[str, Any]:
    start, stop = (round(1e6 * (moment - origin), 1) for moment in (begin, end))
    # both ends are rounded alike: what lies inside another event stays inside
    event: dict[str, Any] = {"ph": "X", "name": name, "pid": 1, "tid": lane, "ts": start}
    event["dur"] = round(stop - start, 1)
    if clients:
        event["name"] = f"client {clients[0]}" if len(clients) == 1 else f"{len(clients)} clients"
        event["args"] = {"clients": list(clients)}
    return event
