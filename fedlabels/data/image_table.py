"""Image files in one folder, with a table of their classes: ISIC, HAM10000, CelebA, your own."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.arrays import NOBODY, held_out, numbered, origins, owners, statistics
from fedlabels.data.dataset import DataSource, pair
from fedlabels.data.image_names import Files
from fedlabels.data.images import Image, decode
from fedlabels.data.labels import texts
from fedlabels.data.options import inside, text
from fedlabels.data.tables import Table, read_table, tables_in
from fedlabels.errors import ConfigError, DataError

_NAME = "image_folder"
_SPLITS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation", "dev"),
}
_DOUBTFUL = (*NOBODY[1:], "-1")  # an empty cell is plain
Marks = NDArray[np.bool_]
Numbers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """Options of the reader that say how the table is to be read; see `read_image_folder`."""

    table: str | bool | None = None
    file_column: str | None = None
    label_column: str | None = None
    label_columns: Sequence[str] | None = None
    true_label_column: str | None = None
    unlabeled_value: str | None = None
    class_names: Sequence[str] | None = None
    domain_column: str | None = None
    client_column: str | None = None
    split_column: str | None = None
    train_split: str | None = None
    test_split: str | None = None

    def __post_init__(self) -> None:
        names = [field.name for field in fields(self) if field.name != "table"]
        given = [name for name in names if getattr(self, name) is not None]
        if given and not self.table:
            raise ConfigError(
                f"{_NAME}: dataset.options.{given[0]} says how a table is read; set "
                "dataset.options.table, or leave it out"
            )
        for name in given:
            if name in ("label_columns", "class_names"):
                texts(_NAME, name, getattr(self, name))
            else:
                text(_NAME, name, getattr(self, name))
        if self.table not in (None, False):
            text(_NAME, "table", self.table)
        self._check_pairs()

    def _check_pairs(self) -> None:
        if self.label_column is not None and self.label_columns is not None:
            raise ConfigError(
                f"{_NAME}: give dataset.options.label_column (names or numbers of classes) or "
                "label_columns (a column of 0 and 1 for each class), not both"
            )
        for name in ("class_names", "unlabeled_value"):
            if getattr(self, name) is not None and self.label_columns is not None:
                raise ConfigError(
                    f"{_NAME}: dataset.options.{name} is of a label_column, not of label_columns"
                )
        if (self.train_split is None) != (self.test_split is None):
            raise ConfigError(
                f"{_NAME}: give both dataset.options.train_split and test_split, or neither"
            )
        if self.train_split is not None and self.split_column is None:
            raise ConfigError(
                f"{_NAME}: dataset.options.train_split and test_split are values of split_column; "
                "set it"
            )
        if self.train_split is not None and self.train_split == self.test_split:
            raise ConfigError(
                f"{_NAME}: dataset.options.train_split and test_split are both {self.train_split!r}"
            )


def word(value: Any) -> Any:
    """Return a cell as text: the command line makes numbers of those that look so."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def read_image_table(folder: Path, options: TableOptions, size: int | None) -> DataSource:
    """Read the image files that a table names.

    Parameters
    ----------
    folder : Path
        Holds the table and, somewhere below, the files.
    options : TableOptions
        With ``table``.
    size : int or None
        Side in pixels to which every image is scaled.

    Returns
    -------
    DataSource
        Training and test split in the order of the rows, uint8 (N, 3, H, W).

    Raises
    ------
    ConfigError
        If an option is lacking.
    DataError
        If a file is missing or named twice, or a cell says nothing that can be understood.
    """
    table = read_table(_table_path(folder, str(options.table)), reader=_NAME)
    if options.file_column is None or (options.label_column or options.label_columns) is None:
        raise ConfigError(f"{_NAME}: {advice(folder, table)}")
    used, test = _rows(table, options)
    images = _images(folder, table, options.file_column, used)
    given, classes = _labels(table, options, used, test)
    truth = given
    if options.true_label_column is not None:
        truth = _numbers(table, _cells(table, options.true_label_column, options), used, classes)
    domain = _origin(table, options.domain_column, used)
    client = _origin(table, options.client_column, used)
    if options.split_column is None:
        test = held_out(truth, None if domain is None else numbered(domain)[0][0])
        if not test.any():
            raise DataError(
                f"{table.path}: no class has the five images of which each fifth could be test "
                "data; set dataset.options.split_column, or check label_column"
            )
    x = decode([*_taken(images, ~test), *_taken(images, test)], size)
    first = int((~test).sum())
    mean, std = statistics(x[:first])
    domains = None
    if domain is not None:
        (of_train, of_test), names = numbered(domain[~test], domain[test])
        domains = of_train, of_test, names
    return pair(
        folder.name or _NAME,
        (x[:first], truth[~test]),
        (x[first:], truth[test]),
        class_names=classes,
        mean=mean,
        std=std,
        domains=domains,
        owners=owners(None if client is None else client[~test]),
        test_owners=owners(None if client is None else client[test]),
        given=None if truth is given else given[~test],
    )


def advice(folder: Path, table: Table) -> str:
    """Say which options a table needs, with its columns."""
    files = _file_columns(folder, table)
    rest = [name for name in table.columns if name not in files]
    file = files[0] if files else "COLUMN"
    return (
        f"set dataset.options.table={table.path.relative_to(folder).as_posix()} "
        f"dataset.options.file_column={file} dataset.options.label_column=COLUMN "
        "(and domain_column, client_column, split_column, true_label_column, or label_columns=[...]"
        f" with a column of 0 and 1 for each class); columns: {', '.join(rest or table.columns)}"
    )


def hint(root: Path, folder: Path) -> str:
    """Return what the tables beside some images may be good for; empty where there are none."""
    naming = _naming(root, folder)
    if naming:
        return f"{naming[0].path} names its images: {advice(root, naming[0])}"
    paths = [path for place in (root, folder) for path in tables_in(place)]
    return f"if {paths[0]} names its images, set dataset.options.table" if paths else ""


def refuse_other_classes(root: Path, images: Sequence[Image]) -> None:
    """Refuse folders as classes where a table names their images, and no column of it the folders.

    Raises
    ------
    DataError
        If it is so: HAM10000 comes in two folders, which say nothing.
    """
    for table in _naming(root, root):
        files = Files(root, table.path.parent)
        column = table.texts(_file_columns(root, table)[0])
        rows = {path: row for row, name in enumerate(column) for path in files.find(name)}
        held = [(rows[image.path], image.label) for image in images if image.path in rows]
        columns = [table.texts(name) for name in table.columns]
        if held and not any(all(cells[row] == label for row, label in held) for cells in columns):
            raise DataError(
                f"{table.path} names images of {root}, and no column of it is the folder that an "
                f"image lies in: are the folders classes? Set dataset.options.table=false if they "
                f"are. If not, {advice(root, table)}"
            )


def _naming(*folders: Path) -> list[Table]:
    """Return the tables in some folders that name images below the first."""
    found = []
    for path in dict.fromkeys(path for folder in folders for path in tables_in(folder)):
        try:
            table = read_table(path, reader=_NAME)
        except DataError:
            continue  # whatever it is, it was not asked for
        if _file_columns(folders[0], table):
            found.append(table)
    return found


def _table_path(folder: Path, option: str) -> Path:
    path = folder / inside(_NAME, "table", option)
    if not path.is_file():
        found = ", ".join(p.name for p in tables_in(folder)) or "none"
        raise DataError(
            f"dataset.options.table={option}: {path} does not exist; tables in {folder}: {found}"
        )
    return path


def _rows(table: Table, options: TableOptions) -> tuple[Numbers, Marks]:
    """Return the rows that are used, and which of them are test data by the split column."""
    if options.split_column is None:
        return np.arange(len(table)), np.zeros(len(table), dtype=bool)
    cells = table.texts(options.split_column)
    if options.train_split is not None and options.test_split is not None:
        known = {options.train_split: "train", options.test_split: "test"}
    else:
        known = {word: split for split, words in _SPLITS.items() for word in words}
        strange = [row for row, cell in enumerate(cells) if cell.lower() not in known]
        if strange:
            raise DataError(
                f"{table.path}: column {options.split_column!r} is {cells[strange[0]]!r} in row "
                f"{strange[0] + 1}, allowed are {', '.join(known)}; set dataset.options.train_split"
                " and test_split to the values that mark training and test rows"
            )
        cells = [cell.lower() for cell in cells]
    split = np.array([known.get(cell, "") for cell in cells])
    tests = "test" if (split == "test").any() or options.test_split is not None else "val"
    for name in ("train", tests):
        if not (split == name).any():
            raise DataError(
                f"{table.path}: column {options.split_column!r} marks no row as "
                f"{'training' if name == 'train' else 'test'} data; it holds "
                f"{', '.join(sorted(set(cells))[:10])}"
            )
    used = np.flatnonzero((split == "train") | (split == tests))
    return used, split[used] == tests


def _images(folder: Path, table: Table, column: str, used: Numbers) -> list[Image]:
    cells = table.texts(column)
    names = [cells[row] for row in used.tolist()]
    files = Files(folder, table.path.parent)
    paths = files.locate(f"{table.path}: column {column!r}", names, (used + 1).tolist(), "row")
    return [Image(path, None, None) for path in paths]


def _file_columns(folder: Path, table: Table) -> list[str]:
    """Return the columns most of whose cells are names of files."""
    files, found = Files(folder, table.path.parent), []
    for name in table.columns:
        try:
            cells = table.texts(name)
        except DataError:
            continue
        if 2 * sum(map(bool, map(files.find, cells))) > len(cells):
            found.append(name)
    return found


def _labels(
    table: Table, options: TableOptions, used: Numbers, test: Marks
) -> tuple[Numbers, tuple[str, ...]]:
    """Return the labels of the label column or columns, and the names of the classes."""
    if options.label_columns is not None:
        classes = tuple(options.label_columns)
        return _one_hot(table, classes)[used], _checked(table, classes)
    cells = _cells(table, str(options.label_column), options)
    if options.class_names is not None:
        return _numbers(table, cells, used, tuple(options.class_names)), _checked(
            table, tuple(options.class_names)
        )
    columns = [cells]
    if options.true_label_column is not None:
        columns.append(_cells(table, options.true_label_column, options))
    trained = {column[row] for column in columns for row in used[~test].tolist()}
    for row in used[test].tolist():
        if columns[-1][row] not in trained | {""}:
            raise DataError(
                f"{table.path}: row {row + 1} is test data of class {columns[-1][row]!r}, which no "
                "training row is of; give all classes as dataset.options.class_names=[...]"
            )
    classes = _checked(table, _ordered(trained - {""}))
    return _numbers(table, [c if c in classes else "" for c in cells], used, classes), classes


def _cells(table: Table, column: str, options: TableOptions) -> list[str]:
    """Return the cells of a column of labels, empty where the class is not known."""
    cells = ["" if c == options.unlabeled_value else c for c in table.texts(column)]
    for row, cell in enumerate(cells, 1):
        if cell in _DOUBTFUL and cell not in (options.class_names or ()):
            raise DataError(
                f"{table.path}: column {column!r} is {cell!r} in row {row}: if that means that the "
                f"class is not known, set dataset.options.unlabeled_value='{cell}', if it is a "
                "class, give all as dataset.options.class_names=[...]"
            )
    return cells


def _ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Sort names of classes: whole numbers by value, others as text."""
    found = sorted(names)
    if all(name.isascii() and name.isdigit() for name in found):
        found.sort(key=int)
    return tuple(found)


def _checked(table: Table, classes: tuple[str, ...]) -> tuple[str, ...]:
    if len(classes) < 2:
        raise DataError(
            f"{table.path} must name images of two or more classes, it names "
            f"{', '.join(classes) or 'none'}"
        )
    return classes


def _numbers(table: Table, cells: list[str], used: Numbers, classes: tuple[str, ...]) -> Numbers:
    number = {"": -1, **{name: place for place, name in enumerate(classes)}}
    for row in used.tolist():
        if cells[row] not in number:
            raise DataError(
                f"{table.path}: row {row + 1} is of class {cells[row]!r}, the classes are "
                f"{', '.join(classes[:10])}{', ...' if len(classes) > 10 else ''}"
            )
    return np.array([number[cells[row]] for row in used.tolist()], dtype=np.int64)


def _one_hot(table: Table, names: tuple[str, ...]) -> Numbers:
    columns = [table.texts(name) for name in names]
    labels = np.full(len(table), -1, dtype=np.int64)
    for row, cells in enumerate(zip(*columns, strict=True)):
        if not any(cells):
            continue
        try:
            values = [_BITS[cell] for cell in cells]
        except KeyError as error:
            raise DataError(
                f"{table.path}: row {row + 1} of {', '.join(names[:10])} must hold 0 and 1, got "
                f"{error.args[0]!r}"
            ) from error
        if sum(values) != 1:
            several = "several labels a sample (multi-label) are not supported"
            raise DataError(
                f"{table.path}: row {row + 1} must have a single 1 in {', '.join(names[:10])}, it "
                f"has {sum(values)}; {several if sum(values) else 'leave all cells empty'}"
                f"{'' if sum(values) else ' where the class is not known'}"
            )
        labels[row] = values.index(1)
    return labels


_BITS = {"0": 0, "0.0": 0, "False": 0, "1": 1, "1.0": 1, "True": 1}


def _origin(table: Table, column: str | None, used: Numbers) -> NDArray[np.str_] | None:
    if column is None:
        return None
    cells = np.array(table.texts(column), dtype=str)[used]
    return origins(f"{table.path}: column {column!r}", cells, len(used))


def _taken(images: list[Image], marks: Marks) -> list[Image]:
    return [image for image, mark in zip(images, marks.tolist(), strict=True) if mark]
