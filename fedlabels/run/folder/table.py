"""Tables of a run as CSV files that outlive a kill: appended, widened and cut back safely."""

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedlabels.errors import DataError, writing
from fedlabels.machine.files import sync_folder, temporary_name

_TAIL = 1 << 16  # bytes read at once when looking back for the last line's end
_LONGEST = 2000  # characters of a text, such as an error with its traceback
_NUMBERS = re.compile(r"(\d+)")


class Table:
    """A CSV file with one header line, read and written by column name.

    The columns of a table are those in `first` and `last`, plus every column that ever had a
    value; so the header depends on the rows alone, not on when a run was killed. A line that was
    being written when the process died is dropped.

    Parameters
    ----------
    path : Path
        The file; it appears with the first row.
    key : str
        Column of integers that never fall, by which the table is cut back.
    first, last : sequence of str
        Columns at the left and right edge, in this order; all others stand between them, sorted.
        Further columns that start with ``seconds`` go with those in `last`.
    """

    def __init__(
        self, path: Path, key: str = "round", *, first: Sequence[str] = (), last: Sequence[str] = ()
    ) -> None:
        self.path = path
        self.key = key
        self._first = tuple(first) if key in first else (key, *first)
        self._last = tuple(last)
        self._unsynced = False

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows: they outlive this process, and after :meth:`sync` the machine's end, too.

        Parameters
        ----------
        rows : sequence of mapping
            Column -> str, bool, int, float (written so that it reads back to the same bits) or
            None (left blank). Rows may have different columns.

        Raises
        ------
        DataError
            If a row lacks the key or the file is damaged.
        DiskError
            If the disk refuses; a line that was begun is cut off by the next reader.
        """
        if not rows:
            return
        lines = [{name: _text(value) for name, value in row.items()} for row in rows]
        for line in lines:
            self._key_of(line)
        columns = self.columns()
        seen = {name for line in lines for name, text in line.items() if text}
        if columns and seen <= set(columns):
            self._add(csv_text([line.get(name, "") for name in columns] for line in lines))
        else:
            self._rewrite(self._order(seen | set(columns)), None, lines)

    def cut_back(self, last: int) -> None:
        """Drop the rows after a round, and the columns that only they had; atomic.

        Parameters
        ----------
        last : int
            Greatest key that stays.

        Raises
        ------
        DataError
            If the file is damaged in the middle.
        """
        if not self.columns():
            return
        filled: set[str] = set()
        for row in self.rows():
            if self._key_of(row) <= last:
                filled.update(name for name, text in row.items() if text)
        self._rewrite(self._order(filled), last, [])  # always: a garbled last line goes, too

    def columns(self) -> list[str]:
        """Return the column names in the file, left to right; empty when there is no file."""
        if not self._repair():
            return []
        with self.path.open(encoding="utf-8", newline="", errors="replace") as file:
            return next(csv.reader(file), [])

    def rows(self) -> Iterator[dict[str, str]]:
        """Go through the rows as text.

        Yields
        ------
        dict
            Column -> text, blank where there is no value.

        Raises
        ------
        DataError
            If a line that is not the last one is damaged.
        """
        columns = self.columns()
        if not columns:
            return
        with self.path.open(encoding="utf-8", newline="", errors="replace") as file:
            reader = csv.reader(file)
            next(reader)
            bad = 0
            for number, values in enumerate(reader, start=2):
                if bad:
                    raise DataError(
                        f"{self.path} is damaged in line {bad}: restore the file, or delete that"
                        " line if its round is not needed"
                    )
                row = dict(zip(columns, values, strict=False))
                if len(values) == len(columns) and _is_integer(row[self.key]):
                    yield row
                else:  # fine if it is the last line: the disk lost it when the machine died
                    bad = number

    def _key_of(self, row: Mapping[str, str]) -> int:
        text = row.get(self.key, "")
        if not _is_integer(text):
            raise DataError(f"a row of {self.path.name} needs an integer {self.key}, got {text!r}")
        return int(text)

    def _order(self, names: set[str]) -> list[str]:
        edges = {*self._first, *self._last}
        others = sorted(names - edges, key=_natural)
        times = [name for name in others if name.startswith("seconds")]
        middle = [name for name in others if not name.startswith("seconds")]
        return [*self._first, *middle, *_with_times(self._last, times)]

    def _add(self, text: str) -> None:
        with writing(self.path), self.path.open("ab") as file:
            file.write(text.encode())
        self._unsynced = True

    def sync(self) -> None:
        """Flush the rows to disk; flushing is slow, and each round would wait for it."""
        if self._unsynced:
            with writing(self.path), self.path.open("rb") as file:
                os.fsync(file.fileno())
            self._unsynced = False

    def _rewrite(
        self, columns: Sequence[str], last: int | None, more: Sequence[Mapping[str, str]]
    ) -> None:
        with writing(self.path):
            self._replace(columns, last, more)

    def _replace(
        self, columns: Sequence[str], last: int | None, more: Sequence[Mapping[str, str]]
    ) -> None:
        temporary = temporary_name(self.path)
        try:
            with temporary.open("w", encoding="utf-8", newline="") as file:
                file.write(csv_text([columns]))
                for row in self.rows():
                    if last is None or self._key_of(row) <= last:
                        file.write(csv_text([[row.get(name, "") for name in columns]]))
                file.write(csv_text([row.get(name, "") for name in columns] for row in more))
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
            self._unsynced = False
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(self.path.parent)

    def _repair(self) -> bool:
        """Cut off a last line without an end; False when nothing is left or there is no file."""
        if not self.path.exists():
            return False
        with writing(self.path), self.path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            end = _end_of_lines(file, size)
            if end < size:
                file.truncate(end)
                os.fsync(file.fileno())
        return end > 0


def _end_of_lines(file: io.BufferedRandom, size: int) -> int:
    """Find the position behind the last newline, looking back from the end."""
    position = size
    while position > 0:
        start = max(0, position - _TAIL)
        file.seek(start)
        found = file.read(position - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        position = start
    return 0


def _with_times(last: Sequence[str], times: Sequence[str]) -> list[str]:
    """Put further clock times before the total, which closes the row."""
    if not last or last[-1] != "seconds_total":
        return [*last, *times]
    return [*last[:-1], *times, last[-1]]


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Write rows, each a sequence of texts or numbers, as CSV."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def _text(value: Any) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    return " ".join(str(value).splitlines())[:_LONGEST]  # a row is one line of the file


def _is_integer(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").isdigit()


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts recall_2 before recall_10."""
    parts = _NUMBERS.split(name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
