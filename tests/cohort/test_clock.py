"""The clock of a thread: exclusive times that add up, and nothing at all while it is off."""

import threading
from collections.abc import Iterator

import pytest
import torch

from fedlabels.cohort import clock
from fedlabels.cohort.clock import (
    CLOCK,
    Track,
    during,
    each,
    handed_over,
    in_our_time,
    phase,
    recorded,
    whole,
)


class Hands:
    """A clock whose hands are moved by the test."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hands]:
    made = Hands()
    monkeypatch.setattr(clock, "time", made)
    yield made
    clock.stop()


def stopped() -> Track:
    track = clock.stop()
    assert track is not None
    assert CLOCK.running is None
    assert sum(track.seconds.values()) == pytest.approx(track.end - track.begin)
    return track


def test_nothing_happens_while_it_is_off() -> None:
    values = [1, 2]
    assert phase("gather") is phase("views")
    assert each("gather", values) is values
    assert during("update")(lambda x: x + 1)(1) == 2
    clock.follow(lambda events: [])
    assert CLOCK.running is None
    assert clock.stop() is None


def test_time_belongs_to_the_innermost_phase(hands: Hands) -> None:
    clock.start("demo")
    hands.wait(1)
    with phase("gather"):
        hands.wait(2)
        with phase("views"):
            hands.wait(4)
        hands.wait(8)
    with phase("gather", [7, 9]):
        hands.wait(16)
    track = stopped()
    assert track.seconds == {"other": 1, "gather": 26, "views": 4}
    assert track.events == [
        ("views", 103, 107, ()),
        ("gather", 101, 115, ()),
        ("gather", 115, 131, (7, 9)),
    ]
    assert (track.name, track.begin, track.end, track.entries) == ("demo", 100, 131, 3)


def test_a_phase_inside_itself_is_one(hands: Hands) -> None:
    clock.start("demo")
    with phase("views"):
        hands.wait(1)
        with phase("views"):
            hands.wait(2)
            with phase("gather"):
                hands.wait(4)
    track = stopped()
    assert track.seconds == {"other": 0, "views": 3, "gather": 4}
    assert [event[0] for event in track.events] == ["gather", "views"]
    assert track.entries == 3


def test_an_error_closes_its_phases(hands: Hands) -> None:
    def fail() -> None:
        with phase("gather"), phase("views"):
            hands.wait(1)
            raise KeyError

    clock.start("demo")
    with pytest.raises(KeyError):
        fail()
    hands.wait(2)
    assert stopped().seconds == {"other": 2, "gather": 0, "views": 1}


def test_only_the_making_of_values_is_charged(hands: Hands) -> None:
    def values() -> Iterator[int]:
        for value in range(3):
            hands.wait(10)
            yield value

    clock.start("demo")
    seen = []
    for value in each("gather", values()):
        hands.wait(1)
        seen.append(value)
    for _ in each("gather", values()):
        break  # an abandoned loop leaves nothing open
    track = stopped()
    assert seen == [0, 1, 2]
    assert track.seconds == {"other": 3, "gather": 40}


def test_functions(hands: Hands) -> None:
    @during("update")
    def step(seconds: float, *, twice: bool) -> str:
        """Take a step."""
        hands.wait(2 * seconds if twice else seconds)
        return "done"

    clock.start("demo")
    assert step(3, twice=True) == "done"
    assert stopped().seconds == {"other": 0, "update": 6}
    assert (step.__name__, step.__doc__) == ("step", "Take a step.")


def test_a_whole_block_swallows_what_is_inside(hands: Hands) -> None:
    clock.start("demo")
    with whole("evaluate"), phase("gather"):
        hands.wait(1)
        with whole("views"):
            hands.wait(2)
        with phase("views"):
            hands.wait(4)
    with phase("gather"):
        hands.wait(8)
    assert stopped().seconds == {"other": 0, "evaluate": 7, "gather": 8}
    with whole("evaluate"):
        assert CLOCK.running is None


def test_a_worker_in_the_same_thread_has_its_own_clock(hands: Hands) -> None:
    tracks: list[Track] = []
    clock.start("server")
    with phase("work"):
        hands.wait(1)
        with recorded(tracks, "train"), phase("gather"):
            hands.wait(2)
        with recorded(tracks, "evaluate", base="evaluate", flat=True), phase("gather"):
            hands.wait(4)
        with recorded(None, "train"), phase("views"):
            hands.wait(8)
    assert stopped().seconds == {"other": 0, "work": 7, "views": 8}
    assert [t.seconds for t in tracks] == [{"other": 0, "gather": 2}, {"evaluate": 4}]
    assert [(t.name, t.begin, t.end) for t in tracks] == [
        ("train", 101, 103),
        ("evaluate", 103, 107),
    ]


def test_tracks_are_handed_over_once(hands: Hands) -> None:
    tracks: list[Track] = []
    for events in (False, True):
        with recorded(tracks, "train"), phase("gather"):
            hands.wait(1)
        given = handed_over(tracks, events)
        assert [t.seconds["gather"] for t in given] == [1]
        assert [len(t.events) for t in given] == [int(events)]
        assert handed_over(tracks, True) == []
    assert handed_over(None, True) == []


def test_threads_do_not_share_it(hands: Hands) -> None:
    clock.start("demo")
    found = []
    other = threading.Thread(target=lambda: found.append(CLOCK.running))
    other.start()
    other.join()
    assert found == [None]
    assert stopped().entries == 0


def test_events_are_bounded_and_times_are_not(
    hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "MAX_EVENTS", 2)
    clock.start("demo")
    for _ in range(5):
        with phase("gather"):
            hands.wait(1)
    track = stopped()
    assert (len(track.events), track.dropped, track.seconds["gather"]) == (2, 3, 5)


def test_a_gpu_is_waited_for_at_both_ends(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that was only queued (here: 5 s) is charged to the phase that queued it."""
    queued, capturing = [0.0], [False]

    def synchronize() -> None:
        assert not capturing[0]
        hands.wait(queued[0])
        queued[0] = 0.0

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing[0])
    clock.start("demo")
    with phase("forward_backward"):
        queued[0] = 5.0
    with phase("update"):
        hands.wait(1)
    capturing[0] = True  # a graph that is being captured must not be waited for
    with phase("update"):
        hands.wait(1)
    capturing[0] = False
    assert stopped().seconds == {"other": 0, "forward_backward": 5, "update": 2}


def test_the_clock_of_another_machine() -> None:
    track = Track("train", 10, 14, {"other": 4}, [("gather", 11, 12, (3,))])
    assert in_our_time([track], 100, 100.5, 101) == [track]  # one clock for both
    (moved,) = in_our_time([track], 100, 20, 102)  # theirs was 20 when ours was 101
    assert (moved.begin, moved.end, moved.seconds) == (91, 95, {"other": 4})
    assert moved.events == [("gather", 92, 93, (3,))]
