"""What a report is made of, read from a run folder alone.

Nothing is required but ``manifest.json`` or ``rounds.csv``: a run that is still going, was killed,
or has no pseudo-labels is read as far as it goes.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from fedlabels.errors import DataError
from fedlabels.report.holdings import Holdings, read_holdings

Column = NDArray[np.float64]


@dataclass(frozen=True)
class Columns:
    """A table of numbers by column.

    Parameters
    ----------
    values : mapping of str to ndarray, shape (rows,)
        NaN where a cell is blank or no number.
    """

    values: Mapping[str, Column] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Names of the columns that have at least one number, in the file's order."""
        return [name for name in self.values if self.has(name)]

    def has(self, name: str) -> bool:
        """Say whether a column exists and has at least one number."""
        return bool(np.isfinite(self.get(name)).any())

    def get(self, name: str) -> Column:
        """Return a column; all NaN when there is none of that name."""
        return self.values.get(name, np.full(len(self), np.nan))

    def total(self, name: str) -> float:
        """Return the sum of a column's numbers; NaN when it has none."""
        return float(np.nansum(self.get(name))) if self.has(name) else float("nan")

    def __len__(self) -> int:
        return len(next(iter(self.values.values()), ()))


@dataclass(frozen=True)
class Participation:
    """Who took part, from ``clients.csv``.

    Parameters
    ----------
    seen : int
        Clients that were sampled at least once.
    errors : list of tuple
        (status, error, how often, first round, a client_id), the most frequent first.
    """

    seen: int = 0
    errors: list[tuple[str, str, int, str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class RunData:
    """All that a report says.

    Parameters
    ----------
    path : Path
        The run folder.
    manifest : mapping
        ``manifest.json``.
    settings : mapping or str
        ``config.yaml``; a text says why it cannot be shown.
    rounds, recall, personal : Columns
        ``rounds.csv``, ``test_class.csv`` and ``personal.csv``.
    participation : Participation
        From ``clients.csv``.
    holdings : Holdings or None
        From ``federation.npz``.
    confusion, calibration : Columns
        ``confusion.csv`` and ``calibration.csv``; empty for a run of before there were such files.
    domains : list of mapping of str to str
        Rows of ``test_domain.csv`` of the last evaluation.
    """

    path: Path
    manifest: Mapping[str, Any]
    settings: Mapping[str, Any] | str
    rounds: Columns
    recall: Columns
    personal: Columns
    participation: Participation
    holdings: Holdings | None
    confusion: Columns = field(default_factory=Columns)
    calibration: Columns = field(default_factory=Columns)
    domains: list[dict[str, str]] = field(default_factory=list)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, their numbers where the run has none."""
        named = self.manifest.get("class_names")
        number = self.holdings.num_classes if self.holdings else len(self.recall_names)
        if isinstance(named, list) and len(named) == number:
            return [str(name) for name in named]
        return [str(index) for index in range(number)]

    @property
    def last_recall(self) -> Column | None:
        """Recall by class at the last evaluation, shape (classes,); None where not measured."""
        rows = self.recall_rows
        return self.recalls(rows[-1]) if rows else None

    @property
    def recall_names(self) -> list[str]:
        """Columns of the recall by class, in the order of the classes."""
        return [name for name in self.recall.values if name.startswith("recall_")]

    @property
    def recall_rows(self) -> list[int]:
        """Rows of ``test_class.csv`` in which some recall was measured."""
        return [i for i in range(len(self.recall)) if np.isfinite(self.recalls(i)).any()]

    def recalls(self, row: int) -> Column:
        """Return the recalls of one row, shape (classes,).

        Parameters
        ----------
        row : int
            Of ``test_class.csv``.
        """
        return self.of_classes("recall", row)

    def of_classes(self, figure: str, row: int) -> Column:
        """Return a figure of every class, shape (classes,); nan where it is not known.

        Parameters
        ----------
        figure : str
            ``"recall"``, ``"precision"`` or ``"f1"``.
        row : int
            Of ``test_class.csv``.
        """
        names = [name.replace("recall", figure, 1) for name in self.recall_names]
        return np.array([self.recall.get(name)[row] for name in names])

    @property
    def confusion_matrix(self) -> Column | None:
        """Test samples by true (row) and predicted class (column); None where not measured."""
        names = [name for name in self.confusion.values if name.startswith("predicted_")]
        counts = np.array([self.confusion.get(name) for name in names]).T
        if not counts.size or counts.shape[0] != counts.shape[1]:
            return None
        return counts if np.isfinite(counts).all() else None


def read_run(folder: Path) -> RunData:
    """Read a run folder.

    Parameters
    ----------
    folder : Path
        A run folder; the run may still be going.

    Returns
    -------
    RunData
        Its content.

    Raises
    ------
    DataError
        If the folder holds no run, or a file in it is damaged.
    """
    manifest, rounds = folder / "manifest.json", folder / "rounds.csv"
    if not manifest.exists() and not rounds.exists():
        raise DataError(
            f"{folder} holds no run: it has neither manifest.json nor rounds.csv; give the folder"
            " that the run wrote"
        )
    return RunData(
        path=folder,
        manifest=read_json(manifest),
        settings=_read_settings(folder / "config.yaml"),
        rounds=_read_columns(rounds),
        recall=_read_columns(folder / "test_class.csv"),
        personal=_read_columns(folder / "personal.csv"),
        participation=_read_participation(folder / "clients.csv"),
        holdings=read_holdings(folder / "federation.npz"),
        confusion=_read_columns(folder / "confusion.csv"),
        calibration=_read_columns(folder / "calibration.csv"),
        domains=_last_rows(folder / "test_domain.csv"),
    )


def read_json(path: Path) -> Mapping[str, Any]:
    """Read a JSON object; empty where there is none.

    Raises
    ------
    DataError
        If the file is no JSON.
    """
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}): move it away") from error
    return values if isinstance(values, dict) else {}


def _read_settings(path: Path) -> Mapping[str, Any] | str:
    if not path.exists():
        return "The run folder has no config.yaml."
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        return f"config.yaml cannot be read: {error}"
    return values if isinstance(values, dict) else "config.yaml holds no settings."


def _read_columns(path: Path) -> Columns:
    table: dict[str, list[float]] = {}
    for row in _read_rows(path):
        for name, text in row.items():
            table.setdefault(name, []).append(_number(text))
    return Columns({name: np.array(values, dtype=np.float64) for name, values in table.items()})


def _last_rows(path: Path) -> list[dict[str, str]]:
    rows = list(_read_rows(path))
    return [row for row in rows if row.get("round") == rows[-1].get("round")]


def _read_participation(path: Path) -> Participation:
    seen: set[str] = set()
    errors: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], tuple[str, str]] = {}
    for row in _read_rows(path):
        client, status = row.get("client_id", ""), row.get("status", "")
        seen.add(client)
        if status not in ("ok", "empty"):
            kind = (status, row.get("error", ""))
            errors[kind] += 1
            first.setdefault(kind, (row.get("round", ""), client))
    lines = [(*kind, number, *first[kind]) for kind, number in errors.most_common()]
    return Participation(len(seen), lines)


def _read_rows(path: Path) -> Iterator[dict[str, str]]:
    """Go through a CSV file's whole rows; one that is still being written is left out."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", newline="", errors="replace") as file:
        reader = csv.reader(line for line in file if line.endswith("\n"))
        header = next(reader, [])
        for values in reader:
            if len(values) == len(header):
                yield dict(zip(header, values, strict=True))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
