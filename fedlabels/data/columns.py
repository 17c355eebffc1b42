"""Columns of tables as text, and what their values mean."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.tables import read_table
from fedlabels.errors import DataError

ABSENT = ("", "?", "NA", "N/A", "nan", "NaN", "None", "null", "<NA>")
"""What counts as a missing value, around which spaces do not count."""


@dataclass(frozen=True, eq=False)
class Columns:
    """A table as text.

    Parameters
    ----------
    path : Path
        Where it comes from, for messages.
    values : dict of str to ndarray of str, each of shape (rows,)
        Column by column in the order of the file, without spaces around; what is missing is "".
    row : ndarray of int64, shape (rows,)
        Row of the file below the names, from 1, for messages.
    """

    path: Path
    values: dict[str, NDArray[Any]]
    row: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.row)

    def at(self, chosen: NDArray[np.bool_]) -> "Columns":
        """Return some rows."""
        values = {name: column[chosen] for name, column in self.values.items()}
        return Columns(self.path, values, self.row[chosen])


def read_columns(path: Path, *, reader: str, skipped: Collection[str] = ()) -> Columns:
    """Read a file.

    Parameters
    ----------
    path : Path
        As in `fedlabels.data.tables.read_table`.
    reader : str
        Data set, for messages.
    skipped : collection of str
        Columns that nobody looks at: they may hold anything, and are read as missing.

    Returns
    -------
    Columns
        All of it.

    Raises
    ------
    DataError
        If it cannot be read or does not name its columns.
    """
    table = read_table(path, reader=reader)
    _check_names(path, list(table.columns))
    nothing = [""] * len(table)
    values = {
        name: _texts(nothing if name in skipped else table.texts(name)) for name in table.columns
    }
    return Columns(path, values, np.arange(1, len(table) + 1))


def is_absent(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Mark missing values."""
    return np.asarray(values == "")


def as_numbers(values: NDArray[Any]) -> NDArray[np.float64] | None:
    """Return values as numbers, nan where missing; None where one is no number."""
    filled = np.where(is_absent(values), "nan", values)
    try:
        return filled.astype(np.float64)
    except ValueError:
        return None


def strangest(values: NDArray[Any]) -> int | None:
    """Return the place of the first value that is no number among numbers; None if all are text."""
    numeric = np.array([_is_number(value) for value in values.tolist()], dtype=bool)
    texts = ~numeric & ~is_absent(values)
    return int(texts.argmax()) if numeric.any() and texts.any() else None


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _texts(values: Sequence[str]) -> NDArray[Any]:
    return np.array(["" if value in ABSENT else value for value in values], dtype=np.str_)


def _check_names(path: Path, names: Sequence[str]) -> None:
    if all(_is_number(name) for name in names):
        raise DataError(
            f"{path} begins with numbers ({', '.join(names[:5])}); the first line must name the "
            "columns"
        )
    if "" in names:
        raise DataError(f"{path}: every column needs a name, got one without")
