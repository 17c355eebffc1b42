"""Runs the cells of a sweep: a process each, some side by side, none that outlives the sweep."""

import contextlib
import io
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from fedlabels.errors import FedLabelsError
from fedlabels.machine import SHARE
from fedlabels.sweep.cells import Cell, read_json

Say = Callable[[str], None]
_PRELOAD = ["fedlabels.run.main", "fedlabels.sweep.runner", "torch"]
FAILED, INTERRUPTED = 1, 130


@dataclass
class Progress:
    """How far a sweep is.

    Parameters
    ----------
    say : callable
        Gets a line of text.
    total : int
        Cells in all.
    done : int
        Cells that are finished, those of earlier calls as well.
    """

    say: Say
    total: int
    done: int
    failed: list[Cell] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _here: int = 0

    def ended(self, cell: Cell, seconds: float, problem: str | None) -> None:
        """Note that a cell has ended, and say so."""
        self._here += 1
        if problem is None:
            self.done += 1
        else:
            self.failed.append(cell)
        accuracy = cell.accuracy()
        shown = "" if accuracy is None else f"  {100 * accuracy:.2f} %"
        result = f"FAILED: {problem}" if problem else f"{seconds:.0f} s{shown}"
        ended = self.done + len(self.failed)
        left = (time.monotonic() - self._began) / self._here * (self.total - ended)
        eta = f"  {_duration(left)} left" if ended < self.total else ""
        self.say(f"cell {ended}/{self.total}  {cell.label}  {result}{eta}")


def run_cell(config: Mapping[str, Any], folder: str, facts: Mapping[str, Any]) -> None:
    """Run or resume one cell in this process.

    Raises
    ------
    FedLabelsError
        If its settings or data are wrong. Whatever it is, ``<folder>.error`` says so.
    """
    log = error_file(folder)
    try:
        _run(config, folder, facts)
        log.unlink(missing_ok=True)
    except FedLabelsError as error:
        log.write_text(str(error), encoding="utf-8")
        raise
    except Exception as error:
        log.write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
        raise


def error_file(folder: str | Path) -> Path:
    """Return where it is said what was wrong with the cell of a folder."""
    path = Path(folder)
    return path.with_name(f"{path.name}.error")


def told(cell: Cell, problem: str) -> str:
    """Return what a cell that failed said itself; where it could not, note the problem for it."""
    log = error_file(cell.folder)
    if not log.exists():
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(problem, encoding="utf-8")
    return log.read_text(encoding="utf-8")


def _run(config: Mapping[str, Any], folder: str, facts: Mapping[str, Any]) -> None:
    from fedlabels.run import main as entry
    from fedlabels.simulation.flower_compat import quiet

    quiet()
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    with _alone(path), contextlib.redirect_stdout(io.StringIO()):
        if read_json(path / "manifest.json").get("status") == "finished":
            return  # by another sweep, for which this one waited
        begun = (path / "config.yaml").exists()
        entry.execute({**config, "resume": folder if begun else None}, path, facts=dict(facts))


def run_here(cells: Sequence[Cell], jobs: int, progress: Progress, cores: int) -> int:
    """Run cells on this machine.

    Parameters
    ----------
    cells : sequence of Cell
        In this order.
    jobs : int
        How many side by side, >= 1.
    progress : Progress
        Is told of every end.
    cores : int
        Of a cell, >= 1: workers that it starts at most, unless it says how many.

    Returns
    -------
    int
        0, or 130 when interrupted: then those that ran have written a checkpoint.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    waiting, running = list(cells), dict[Any, tuple[BaseProcess, Cell, float]]()
    interrupted = False
    # Nothing is ever written: a cell that reads the end of it knows that the sweep is gone. Its
    # parent is the fork server, which lives as long as any cell does, so that tells nothing.
    life, _held = context.Pipe(duplex=False)
    while waiting or running:
        try:
            while waiting and len(running) < jobs and not interrupted:
                cell = waiting.pop(0)
                arguments = (dict(cell.config), str(cell.folder), dict(cell.facts), life, cores)
                process = context.Process(target=_child, args=arguments)
                process.start()
                running[process.sentinel] = process, cell, time.monotonic()
            if not running:
                break
            for sentinel in wait(list(running)):
                ended, cell, began = running.pop(sentinel)
                ended.join()
                if ended.exitcode != INTERRUPTED:
                    problem = _problem(ended.exitcode, cell)
                    progress.ended(cell, time.monotonic() - began, problem)
        except KeyboardInterrupt:  # it reached the cells, too: they write a checkpoint and end
            interrupted = True
            waiting.clear()
    return INTERRUPTED if interrupted else 0


def _child(
    config: Mapping[str, Any],
    folder: str,
    facts: Mapping[str, Any],
    life: Connection,
    cores: int,
) -> None:
    threading.Thread(target=_end_with, args=(life,), daemon=True).start()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ[SHARE] = str(cores)
    try:
        run_cell(config, folder, facts)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except FedLabelsError:
        sys.exit(FAILED)


def _problem(exitcode: int | None, cell: Cell) -> str | None:
    if exitcode == 0:
        return None
    if exitcode is not None and exitcode < 0:
        return told(cell, f"its process was ended by {signal.Signals(-exitcode).name}")
    return told(cell, f"exit status {exitcode}")


def _end_with(life: Connection) -> None:
    """End this process at once when the sweep is gone: its next call resumes the cell."""
    with contextlib.suppress(EOFError, OSError):
        life.recv_bytes()
    os._exit(FAILED)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a cell's lock: a second sweep over the same folder waits for the first."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
