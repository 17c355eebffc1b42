"""Tables in files, CSV and Parquet, as columns of text."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlabels.data.options import library
from fedlabels.errors import DataError

ENDINGS = (".csv", ".tsv", ".parquet")
_SEPARATORS = ",;\t"
_SCALARS = (str, bool, int, float)


@dataclass(frozen=True, eq=False)
class Table:
    """The columns of a file.

    Parameters
    ----------
    path : Path
        The file, for messages.
    columns : mapping of str to sequence
        Name -> cells, of one length; numbers and None only where the file has types.
    """

    path: Path
    columns: Mapping[str, Sequence[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def texts(self, name: str) -> list[str]:
        """Return the cells of a column as text, empty where there is no value.

        Raises
        ------
        DataError
            If there is no such column, or a cell is neither text nor number.
        """
        if name not in self.columns:
            raise DataError(
                f"{self.path} has no column {name!r}; it has {', '.join(self.columns) or 'none'}"
            )
        cells = self.columns[name]
        for row, cell in enumerate(cells, 1):
            if cell is not None and not isinstance(cell, _SCALARS):
                raise DataError(
                    f"{self.path}: column {name!r} must hold text or numbers, row {row} holds a "
                    f"{type(cell).__name__}"
                )
        # None and nan, the only value that is not itself
        return ["" if cell is None or cell != cell else str(cell).strip() for cell in cells]


def read_table(path: Path, *, reader: str) -> Table:
    """Read a table with a line of names.

    Parameters
    ----------
    path : Path
        Parquet if its name ends so, else text in UTF-8 whose cells are separated by comma,
        semicolon or tab: by the one that is most frequent in the first line.
    reader : str
        Data set, for messages.

    Raises
    ------
    DataError
        If it is missing, damaged, has two columns of one name or a row of another length, or if
        pyarrow is not installed for Parquet.
    """
    names, columns = _parquet(path, reader) if path.suffix == ".parquet" else _text(path)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path} has two columns called {twice[0]!r}; rename one of them")
    return Table(path, dict(zip(names, columns, strict=True)))


def _text(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        text = path.read_text("utf-8-sig")
        first = next((line for line in text.splitlines() if line.strip()), "")
        separator = max(_SEPARATORS, key=first.count)
        rows = [
            row for row in csv.reader(io.StringIO(text), delimiter=separator, strict=True) if row
        ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} cannot be read as a table in UTF-8 ({error}); repair it"
        ) from error
    if len(rows) < 2:
        raise DataError(f"{path} must have a line of names and a row, it has {len(rows)} lines")
    names = [name.strip() for name in rows[0]]
    for number, row in enumerate(rows[1:], 1):
        if len(row) != len(names):
            raise DataError(
                f"{path}: row {number} has {len(row)} cells, the line of names has {len(names)}"
            )
    return names, [list(column) for column in zip(*rows[1:], strict=True)]


def _parquet(path: Path, reader: str) -> tuple[list[str], list[list[Any]]]:
    parquet = library("pyarrow.parquet", reader=reader, install="pyarrow")
    try:
        table = parquet.ParquetFile(path).read()
    # pyarrow has no common class for what a damaged file can raise.
    except Exception as error:
        raise DataError(
            f"{path} cannot be read as Parquet ({type(error).__name__}: {error})"
        ) from error
    return list(table.column_names), [column.to_pylist() for column in table.columns]


def tables_in(folder: Path) -> list[Path]:
    """Find the tables directly in a folder, by name; hidden files are none."""
    files = (p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    return sorted(path for path in files if path.suffix.lower() in ENDINGS)
