"""The console shows little, and writes the same to the log."""

import io
import os
import sys
from pathlib import Path

import pytest

from fedlabels.data.progress import counted
from fedlabels.run import Console
from fedlabels.run import console as module
from fedlabels.run.console import reading_shown


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def show(console: Console, rounds: int) -> None:
    console.start(rounds)
    for index in range(1, rounds + 1):
        accuracy = index / 100 if index % 5 == 0 else None
        console.round({"round": index, "test_accuracy": accuracy, "loss_labeled": float("nan")})
    console.finish(["accuracy 0.5 [bold]"])


def test_plain_lines_every_n_rounds(tmp_path: Path) -> None:
    stream = io.StringIO()
    show(Console(every=5, stream=stream, log=tmp_path / "run.log"), 12)
    lines = stream.getvalue().splitlines()
    assert [line.split()[1] for line in lines[:-1]] == ["1/12", "5/12", "10/12", "12/12"]
    assert "accuracy 0.0500" in lines[1]
    assert "nan" not in stream.getvalue()
    assert (tmp_path / "run.log").read_text() == stream.getvalue()


@pytest.mark.parametrize("place", ["a pipe", "a terminal"])
def test_a_run_outlives_who_watches_it(place: str, tmp_path: Path) -> None:
    there, here = os.pipe() if place == "a pipe" else os.openpty()
    with os.fdopen(here, "w") as stream:
        console = Console(every=1, stream=stream, errors=stream, log=tmp_path / "run.log")
        console.start(3)
        os.close(there)
        console.round({"round": 1})
        console.note("a note")
        console.warn("a warning")
        console.finish(["the end"])
        console.error("an error")
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert lines[1:] == ["a note", "warning: a warning", "the end", "error: an error"]


def test_about_twenty_lines_by_default() -> None:
    stream = io.StringIO()
    show(Console(stream=stream), 1000)
    assert 20 <= len(stream.getvalue().splitlines()) <= 23


def test_failures_are_always_shown() -> None:
    stream = io.StringIO()
    console = Console(every=100, stream=stream)
    console.start(100)
    console.round({"round": 7, "failed": 2, "rejected": 0})
    assert "2 failed" in stream.getvalue()


def test_a_terminal_gets_a_progress_bar(tmp_path: Path) -> None:
    stream = Terminal()
    show(Console(stream=stream, log=tmp_path / "run.log"), 10)
    assert "10/10" in stream.getvalue()
    assert "accuracy 0.5 [bold]" in stream.getvalue()
    assert "round 10/10" in (tmp_path / "run.log").read_text().replace("  ", " ")


@pytest.mark.parametrize(
    ("stream", "moment", "shown"),
    [(Terminal(), -1.0, True), (Terminal(), 60.0, False), (io.StringIO(), -1.0, False)],
    ids=["a terminal", "a short while", "a pipe"],
)
def test_reading_is_shown_where_it_is_seen_and_takes_long(
    stream: io.StringIO, moment: float, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOMENT", moment)
    with reading_shown(stream):
        assert list(counted([1, 2, 3], "images")) == [1, 2, 3]
    assert ("images" in stream.getvalue()) == shown
    assert shown or not stream.getvalue()


def test_without_rich_a_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    stream = Terminal()
    show(Console(stream=stream), 3)
    assert stream.getvalue().startswith("round 1/3")


def test_errors_go_to_their_stream_and_the_log(tmp_path: Path) -> None:
    stream, errors = io.StringIO(), io.StringIO()
    console = Console(stream=stream, errors=errors, log=tmp_path / "run.log")
    console.start(3)
    console.error("no client is left: see clients.csv")
    assert stream.getvalue() == ""
    assert errors.getvalue() == (tmp_path / "run.log").read_text()


def test_a_resumed_run_shows_its_first_round() -> None:
    stream = io.StringIO()
    console = Console(every=10, stream=stream)
    console.start(20, done=6)
    console.round({"round": 7})
    assert stream.getvalue().startswith("round  7/20")


def test_the_first_round_of_a_long_run_tells_what_the_whole_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream, clock = io.StringIO(), iter(range(0, 10_000, 10))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(module, "peak_memory", lambda: 4.2e8)
    console = Console(stream=stream)
    console.start(60, done=2)
    console.round({"round": 3})
    console.round({"round": 4})
    said = [line for line in stream.getvalue().splitlines() if line.startswith("about")]
    assert said == ["about 20 min for 60 rounds, 0.4 GB in this process"]


def test_every_is_validated() -> None:
    with pytest.raises(ValueError, match="every must be >= 1, got 0"):
        Console(every=0)
