"""A study: runs in folders of its own naming, and one JSON file with a row of figures for each."""

import json
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedlabels.machine import allowed_cores
from fedlabels.machine.files import write_atomic
from fedlabels.run.console import Console
from fedlabels.run.main import compose_settings
from fedlabels.run.signals import terminable
from fedlabels.sweep.cells import Cell, facts_of
from fedlabels.sweep.runner import Progress, error_file, run_here

Key = tuple[Any, ...]
Row = dict[str, Any]


@dataclass(frozen=True)
class Study:
    """Cells whose figures are kept together.

    Parameters
    ----------
    runs : Path
        Folder of their run folders.
    results : Path
        The JSON file: ``hardware``, `facts` and ``rows``.
    columns : tuple of str
        Columns whose values tell one row from the others: its key.
    facts : mapping
        What else the file says.
    """

    runs: Path
    results: Path
    columns: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def rows(self) -> list[Row]:
        """Return the rows that are there."""
        return list(json.loads(self.results.read_bytes())["rows"]) if self.results.exists() else []

    def missing(self, keys: Iterable[Key]) -> list[Key]:
        """Return the keys without a row."""
        known = {self._key(row) for row in self.rows()}
        return [key for key in keys if key not in known]

    def _key(self, row: Row) -> Key:
        return tuple(row[column] for column in self.columns)

    def save(self, row: Row) -> None:
        """Add a row, in place of an older one with the same key."""
        rows = [other for other in self.rows() if self._key(other) != self._key(row)]
        rows = sorted([*rows, row], key=lambda one: list(map(str, self._key(one))))
        hardware = {"machine": platform.machine(), "cores": allowed_cores()}
        self.results.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"hardware": hardware, **self.facts, "rows": rows}, indent=1)
        write_atomic(self.results, f"{content}\n")

    def run(
        self,
        cells: Mapping[Key, tuple[str, Sequence[str]]],
        jobs: int,
        figures: Callable[[Path, Key], Row],
    ) -> int:
        """Run cells that are not finished, go on with those that were killed, and keep all figures.

        Parameters
        ----------
        cells : mapping
            Key -> name of the folder and overrides as on the command line of ``run_sim.py``.
        jobs : int
            How many side by side, >= 1.
        figures : callable
            Run folder and key of a finished cell -> the rest of its row.

        Returns
        -------
        int
            0 if all are finished, 1 if some failed, 130 if interrupted.
        """
        planned = [self._cell(key, *cell) for key, cell in cells.items()]
        keys = {cell.folder: key for cell, key in zip(planned, cells, strict=True)}

        def keep(cell: Cell) -> None:
            key = keys[cell.folder]
            self.save({**dict(zip(self.columns, key, strict=True)), **figures(cell.folder, key)})

        unfinished = [cell for cell in planned if cell.status() != "finished"]
        for cell in planned:
            if cell in unfinished:
                error_file(cell.folder).unlink(missing_ok=True)  # of an earlier call
            else:
                keep(cell)
        console, done = Console(), len(planned) - len(unfinished)
        progress = Progress(lambda line: console.finish([line]), len(planned), done, keep)
        with terminable():
            status = run_here(unfinished, jobs, progress, max(1, allowed_cores() // jobs))
        return status or int(bool(progress.failed))

    def _cell(self, key: Key, folder: str, overrides: Sequence[str]) -> Cell:
        label = tuple(f"{c}={value}" for c, value in zip(self.columns, key, strict=True))
        config = compose_settings(overrides)
        return Cell(label, config, self.runs / folder, facts_of(overrides, config))
