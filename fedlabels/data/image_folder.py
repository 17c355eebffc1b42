"""Folders of image files, one folder a class: CINIC-10, Tiny-ImageNet, Office-Home, your own.

``train/<class>/*`` and ``test/<class>/*`` hold the splits; where there is no test folder with
known classes, ``val`` or ``valid`` is the test split (also in Tiny-ImageNet's form, ``val/images``
with ``val_annotations.txt``). Without a train folder each fifth image of every class is test data.
Images without a class folder, or in one called ``unlabeled`` (in any case, also ``unlabelled``),
have label -1. A class folder without an image that can be read is refused: to leave it out would
number the classes anew.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.arrays import held_out, numbered, statistics
from fedlabels.data.dataset import DataSource, pair
from fedlabels.data.image_lists import read_image_lists
from fedlabels.data.image_names import STRANGE
from fedlabels.data.image_table import (
    TableOptions,
    hint,
    read_image_table,
    refuse_other_classes,
    word,
)
from fedlabels.data.images import MAX_SIDE, SUFFIXES, Image, decode, is_image, is_unread
from fedlabels.data.options import flag, whole
from fedlabels.data.roots import Roots, find_first, missing
from fedlabels.errors import ConfigError, DataError

_NAME = "image_folder"
_TESTS = ("test", "val", "valid", "validation")
_UNLABELED = ("unlabeled", "unlabelled")
_NO_CLASS = frozenset(("images",))  # folders of a test split that are no classes
_ANNOTATIONS = "val_annotations.txt"


def read_image_folder(
    roots: Roots,
    /,
    *,
    size: int | None = None,
    domains: bool = False,
    lists: str | bool = False,
    table: str | bool | None = None,
    file_column: str | None = None,
    label_column: str | None = None,
    label_columns: Sequence[str] | None = None,
    true_label_column: str | None = None,
    unlabeled_value: str | int | None = None,
    class_names: Sequence[str] | None = None,
    domain_column: str | None = None,
    client_column: str | None = None,
    split_column: str | None = None,
    train_split: str | int | None = None,
    test_split: str | int | None = None,
) -> DataSource:
    """Read a tree of image files, or those that a table names.

    Parameters
    ----------
    roots : Roots
        ``root`` is the folder with ``train`` and ``test``, or with the classes (or domains).
    size : int or None
        Side in pixels to which every image is scaled, 1 to 4096; None wants images of one shape.
    domains : bool
        Whether there is a level of domains above the classes, ``<domain>/<class>/*``: below
        ``train`` and ``test``, or in the root, where each fifth image of every class in every
        domain is test data.
        Where each domain holds the splits, they are those, ``<domain>/train/<class>/*``.
    lists : bool or str
        Whether ``<domain>_train.txt`` and so on in the root, or in a folder below it, say which
        images there are; see :mod:`fedlabels.data.image_lists`.
    table : str, False or None
        CSV or Parquet file below the root with a row for each image; the other options are of it.
        False reads folders as classes although a table names their images.
    file_column : str
        Column of the files: paths or names, with or without ending.
    label_column : str
        Column of the classes, empty where not known; whole numbers are sorted by value.
    label_columns : list of str
        In its place: a column of 0 and 1 for each class.
    true_label_column : str or None
        Column of the true classes, where ``label_column`` is what people gave.
    unlabeled_value : str or None
        What the label column has, besides nothing, where the class is not known.
    class_names : list of str or None
        All classes in their order; None takes those of the training rows.
    domain_column, client_column : str or None
        Columns of the domains and natural clients.
    split_column, train_split, test_split : str or None
        Column that says what is training and what is test data, and how it says so; None knows the
        usual words. Without the column each fifth image of every class, in every domain, is test
        data.

    Returns
    -------
    DataSource
        Training and test split, uint8 (N, 3, H, W), with domains if asked for. Classes and files
        are in the order of their names; those of a table in the order of its rows. Constants are
        those of the training split.

    Raises
    ------
    ConfigError
        If an option is out of range, lacking or without effect.
    DataError
        If nothing is found, an image is damaged, or the folders do not fit together.
    """
    size = None if size is None else whole(_NAME, "size", size, high=MAX_SIDE)
    domains = flag(_NAME, "domains", domains)
    options = TableOptions(
        table=table,
        file_column=file_column,
        label_column=label_column,
        label_columns=label_columns,
        true_label_column=true_label_column,
        unlabeled_value=word(unlabeled_value),
        class_names=class_names,
        domain_column=domain_column,
        client_column=client_column,
        split_column=split_column,
        train_split=word(train_split),
        test_split=word(test_split),
    )
    if table and domains:
        raise ConfigError(
            f"{_NAME}: dataset.options.domains is of folders; with a table set domain_column"
        )
    if table and lists:
        raise ConfigError(f"{_NAME}: give dataset.options.table or lists, not both")
    tried = [roots.option] if roots.option else [root / _NAME for root in roots.shared]
    folder = find_first(tried, Path.is_dir)
    if folder is None:
        raise missing(
            _NAME, tried, "set dataset.root to the folder with train/<class>/ and test/<class>/"
        )
    if lists:
        return read_image_lists(folder, lists, size)
    if table:
        return read_image_table(folder, options, size)
    train, test, classes = _splits(folder, domains)
    if table is None:
        refuse_other_classes(folder, train)
    arrays = decode([*train, *test], size)
    first = (arrays[: len(train)], _labels(train, classes))
    second = (arrays[len(train) :], _labels(test, classes))
    origin = _domains(train, test) if domains else None
    mean, std = statistics(first[0])
    return pair(
        folder.name or _NAME, first, second, class_names=classes, mean=mean, std=std, domains=origin
    )


def _splits(folder: Path, domains: bool) -> tuple[list[Image], list[Image], tuple[str, ...]]:
    if (folder / "train").is_dir():
        train = listing(folder / "train", domains)
        above = _folders(folder / "train") if domains else [folder / "train"]
        classes = _classes(folder / "train", train, above, root=folder)
        return train, _test_split(folder, domains, classes), classes
    places = _folders(folder) if domains else []
    if places and all(_holds_splits(place) for place in places):
        return _splits_of_domains(folder, places)
    splits = [name for name in _TESTS if (folder / name).is_dir()]
    if splits:
        raise DataError(f"{folder} has a folder {splits[0]}, but none called train; add it")
    images = listing(folder, domains)
    classes = _classes(folder, images, _folders(folder) if domains else [folder], root=folder)
    origin = _domains(images, [])[0] if domains else None
    test = held_out(_labels(images, classes), origin)
    if not test.any():
        raise DataError(
            f"{folder} has no train folder, and no class of five images of which each fifth could "
            "be test data; add images, or make the folders train and test"
        )
    chosen: tuple[list[Image], list[Image]] = ([], [])
    for image, marked in zip(images, test.tolist(), strict=True):
        chosen[marked].append(image)
    return *chosen, classes


def _classes(
    folder: Path, images: list[Image], above: list[Path], *, root: Path
) -> tuple[str, ...]:
    _refuse_empty(images, above)
    classes = tuple(sorted({image.label for image in images if image.label is not None}))
    if len(classes) < 2:
        table = hint(root, folder)
        if table:
            raise DataError(f"{folder} has no folders of two classes, but a table: {table}")
        raise DataError(
            f"{folder} must hold images in two or more class folders, "
            f"found {', '.join(classes) or 'none'}"
        )
    return classes


def _holds_splits(domain: Path) -> bool:
    names = {sub.name for sub in _folders(domain)}
    return "train" in names and names <= {"train", *_TESTS}


def _splits_of_domains(
    folder: Path, places: list[Path]
) -> tuple[list[Image], list[Image], tuple[str, ...]]:
    """Read ``<domain>/<split>/<class>/*``."""
    stray = [image for place in (folder, *places) for image in _images(place)]
    if stray:
        raise DataError(f"{stray[0]} is in no split; move it into <domain>/train/<class>/")
    name = next((n for n in _TESTS if all((place / n).is_dir() for place in places)), None)
    if name is None:
        raise DataError(
            f"{folder}: every domain must hold train and a folder for test data of one name "
            f"({', '.join(_TESTS)}); found "
            + ", ".join(f"{p.name}: {' and '.join(s.name for s in _folders(p))}" for p in places)
        )
    train, test = (
        [image for place in places for image in _classes_below(place / split, place.name)]
        for split in ("train", name)
    )
    classes = _classes(folder, train, [place / "train" for place in places], root=folder)
    _refuse_unknown(test, classes)
    return train, test, classes


def _refuse_empty(images: list[Image], above: list[Path]) -> None:
    below = [sub for place in above for sub in _folders(place) if not _is_unlabeled(sub)]
    known = {image.label for image in images}
    empty = [sub for sub in below if sub.name not in known]
    if empty:
        raise DataError(
            f"{empty[0]} holds no image ({', '.join(e[1:] for e in SUFFIXES)}), so class "
            f"{empty[0].name!r} would disappear; add images of it, or remove the folder"
        )


def _test_split(folder: Path, domains: bool, classes: tuple[str, ...]) -> list[Image]:
    for name in _TESTS:
        images = _test_listing(folder / name, domains)
        # Tiny-ImageNet has a test folder, but its images carry no class: then val is taken.
        if {image.label for image in images} <= {None, *_NO_CLASS.difference(classes)}:
            continue
        _refuse_unknown(images, classes)
        return images
    raise DataError(
        f"{folder} has train, but no {', '.join(_TESTS[:-1])} or {_TESTS[-1]} folder with images "
        f"in folders named as the classes, and no val/{_ANNOTATIONS}; add one of them"
    )


def _refuse_unknown(images: list[Image], classes: tuple[str, ...]) -> None:
    for image in images:
        if image.label not in classes:
            raise DataError(
                f"{image.path}: a test image must be in a folder named as a training class "
                f"({', '.join(classes[:10])}{', ...' if len(classes) > 10 else ''}); move it"
            )


def _test_listing(folder: Path, domains: bool) -> list[Image]:
    if not folder.is_dir():
        return []
    table = folder / _ANNOTATIONS
    if domains or not table.is_file():
        return listing(folder, domains)
    labels = _annotations(table)
    absent = [name for name in labels if not (folder / "images" / name).is_file()]
    if absent:
        raise DataError(f"{table} names {absent[0]}, which is not in {folder / 'images'}")
    return [Image(folder / "images" / name, labels[name], None) for name in sorted(labels)]


def _annotations(table: Path) -> dict[str, str]:
    """Read the classes of the images beside the table, by file name."""
    try:
        lines = table.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{table} cannot be read as UTF-8 ({error}); convert it") from error
    labels: dict[str, str] = {}
    for line in filter(None, lines):
        name, *rest = line.split("\t")
        if not rest:
            raise DataError(f"{table}: a line must be file, tab, class; got {line!r}")
        if name != Path(name).name or "\\" in name or name in ("", ".", ".."):
            raise DataError(f"{table}: {name!r} is no name of a file in {table.parent / 'images'}")
        if labels.setdefault(name, rest[0]) != rest[0]:
            raise DataError(f"{table} gives {name} two classes, {labels[name]} and {rest[0]}")
    return labels


def listing(folder: Path, domains: bool) -> list[Image]:
    """Find the images of a split, in the order of classes and names.

    Parameters
    ----------
    folder : Path
        Holds ``<class>/*``, or ``<domain>/<class>/*``.
    domains : bool
        Whether there is a level of domains.

    Raises
    ------
    DataError
        If an image lies too deep, or in no domain.
    """
    if not domains:
        return _classes_below(folder, None)
    unknown = [sub for sub in _folders(folder) if _is_unlabeled(sub)]
    stray = [image for place in (folder, *unknown) for image in _images(place)]
    if stray:
        raise DataError(
            f"{stray[0]} is in no domain; with domains=true every image lies in <domain>/<class>/, "
            f"or in <domain>/{_UNLABELED[0]}/ where its class is not known"
        )
    return [image for sub in _folders(folder) for image in _classes_below(sub, sub.name)]


def _classes_below(folder: Path, domain: str | None) -> list[Image]:
    found = [Image(path, None, domain) for path in _images(folder)]
    for sub in _folders(folder):
        label = None if _is_unlabeled(sub) else sub.name
        found += [Image(path, label, domain) for path in _images_of_class(sub, domain)]
    return found


def _images_of_class(folder: Path, domain: str | None) -> list[Path]:
    every = sorted(folder.rglob("*"))
    unread = [path for path in every if is_unread(path)]
    if unread:
        raise DataError(
            f"{unread[0]} is a picture of a kind that is not read; convert it to png or jpg, or "
            "remove it"
        )
    found = [path for path in every if is_image(path)]
    for path in found:
        # Tiny-ImageNet has one more folder, train/<class>/images; a set of domains has, too.
        if path.parent not in (folder, folder / "images"):
            raise _too_deep(path, folder, domain)
    return found


def _too_deep(path: Path, folder: Path, domain: str | None) -> DataError:
    """Say what to set, or to move, where the folders have other levels."""
    top = folder.parent if domain is None else folder.parents[1]
    above = path.relative_to(top).parts[:-2]  # the last folder is the class
    split = above[-1] in ("train", *_TESTS)
    place = top.joinpath(*(above[:-2] if split else above[:-1]))  # holds the domains
    problem = f"{path} lies too deep to be of class {folder.name!r}"
    root = "" if place == top else f"dataset.root={place}"
    if domain is None:
        options = f"dataset.options.domains=true {root}".rstrip()
        return DataError(
            f"{problem}; if the folders above the classes are domains, set {options}; if they are "
            "not, set dataset.root to the folder that holds the classes"
        )
    if split and not root:
        return DataError(
            f"{problem} of domain {domain!r}; if {above[-1]} is a split, every domain must hold "
            f"train and one of {', '.join(_TESTS)}, and no other folder"
        )
    if top.name in ("train", *_TESTS):
        return DataError(f"{problem}: below {top} lie <domain>/<class>/; move the folders up")
    return DataError(
        f"{problem} of domain {domain!r}: it must lie in <domain>/<class>/ or "
        f"<domain>/<split>/<class>/; set {root or 'dataset.root to the folder of the domains'}"
    )


def _folders(folder: Path) -> list[Path]:
    below = (p for p in folder.iterdir() if p.is_dir() and p.name not in STRANGE)
    return sorted(p for p in below if not p.name.startswith("."))


def _is_unlabeled(folder: Path) -> bool:
    return folder.name.casefold() in _UNLABELED


def _images(folder: Path) -> list[Path]:
    return sorted(filter(is_image, folder.iterdir())) if folder.is_dir() else []


def _labels(images: list[Image], classes: tuple[str, ...]) -> NDArray[np.int64]:
    number: dict[str | None, int] = {name: i for i, name in enumerate(classes)}
    return np.array([number.get(image.label, -1) for image in images], dtype=np.int64)


def _domains(
    train: list[Image], test: list[Image]
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[str, ...]]:
    groups = [np.array([str(i.domain) for i in images], dtype=str) for images in (train, test)]
    (first, second), names = numbered(*groups)
    return first, second, names
