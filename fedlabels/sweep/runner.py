"""Runs the cells of a sweep: a process each, some side by side, none that outlives the sweep."""

import contextlib
import io
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from fedlabels.errors import FedLabelsError
from fedlabels.machine import SHARE
from fedlabels.machine.files import write_atomic
from fedlabels.run.console import roughly
from fedlabels.run.folder.owner import owned
from fedlabels.run.signals import INTERRUPTED, ask_to_end, terminable
from fedlabels.sweep.cells import Cell

Say = Callable[[str], None]
_PRELOAD = ["fedlabels.run.main", "fedlabels.sweep.runner", "torch"]
FAILED = 1
GRACE_SECONDS = 60.0
"""How long a cell that was told to end may take for its checkpoint before it is ended."""

_ENDING = {
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
}


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
    finished : callable
        Gets every further cell that is.
    """

    say: Say
    total: int
    done: int
    finished: Callable[[Cell], object] = lambda cell: None
    failed: list[Cell] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _here: int = 0

    def ended(self, cell: Cell, seconds: float, problem: str | None) -> None:
        """Note that a cell has ended, and say so."""
        self._here += 1
        if problem is None:
            self.done += 1
            self.finished(cell)
        else:
            self.failed.append(cell)
        accuracy = cell.accuracy()
        shown = "" if accuracy is None else f"  {100 * accuracy:.2f} %"
        result = f"FAILED: {problem}" if problem else f"{seconds:.0f} s{shown}"
        ended = self.done + len(self.failed)
        left = (time.monotonic() - self._began) / self._here * (self.total - ended)
        eta = f"  {roughly(left)} left" if ended < self.total else ""
        self.say(f"cell {ended}/{self.total}  {cell.label}  {result}{eta}")


def run_cell(config: Mapping[str, Any], folder: str, facts: Mapping[str, Any]) -> None:
    """Run or resume one cell in this process; where another process does, wait for its result.

    Raises
    ------
    FedLabelsError
        If its settings or data are wrong. Whatever it is, ``<folder>.error`` says so.
    KeyboardInterrupt
        At a signal, after a checkpoint was written.
    """
    log = error_file(folder)
    try:
        _run(config, folder, facts)
        log.unlink(missing_ok=True)
    except FedLabelsError as error:
        _leave_word(log, str(error))
        raise
    except Exception as error:
        _leave_word(log, f"{type(error).__name__}: {error}")
        raise


def error_file(folder: str | Path) -> Path:
    """Return where it is said what was wrong with the cell of a folder."""
    path = Path(folder)
    return path.with_name(f"{path.name}.error")


def error_of(cell: Cell, problem: str) -> str:
    """Return what a cell that failed said itself; where it could not, note the problem for it."""
    log = error_file(cell.folder)
    with contextlib.suppress(OSError):  # on a full disk the other cells go on all the same
        if not log.exists():
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(problem, encoding="utf-8")
        return log.read_text(encoding="utf-8") or problem
    return problem


def _run(config: Mapping[str, Any], folder: str, facts: Mapping[str, Any]) -> None:
    from fedlabels.rounds.flower_compat import quiet
    from fedlabels.run import main as entry

    quiet()
    path = Path(folder)
    with terminable(), owned(path, wait=True), contextlib.redirect_stdout(io.StringIO()):
        if entry.is_finished(path):
            return  # by another sweep, for which this one waited
        begun = (path / "config.yaml").exists()
        entry.execute_owned(
            {**config, "resume": folder if begun else None}, path, facts=dict(facts)
        )  # fmt: skip


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
    _start_fork_server()
    waiting, running = list(cells), dict[Any, tuple[BaseProcess, Cell, float]]()
    interrupted = False
    # Nothing is ever written: a cell that reads the end of it knows that it is to end, because
    # the sweep was interrupted or is gone. Its parent is the fork server, which lives as long as
    # any cell does, so that tells nothing.
    life, held = context.Pipe(duplex=False)
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
        except KeyboardInterrupt:  # it may have reached the cells, too: they hear one of both
            interrupted = True
            waiting.clear()
            held.close()
    return INTERRUPTED if interrupted else 0


def _start_fork_server() -> None:
    """Start it deaf to what ends a sweep: it must outlive the cells, whose ends it reports."""
    resource_tracker.ensure_running()  # first: it would let the signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _child(
    config: Mapping[str, Any],
    folder: str,
    facts: Mapping[str, Any],
    life: Connection,
    cores: int,
) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ[SHARE] = str(cores)
    try:
        with terminable():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)  # of the fork server
            threading.Thread(target=_end_with, args=(life,), daemon=True).start()
            run_cell(config, folder, facts)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except FedLabelsError:
        sys.exit(FAILED)


def _leave_word(log: Path, text: str) -> None:
    with contextlib.suppress(OSError):  # on a full disk the exit status has to do
        write_atomic(log, text)


def _problem(exitcode: int | None, cell: Cell) -> str | None:
    if exitcode == 0:
        return None
    if exitcode is not None and exitcode < 0:
        return error_of(cell, f"its process was ended by {signal.Signals(-exitcode).name}")
    return error_of(cell, f"exit status {exitcode}")


def _end_with(life: Connection) -> None:
    """End this process when the sweep is gone or interrupted, in order as far as that is quick."""
    with contextlib.suppress(EOFError, OSError):
        life.recv_bytes()
    ask_to_end()
    time.sleep(GRACE_SECONDS)
    os._exit(INTERRUPTED)
