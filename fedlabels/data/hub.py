"""Data sets of the Hugging Face hub, through the optional library ``datasets``.

The reader ``huggingface`` reads any set of images by the names of its columns. :func:`fetch` is
what the readers of published sets use where ``download: true`` is set and no files are found.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.arrays import held_out, numbered, origins, owners, statistics
from fedlabels.data.dataset import DataSource, pair
from fedlabels.data.images import MAX_SIDE, to_pixels
from fedlabels.data.labels import class_names as names_of
from fedlabels.data.labels import one_a_sample
from fedlabels.data.options import library, text, whole
from fedlabels.data.progress import counted
from fedlabels.data.roots import Roots
from fedlabels.errors import DataError

_NAME = "huggingface"
_INSTALL = "datasets pillow"
Names = tuple[str, ...]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class HubSet:
    """Where a data set is on the hub, and what its columns and splits are called.

    Parameters
    ----------
    path : str
        Id of the set, for instance ``"ylecun/mnist"``, or a local folder.
    config : str or None
        Configuration of the set, where it has several.
    image, label : str
        Columns of the images and of the classes (numbers or names).
    client, domain : str or None
        Columns of the natural clients and of the domains.
    train, test : str, str or None
        Splits. Without a test split each fifth sample of every class (in every domain) of the
        training split is test data.
    """

    path: str
    config: str | None = None
    image: str = "image"
    label: str = "label"
    client: str | None = None
    domain: str | None = None
    train: str = "train"
    test: str | None = "test"


@dataclass(frozen=True)
class _Split:
    """Columns of one split; ``client`` and ``domain`` as given, None where there is no column."""

    x: NDArray[np.uint8]
    y: Numbers
    client: NDArray[Any] | None
    domain: NDArray[Any] | None

    def take(self, chosen: NDArray[np.bool_]) -> "_Split":
        """Return the samples chosen."""
        client, domain = (c if c is None else c[chosen] for c in (self.client, self.domain))
        return _Split(self.x[chosen], self.y[chosen], client, domain)


def read_huggingface(
    roots: Roots,
    /,
    *,
    path: str,
    config: str | None = None,
    image_column: str = "image",
    label_column: str = "label",
    client_column: str | None = None,
    domain_column: str | None = None,
    train_split: str = "train",
    test_split: str | None = "test",
    size: int | None = None,
    num_classes: int | None = None,
) -> DataSource:
    """Read a set of images from the hub.

    Parameters
    ----------
    roots : Roots
        ``root``, if given, is where the library keeps what it has fetched.
    path : str
        Id on the hub, or a folder in a form that ``datasets`` reads.
    config : str or None
        Configuration of the set, where it has several.
    image_column, label_column : str
        Columns of the images and of the classes: numbers or names, -1 or null is unlabeled.
    client_column, domain_column : str or None
        Columns of the natural clients and of the domains: numbers or names.
    train_split, test_split : str, str or None
        Splits; without a test split each fifth sample of every class (in every domain) is test
        data.
    size : int or None
        Side in pixels to which every image is scaled, 1 to 4096; None wants images of one shape.
    num_classes : int or None
        Number of classes of a column of numbers without names; None takes the largest plus one, if
        every class below it occurs.

    Returns
    -------
    DataSource
        uint8 (N, 1 or 3, H, W); grey where all images are. Constants are those of the training
        split.

    Raises
    ------
    ConfigError
        If an option is of another type or out of range.
    DataError
        If ``datasets`` is not installed, the set cannot be fetched, or lacks a split or a column.
    """
    columns = {"client": client_column, "domain": domain_column}
    given = {
        "path": path, "image_column": image_column, "label_column": label_column,
        "train_split": train_split,
    }  # fmt: skip
    optional = {
        "config": config, "client_column": client_column, "domain_column": domain_column,
        "test_split": test_split,
    }  # fmt: skip
    for option, value in (given | {k: v for k, v in optional.items() if v is not None}).items():
        text(_NAME, option, value)
    hub = HubSet(
        path, config, image_column, label_column, **columns, train=train_split, test=test_split
    )
    size = None if size is None else whole(_NAME, "size", size, high=MAX_SIDE)
    cache = str(roots.option) if roots.option else None
    return fetch(_NAME, hub, size=size, cache=cache, num_classes=num_classes)


def fetch(
    name: str,
    hub: HubSet,
    *,
    class_names: Names | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    size: int | None = None,
    cache: str | None = None,
    num_classes: int | None = None,
) -> DataSource:
    """Fetch a set of images, or take it from the library's cache.

    Parameters
    ----------
    name, hub : str, HubSet
        Name of the data set, and what to fetch.
    class_names, mean, std : tuple or None
        As in :func:`~fedlabels.data.dataset.pair`; None takes the column's names, and the
        constants of the training split.
    size, cache : int or None, str or None
        Side in pixels to which images are scaled; folder for what is fetched, None is the
        library's own.
    num_classes : int or None
        As in :func:`read_huggingface`.

    Returns
    -------
    DataSource
        Training and test split.

    Raises
    ------
    DataError
        If ``datasets`` is not installed, the set cannot be fetched, or lacks a split or a column.
    """
    splits = _load(name, hub, cache)
    names = [hub.train] if hub.test is None else [hub.train, hub.test]
    absent = [split for split in names if split not in splits]
    if absent:
        raise DataError(
            f"{hub.path} has no split {absent[0]!r}, only {', '.join(splits) or 'none'}; choose "
            "train_split and test_split of them (test_split: null holds out a part of train)"
        )
    rows = [splits[split] for split in names]
    for part in rows:
        _check_columns(hub, part)
    labels, known = _labels(hub, rows, len(class_names) if class_names else num_classes)
    parts = [_read(name, hub, *both, size) for both in zip(rows, labels, strict=True)]
    train, test = parts if hub.test is not None else _hold_out(hub, parts[0])
    if mean is None or std is None:
        mean, std = statistics(train.x)
    return pair(
        name if name != _NAME else hub.path,
        (train.x, train.y),
        (test.x, test.y),
        class_names=class_names or known,
        mean=mean,
        std=std,
        domains=_domains(train, test),
        owners=owners(train.client),
        test_owners=owners(test.client),
    )


def _load(name: str, hub: HubSet, cache: str | None) -> Mapping[str, Any]:
    datasets = library("datasets", reader=name, install=_INSTALL)
    try:
        splits: Mapping[str, Any] = datasets.load_dataset(hub.path, hub.config, cache_dir=cache)
    # The library and those below it raise errors of many classes, with no common one.
    except Exception as error:
        config = f" ({hub.config})" if hub.config else ""
        raise DataError(
            f"data set {name!r}: {hub.path}{config} cannot be fetched from the hub "
            f"({type(error).__name__}: {error}); check its name and the connection, or put the "
            "files where they are looked for"
        ) from error
    return splits


def _check_columns(hub: HubSet, rows: Any) -> None:
    columns = [c for c in (hub.image, hub.label, hub.client, hub.domain) if c is not None]
    absent = [column for column in columns if column not in rows.column_names]
    if absent:
        raise DataError(
            f"{hub.path} has no column {absent[0]!r}; it has {', '.join(rows.column_names)}"
        )


def _read(name: str, hub: HubSet, rows: Any, labels: Numbers, size: int | None) -> _Split:
    x = _images(name, hub, rows[hub.image], size)
    client, domain = (
        None if column is None else _origin(hub, column, rows[column], len(x))
        for column in (hub.client, hub.domain)
    )
    return _Split(x, labels, client, domain)


def _images(name: str, hub: HubSet, images: Any, size: int | None) -> NDArray[np.uint8]:
    decoded: list[NDArray[np.uint8]] = []
    row = -1
    try:
        for row, image in enumerate(counted(images, "images")):
            where = f"{hub.path}: image {row}"
            if not hasattr(image, "convert"):
                raise DataError(
                    f"{where} of column {hub.image!r} is {type(image).__name__}, no image; choose "
                    "image_column"
                )
            decoded.append(to_pixels(image, reader=name, where=where, size=size, keep_grey=True))
    except DataError:
        raise
    # Images are decoded as they are asked for, and damage has no common class of error.
    except Exception as error:
        raise DataError(f"{hub.path}: image after {row} cannot be read ({error})") from error
    channels = max((pixels.shape[0] for pixels in decoded), default=1)
    sides = sorted({pixels.shape[1:] for pixels in decoded})
    if len(sides) != 1:
        raise DataError(
            f"{hub.path}: images have {len(sides)} shapes, {sides[:3]}; give the side to scale all "
            "to, for instance dataset.options.size=32"
        )
    stack = np.empty((len(decoded), channels, *sides[0]), dtype=np.uint8)
    for row, pixels in enumerate(decoded):
        stack[row] = pixels  # grey among colours: three equal channels
    return stack


def _origin(hub: HubSet, column: str, values: Any, count: int) -> NDArray[Any]:
    return origins(f"{hub.path}: column {column!r}", np.array(list(values)), count)


def _labels(
    hub: HubSet, splits: Sequence[Any], num_classes: int | None
) -> tuple[list[Numbers], Names]:
    columns = [list(rows[hub.label]) for rows in splits]
    values = [value for column in columns for value in column if value is not None]
    class_names = [getattr(rows.features.get(hub.label), "names", None) for rows in splits]
    if any(names != class_names[0] for names in class_names):
        raise DataError(f"{hub.path}: the splits number the classes of {hub.label!r} differently")
    where = f"{hub.path}: column {hub.label!r}"
    number: dict[Any, int] = {None: -1}
    if values and all(isinstance(value, str) for value in values):
        known = tuple(sorted(set(values)))
        number |= {name: i for i, name in enumerate(known)}
    elif all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        known = tuple(class_names[0] or ())
    else:
        kinds = {type(value).__name__ for value in values}
        several = "; several labels a sample are not supported" if "list" in kinds else ""
        raise DataError(
            f"{where} must hold whole numbers or names, got {', '.join(sorted(kinds))}{several}; "
            "choose label_column"
        )
    numbers = [
        one_a_sample(where, np.array([number.get(v, v) for v in c] or np.zeros(0, np.int64)))
        for c in columns
    ]
    if known and num_classes is not None and num_classes != len(known):
        raise DataError(
            f"{where} names {len(known)} classes, dataset.options.num_classes={num_classes}; leave "
            "the option away"
        )
    return numbers, known or names_of(_NAME, num_classes, None, *numbers)


def _hold_out(hub: HubSet, split: _Split) -> tuple[_Split, _Split]:
    domains = None if split.domain is None else numbered(split.domain)[0][0]
    test = held_out(split.y, domains)
    if not test.any():
        raise DataError(
            f"{hub.path}: no class of {hub.train!r} has the five samples of which each fifth could "
            "be test data; choose test_split"
        )
    return split.take(~test), split.take(test)


def _domains(train: _Split, test: _Split) -> tuple[Numbers, Numbers, Names] | None:
    if train.domain is None or test.domain is None:
        return None
    (first, second), names = numbered(train.domain, test.domain)
    return first, second, names
