"""Tables as a program wants them: columns of numbers or texts by name."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlabels.errors import ConfigError, DataError
from fedlabels.report.blocks import table

_SHOWN = 20  # rows in a notebook


class Table(dict[str, NDArray[Any]]):
    """Columns by name: a dict of arrays of one length.

    A column of whole numbers is int64; one of numbers is float64 and NaN where a cell is blank;
    any other is text, and so is one without any value.
    """

    @property
    def height(self) -> int:
        """Number of rows."""
        return len(next(iter(self.values()), ()))

    def to_pandas(self) -> Any:
        """Return a ``pandas.DataFrame``.

        Raises
        ------
        ConfigError
            If pandas, which nothing else needs, is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ConfigError(
                f"to_pandas() needs pandas ({error}): pip install pandas; without it the columns"
                " are arrays, as table['round']"
            ) from error
        return pandas.DataFrame(dict(self))

    def _repr_html_(self) -> str:
        rows = [[_shown(self[name][i]) for name in self] for i in range(min(self.height, _SHOWN))]
        more = f"<p>{self.height} rows, the first {_SHOWN} are shown</p>"
        return str(table(list(self), rows, texts=0)) + (more if self.height > _SHOWN else "")


def column(texts: Sequence[str]) -> NDArray[Any]:
    """Read a column.

    Parameters
    ----------
    texts : sequence of str
        Its cells; "" is a blank one.

    Returns
    -------
    ndarray, shape (rows,)
        See `Table`.

    Examples
    --------
    >>> column(["1", "2"]), column(["1", ""]), column(["ok", ""])
    (array([1, 2]), array([ 1., nan]), array(['ok', ''], dtype='<U2'))
    """
    if any(texts):
        kinds = ((int, texts), (float, [text or "nan" for text in texts]))
        for kind, cells in kinds:
            try:
                return np.array([kind(cell) for cell in cells], np.dtype(kind))
            except (ValueError, OverflowError):
                continue
    return np.array(texts, dtype=np.str_)


def from_rows(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Make a table of rows.

    Parameters
    ----------
    rows : iterable of mapping
        Column -> value, None where there is none.
    """
    lines = list(rows)
    names = dict.fromkeys(name for line in lines for name in line)
    return Table({name: _column([line.get(name) for line in lines]) for name in names})


def read(path: Path) -> Table:
    """Read a table of a run folder; empty where there is none.

    Parameters
    ----------
    path : Path
        A CSV file. A last line without an end, which a run is writing just now, is left out.

    Raises
    ------
    DataError
        If it is damaged.
    """
    if not path.exists():
        return Table()
    try:
        text = path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        header, *rows = list(csv.reader(io.StringIO(whole, newline=""), strict=True)) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is damaged ({error}): restore it") from error
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise DataError(
                f"{path} is damaged (line {number} has {len(row)} values, not {len(header)}):"
                " restore it"
            )
    cells = zip(*rows, strict=True) if rows else ((),) * len(header)
    return Table({name: column(texts) for name, texts in zip(header, cells, strict=True)})


def _column(values: Sequence[Any]) -> NDArray[Any]:
    known = [value for value in values if value is not None]
    if not known or any(isinstance(value, str) for value in known):
        return np.array(["" if value is None else str(value) for value in values], dtype=np.str_)
    if len(known) < len(values):
        return np.array([np.nan if value is None else value for value in values], np.float64)
    return np.array(values)


def _shown(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
