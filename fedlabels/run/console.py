"""What the user sees while a run goes on; the only module that writes to the terminal.

On a terminal a progress bar, elsewhere one line every few rounds. The plain lines go to the run's
log in both cases, so the run folder holds all that was shown. Who watches may go: a terminal that
was closed, a pipe whose reader has ended or a full disk behind it never ends a run.
"""

import io
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from fedlabels.answers import show
from fedlabels.data.progress import told
from fedlabels.errors import writing
from fedlabels.machine.memory import peak_memory

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_LINES = 20  # plain lines in a run when `every` is not given
_LONG = 120.0  # seconds of a run from which on its first round tells what the whole will take
_MOMENT = 1.0  # seconds for which nobody needs a bar
_SHOWN = (
    ("test_accuracy", "accuracy", 4),
    ("test_loss", "test loss", 4),
    ("personal_accuracy", "own accuracy", 4),
    ("loss_labeled", "train loss", 4),
    ("pseudo_accuracy", "pseudo-labels", 4),
)


class Console:
    """Progress, closing lines and errors of one run.

    Parameters
    ----------
    every : int or None
        Rounds per plain line, >= 1; None gives about 20 lines a run. The first and the last round
        and every failure are always shown.
    stream, errors : TextIO or None
        Where to write; None is the standard output and the standard error.
    log : Path or None
        File that gets the plain lines, too, normally ``run.log``.
    """

    def __init__(
        self,
        *,
        every: int | None = None,
        stream: TextIO | None = None,
        errors: TextIO | None = None,
        log: Path | None = None,
    ) -> None:
        if every is not None and every < 1:
            raise ValueError(f"every must be >= 1, got {every}")
        self._stream = sys.stdout if stream is None else stream
        self._errors = sys.stderr if errors is None else errors
        self._log = log
        self._given_every = every
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._rounds = self._first = self._every = 0
        self._began = 0.0
        self._accuracy: float | None = None

    @classmethod
    def unseen(cls, log: Path) -> "Console":
        """Make one that shows nothing: what it would show goes to the log alone."""
        return cls(stream=io.StringIO(), errors=io.StringIO(), log=log)

    def start(self, rounds: int, *, done: int = 0) -> None:
        """Begin to show a run.

        Parameters
        ----------
        rounds : int
            Rounds planned, >= 0.
        done : int
            Rounds that an earlier process did, for a resumed run.
        """
        self._rounds, self._first = rounds, done + 1
        self._every = self._given_every or max(1, rounds // _LINES)
        self._began = time.monotonic()
        self._bar = _progress(self._stream)
        if self._bar is not None:
            self._task = self._bar.add_task("rounds", total=rounds, completed=done, note="")
            show(self._stream, self._bar.start)

    def round(self, record: Mapping[str, Any]) -> None:
        """Show one finished round.

        Parameters
        ----------
        record : mapping
            The round's row of ``rounds.csv``; ``round`` is needed, values that are None or
            missing are not shown.
        """
        index = int(record["round"])
        if _is_number(record.get("test_accuracy")):
            self._accuracy = float(record["test_accuracy"])
        line = self._line(record, index)
        due = index % self._every == 0 or index in (self._first, self._rounds)
        if due or record.get("failed") or record.get("rejected"):
            self._to_log(line)
            if self._bar is None:
                self._write(self._stream, line)
        if index == self._first and (whole := self._seconds(index) * self._rounds) >= _LONG:
            held = gigabytes(peak_memory())
            self.note(f"about {roughly(whole)} for {self._rounds} rounds, {held} in this process")
        if (bar := self._bar) is not None and (task := self._task) is not None:
            note = "" if self._accuracy is None else f"accuracy {self._accuracy:.4f}"
            show(self._stream, lambda: bar.update(task, completed=index, note=note))

    def note(self, *lines: str) -> None:
        """Show lines between the rounds, such as what a result has to be read with.

        Parameters
        ----------
        *lines : str
            One line each.
        """
        for line in lines:
            self._to_log(line)
            if (bar := self._bar) is None:
                self._write(self._stream, line)
            else:
                console = bar.console
                show(self._stream, partial(console.print, line, markup=False, highlight=False))

    def finish(self, lines: Iterable[str] = ()) -> None:
        """End the progress bar and show closing lines.

        Parameters
        ----------
        lines : iterable of str
            For instance the final accuracy and where the report is.
        """
        self._stop()
        for line in lines:
            self._to_log(line)
            self._write(self._stream, line)

    def error(self, text: str) -> None:
        """End the progress bar and show what went wrong.

        Parameters
        ----------
        text : str
            What happened and what to do.
        """
        self._stop()
        self._to_log(f"error: {text}")
        self._write(self._errors, f"error: {text}")

    def warn(self, text: str) -> None:
        """Show what may be wrong, and go on.

        Parameters
        ----------
        text : str
            What was found.
        """
        self._to_log(f"warning: {text}")
        self._write(self._errors, f"warning: {text}")

    def _line(self, record: Mapping[str, Any], index: int) -> str:
        parts = [f"round {index:>{len(str(self._rounds))}}/{self._rounds}"]
        for key, label, digits in _SHOWN:
            if _is_number(record.get(key)):
                parts.append(f"{label} {float(record[key]):.{digits}f}")
        for key in ("failed", "rejected"):
            if record.get(key):
                parts.append(f"{record[key]} {key}")
        seconds = self._seconds(index)
        left = seconds * (self._rounds - index)
        parts.append(f"{seconds:.2f} s/round")
        return "  ".join([*parts, f"{_duration(left)} left"] if index < self._rounds else parts)

    def _seconds(self, index: int) -> float:
        """Return the mean of the rounds of this process."""
        return (time.monotonic() - self._began) / max(1, index - self._first + 1)

    def _stop(self) -> None:
        if self._bar is not None:
            bar, self._bar = self._bar, None
            show(self._stream, bar.stop)

    def _write(self, stream: TextIO, line: str) -> None:
        def write() -> None:
            stream.write(line + "\n")
            stream.flush()

        show(stream, write)

    def _to_log(self, line: str) -> None:
        if self._log is not None:
            with writing(self._log), self._log.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


@contextmanager
def reading_shown(stream: TextIO | None = None) -> Iterator[None]:
    """Show how far the readers of data are, on a terminal and where it takes longer than a moment.

    Nothing of it stays, and no log has it.

    Parameters
    ----------
    stream : TextIO or None
        Where to write; None is the standard output.
    """
    stream = sys.stdout if stream is None else stream
    bar, tasks, began = _progress(stream, transient=True), dict[str, "TaskID"](), time.monotonic()
    if bar is None:
        yield
        return

    def tell(name: str, done: int, total: int) -> None:
        if time.monotonic() - began < _MOMENT:
            return
        if name not in tasks:
            tasks[name] = bar.add_task(name, total=total, note="")
            show(stream, bar.start)
        show(stream, lambda: bar.update(tasks[name], completed=done, total=total))

    try:
        with told(tell):
            yield
    finally:
        if tasks:
            show(stream, bar.stop)


def _progress(stream: TextIO, *, transient: bool = False) -> "Progress | None":
    """Make a progress bar; None when nobody watches or rich is not installed."""
    if not stream.isatty():
        return None
    try:  # here, not above: a device needs no rich
        from rich.console import Console as Terminal
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as Remaining
    except ImportError:
        return None
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", style="bold", markup=False),
        Remaining(),
        console=Terminal(file=stream),
        expand=True,
        transient=transient,
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and value == value  # NaN is not shown


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def roughly(seconds: float) -> str:
    """Write a span of time as an estimate has it, in one unit."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def gigabytes(size: float) -> str:
    """Write bytes as an estimate has them; nan is not known."""
    return f"{size / 1e9:.1f} GB" if size == size else "an unknown amount"
