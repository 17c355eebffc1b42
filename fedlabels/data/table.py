"""Tables as CSV or Parquet: one sample a row, with columns for label, client, domain and split.

Columns of numbers are features as they are, columns of text as one feature for each value that the
training rows have (one-hot). Numbers and constants come from the training rows alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.arrays import numbered, origins, owners, statistics
from fedlabels.data.columns import Columns, as_numbers, is_absent, read_columns, strangest
from fedlabels.data.dataset import DataSource, pair
from fedlabels.data.digits import every_nth_of_class
from fedlabels.data.labels import texts
from fedlabels.data.options import choice, text, whole
from fedlabels.data.roots import Roots
from fedlabels.data.roots import missing as not_found
from fedlabels.data.tables import ENDINGS
from fedlabels.errors import ConfigError, DataError

_NAME = "table"
_SPLITS = ("train", "test")
_MOST = 1000  # values of a column of text: names and keys have more, categories fewer
_SHOWN = 10


@dataclass(frozen=True)
class _Roles:
    """What columns are for: the reader's options of those names."""

    label: str
    true_label: str | None
    client: str | None
    domain: str | None
    split: str | None
    categorical: tuple[str, ...]
    drop: tuple[str, ...]

    def features(self, table: Columns) -> list[str]:
        """Return the columns that are features; refuse names that the table has not."""
        named = {
            "label_column": self.label, "true_label_column": self.true_label,
            "client_column": self.client, "domain_column": self.domain,
            "split_column": self.split,
        }  # fmt: skip
        single = [(option, name) for option, name in named.items() if name is not None]
        many = [("categorical_columns", n) for n in self.categorical]
        many += [("drop_columns", n) for n in self.drop]
        for option, name in (*single, *many):
            if name not in table.values:
                raise ConfigError(
                    f"{_NAME}: dataset.options.{option}={name} is no column of {table.path}, which "
                    f"has {', '.join(list(table.values)[: 2 * _SHOWN])}"
                )
        taken = {name for _, name in single} | set(self.drop)
        clash = taken & set(self.categorical)
        if clash:
            raise ConfigError(
                f"{_NAME}: dataset.options.categorical_columns names {sorted(clash)[0]}, which is "
                "no feature by another option"
            )
        return [name for name in table.values if name not in taken]


def read_table_set(
    roots: Roots,
    /,
    *,
    label_column: str,
    true_label_column: str | None = None,
    client_column: str | None = None,
    domain_column: str | None = None,
    split_column: str | None = None,
    test_every: int | None = None,
    categorical_columns: Sequence[str] = (),
    drop_columns: Sequence[str] = (),
    missing: str | None = None,
) -> DataSource:
    """Read a table.

    Parameters
    ----------
    roots : Roots
        ``root`` is a file, or a folder with train.csv and test.csv (or .parquet).
    label_column : str
        Class of a row, text or whole numbers; an empty field or -1 is unlabeled.
    true_label_column : str or None
        The true class, where ``label_column`` is what people gave.
    client_column, domain_column : str or None
        Natural client and domain of a row.
    split_column : str or None
        ``train`` or ``test`` in every row.
    test_every : int or None
        Without a split: distance of the rows of a class, in the order of the file, that are test
        data, >= 2.
    categorical_columns, drop_columns : sequence of str
        Columns of numbers that are names of something; columns that are no feature.
    missing : {"mean", "drop"} or None
        What becomes of empty fields (also "?", "NA" and "nan"): the mean of the training rows (of
        text: none of its values), or the row is left out. None refuses them.

    Returns
    -------
    DataSource
        float32 (N, features). Classes are sorted, as numbers if all are.

    Raises
    ------
    ConfigError
        If an option is out of range or names no column.
    DataError
        If files are missing or damaged, or leave a doubt.
    """
    if test_every is not None:
        whole(_NAME, "dataset.options.test_every", test_every, low=2)
    if missing is not None:
        choice(_NAME, "dataset.options.missing", missing, ("mean", "drop"))
    roles = _Roles(
        label=text(_NAME, "dataset.options.label_column", label_column),
        true_label=_column("true_label_column", true_label_column),
        client=_column("client_column", client_column),
        domain=_column("domain_column", domain_column),
        split=_column("split_column", split_column),
        categorical=texts(_NAME, "dataset.options.categorical_columns", categorical_columns),
        drop=texts(_NAME, "dataset.options.drop_columns", drop_columns),
    )
    files = _locate(roots)
    tables = [read_columns(path, reader=_NAME, skipped=roles.drop) for path in files]
    names = roles.features(tables[0])
    if len(tables) > 1 and list(tables[1].values) != list(tables[0].values):
        raise DataError(
            f"{files[1]} has the columns {', '.join(list(tables[1].values)[:_SHOWN])}, {files[0]} "
            f"{', '.join(list(tables[0].values)[:_SHOWN])}; both need the same in one order"
        )
    sizes = sum(map(len, tables))
    tables = [_without_gaps(table, names, missing) for table in tables]
    left_out = sizes - sum(map(len, tables))
    train, test = _split(tables, roles, test_every)
    classes, (y, y_test) = _classes(roles.true_label or roles.label, (train, test), roles)
    given = _places(train, roles.label, classes) if roles.true_label else None
    x, x_test, reading = _features(train, test, names, roles.categorical)
    mean, std = statistics(x)
    if left_out:
        reading = f"{reading}; {left_out:,} of {sizes:,} rows left out, a value is missing"
    return pair(
        files[0].stem if len(files) == 1 else files[0].parent.name,
        (x, y),
        (x_test, y_test),
        class_names=classes,
        mean=mean,
        std=std,
        domains=_domains(train, test, roles.domain),
        owners=owners(_origin(train, roles.client)),
        test_owners=owners(_origin(test, roles.client)),
        given=given,
        reading=reading,
    )


def _column(option: str, name: str | None) -> str | None:
    return None if name is None else text(_NAME, f"dataset.options.{option}", name)


def _locate(roots: Roots) -> tuple[Path, ...]:
    tried = [roots.option] if roots.option else [root / _NAME for root in roots.shared]
    for place in tried:
        if place.is_file():
            if place.suffix.lower() not in ENDINGS:
                raise DataError(f"{place} must end in {', '.join(ENDINGS)}")
            return (place,)
        for suffix in ENDINGS:
            pair_of = tuple(place / f"{split}{suffix}" for split in _SPLITS)
            if all(path.is_file() for path in pair_of):
                return pair_of
            if pair_of[0].is_file():
                raise DataError(
                    f"{pair_of[0]} has no {pair_of[1].name} beside it: add it, or set dataset.root "
                    f"to {pair_of[0]} and dataset.options.test_every=5"
                )
    raise not_found(
        _NAME,
        tried,
        "set dataset.root to a .csv or .parquet file, or to a folder with train.csv and test.csv",
    )


def _without_gaps(table: Columns, names: Sequence[str], option: str | None) -> Columns:
    """Refuse missing values, or leave out their rows."""
    if option == "mean":
        return table
    lacking = np.zeros(len(table), dtype=bool)
    for name in names:
        absent = is_absent(table.values[name])
        if absent.any() and option is None:
            raise DataError(
                f"{table.path}, row {table.row[int(absent.argmax())]}: column {name!r} has no "
                f"value there and in {int(absent.sum()) - 1} more rows; set "
                "dataset.options.missing=mean or =drop"
            )
        lacking |= absent
    return table.at(~lacking)


def _split(
    tables: Sequence[Columns], roles: _Roles, test_every: int | None
) -> tuple[Columns, Columns]:
    ways = {"split_column": roles.split, "test_every": test_every}
    given = [option for option, value in ways.items() if value is not None]
    if len(tables) > 1 and given:
        raise ConfigError(
            f"{_NAME}: dataset.options.{given[0]} has no effect, {tables[1].path} is the test split"
        )
    if len(given) > 1:
        raise ConfigError(
            f"{_NAME}: dataset.options.split_column and dataset.options.test_every both choose the "
            "test rows: give one of them"
        )
    if len(tables) > 1:
        return tables[0], tables[1]
    table = tables[0]
    if roles.split is not None:
        marks = np.char.lower(table.values[roles.split])
        strange = ~np.isin(marks, _SPLITS)
        if strange.any():
            row = int(strange.argmax())
            raise DataError(
                f"{table.path}, row {table.row[row]}: dataset.options.split_column={roles.split} "
                f"must be train or test, got {table.values[roles.split][row].item()!r}"
            )
        test = marks == "test"
    elif test_every is not None:
        column = _labels(table, roles.true_label or roles.label)
        known = np.isin(column, ("", "-1"), invert=True)
        (groups,), _ = numbered(column)
        test = every_nth_of_class(groups, test_every) & known
    else:
        raise DataError(
            f"{table.path} is one file, and nothing says which rows are test data: set "
            "dataset.options.split_column, or dataset.options.test_every=5 for each fifth row of "
            "every class, or give a folder with train.csv and test.csv"
        )
    return table.at(~test), table.at(test)


def _classes(
    column: str, tables: tuple[Columns, Columns], roles: _Roles
) -> tuple[tuple[str, ...], list[NDArray[np.int64]]]:
    """Return the names of the classes in order, and the class of every row."""
    found: set[str] = set()
    for name in {column, roles.label}:
        for table in tables:
            found |= set(_labels(table, name).tolist())
    found -= {""}
    if found == {"-1", "1"}:
        raise DataError(
            f"{tables[0].path}: the labels in column {roles.label!r} are -1 and 1, and -1 is "
            "unlabeled: call the classes 0 and 1 (or no and yes), and leave the field empty where "
            "the class is not known"
        )
    found -= {"-1"}
    if len(found) < 2:
        raise DataError(
            f"{tables[0].path}: column {column!r} needs two classes, got "
            f"{', '.join(sorted(found)) or 'none'}"
        )
    whole_numbers = all(label.isdecimal() for label in found)
    names = tuple(sorted(found, key=int) if whole_numbers else sorted(found))
    return names, [_places(table, column, names) for table in tables]


def _labels(table: Columns, column: str) -> NDArray[Any]:
    """Return labels as text; whole numbers that a table holds as 1.0 become 1."""
    values = table.values[column]
    numeric = as_numbers(values)
    if numeric is None:
        return values
    known = ~np.isnan(numeric)
    broken = known & (numeric != np.floor(numeric))
    if broken.any():
        row = int(broken.argmax())
        raise DataError(
            f"{table.path}, row {table.row[row]}: label {values[row].item()!r} in column "
            f"{column!r} is no class: whole numbers or text are, and numbers to be predicted "
            "(regression) are not supported"
        )
    out = np.full(len(values), "", dtype=object)
    out[known] = [str(int(value)) for value in numeric[known].tolist()]
    return out.astype(np.str_)


def _places(table: Columns, column: str, names: Sequence[str]) -> NDArray[np.int64]:
    number = {name: place for place, name in enumerate(names)}
    places = [number.get(label, -1) for label in _labels(table, column).tolist()]
    return np.array(places, dtype=np.int64)


def _features(
    train: Columns, test: Columns, names: Sequence[str], categorical: Sequence[str]
) -> tuple[NDArray[np.float32], NDArray[np.float32], str]:
    parts: list[list[NDArray[np.float64]]] = [[], []]
    texts_of = 0
    for name in names:
        columns = [table.values[name] for table in (train, test)]
        numeric = [n for column in columns if (n := as_numbers(column)) is not None]
        if name in categorical or len(numeric) < len(columns):
            texts_of += 1
            if name not in categorical:
                _check_text(train, test, name)
            values = np.unique(columns[0][~is_absent(columns[0])])
            for part, column in zip(parts, columns, strict=True):
                part.append((column[:, None] == values[None]).astype(np.float64))
            continue
        known = numeric[0][~np.isnan(numeric[0])]
        if not len(known):
            raise DataError(
                f"{train.path}: no training row has a value in column {name!r}; leave it out by "
                "dataset.options.drop_columns"
            )
        for part, column in zip(parts, numeric, strict=True):
            part.append(np.where(np.isnan(column), known.mean(), column)[:, None])
    if not sum(part.shape[1] for part in parts[0]):
        raise DataError(f"{train.path} has no column that is a feature")
    x, x_test = (np.concatenate(part, axis=1) for part in parts)
    for table, values in ((train, x), (test, x_test)):
        with np.errstate(over="ignore"):
            bad = ~np.isfinite(values.astype(np.float32)).all(axis=1)
        if bad.any():
            raise DataError(
                f"{table.path}, row {table.row[int(bad.argmax())]}: a number is infinite or "
                "beyond float32"
            )
    reading = f"from {len(names)} columns, {texts_of} of them of text" if texts_of else ""
    return x.astype(np.float32), x_test.astype(np.float32), reading


def _check_text(train: Columns, test: Columns, name: str) -> None:
    for table in (train, test):
        row = strangest(table.values[name])
        if row is not None:
            raise DataError(
                f"{table.path}, row {table.row[row]}: column {name!r} holds numbers, but "
                f"{table.values[name][row].item()!r} here; mend it, or name the column in "
                "dataset.options.categorical_columns or drop_columns"
            )
    values = len(np.unique(train.values[name]))
    if values > _MOST:
        raise DataError(
            f"{train.path}: column {name!r} has {values:,} different texts, more than {_MOST:,}: "
            "leave it out by dataset.options.drop_columns, or name it in categorical_columns"
        )


def _origin(table: Columns, column: str | None) -> NDArray[Any] | None:
    if column is None:
        return None
    values = table.values[column]
    return origins(f"{table.path}: column {column!r}", _ordered(values), len(table))


def _ordered(values: NDArray[Any]) -> NDArray[Any]:
    """Return whole numbers as such, so that client 10 follows client 9."""
    if all(value.isdecimal() and str(int(value)) == value for value in values.tolist()):
        return values.astype(np.int64)
    return values


def _domains(
    train: Columns, test: Columns, column: str | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[str, ...]] | None:
    first, second = (_origin(table, column) for table in (train, test))
    if first is None or second is None:
        return None
    if first.dtype.kind != second.dtype.kind:
        first, second = first.astype(np.str_), second.astype(np.str_)
    (a, b), names = numbered(first, second)
    return a, b, names
