"""Image files by lists of paths and numbers of classes: DomainNet, PACS, Office-31.

``<domain>_train.txt`` and ``<domain>_test.txt`` have a line ``path number`` for each image. PACS
has ``<domain>_train_kfold.txt`` and ``<domain>_crossval_kfold.txt``, and numbers classes from 1.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.arrays import held_out, numbered, statistics
from fedlabels.data.dataset import DataSource, pair
from fedlabels.data.image_names import Files
from fedlabels.data.images import Image, decode
from fedlabels.data.options import inside
from fedlabels.errors import DataError

_NAME = "image_folder"
_LIST = re.compile(r"(?:(?P<domain>.+?)_)?(?P<split>train|test|crossval|val|valid)(?:_.*)?\.txt")
_HELD = ("crossval", "val", "valid")


class _Listed(NamedTuple):
    """An image with its number and domain, as lists say them."""

    path: Path
    number: int
    domain: str


def read_image_lists(folder: Path, lists: str | bool, size: int | None) -> DataSource:
    """Read the images that lists name.

    Parameters
    ----------
    folder : Path
        Holds the images, at any depth.
    lists : str or True
        Folder of the lists below it; True is ``folder`` itself.
    size : int or None
        Side in pixels to which every image is scaled.

    Returns
    -------
    DataSource
        Training and test split, uint8 (N, 3, H, W), in the order of the lists, with their domains.
        Lists without a split in their names are one a domain: each fifth image of every class in
        every domain is test data.

    Raises
    ------
    DataError
        If lists or images are missing, a line is none, or lists of both splits name an image.
    """
    place = folder if lists is True else folder / inside(_NAME, "lists", lists)
    texts = sorted(place.glob("*.txt")) if place.is_dir() else []
    names = {path: _LIST.fullmatch(path.name) for path in texts}
    files = Files(folder, place) if texts else None
    if files is None:
        raise DataError(
            f"dataset.options.lists: {place} has no lists; it must hold <domain>_train.txt and "
            "<domain>_test.txt, or <domain>.txt, with lines of a path and a number"
        )
    if any(names.values()):
        found: dict[str, dict[str, list[_Listed]]] = {}
        for path, name in names.items():
            if name is not None:
                domain = name["domain"] or ""
                found.setdefault(name["split"], {})[domain] = _read(path, files, domain)
        train, test = _splits(place, found)
        domains = sorted(found["train"])
    else:
        domains = [path.stem for path in texts]
        every = [image for path in texts for image in _read(path, files, path.stem)]
        train, test = _hold_out(place, every)
    base, classes = _classes(place, [*train, *test])
    x = decode([Image(image.path, None, None) for image in (*train, *test)], size)
    mean, std = statistics(x[: len(train)])
    y = np.array([image.number - base for image in (*train, *test)], dtype=np.int64)
    origin = None
    if domains != [""]:
        (of_train, of_test), known = numbered(_origins(train), _origins(test))
        origin = of_train, of_test, known
    cut = len(train)
    return pair(
        folder.name or _NAME,
        (x[:cut], y[:cut]),
        (x[cut:], y[cut:]),
        class_names=classes,
        mean=mean,
        std=std,
        domains=origin,
    )


def _read(path: Path, files: Files, domain: str) -> list[_Listed]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 ({error}); convert it") from error
    rows = [(place, line.rsplit(maxsplit=1)) for place, line in enumerate(lines, 1) if line.strip()]
    for place, cells in rows:
        if len(cells) != 2 or not (cells[1].isascii() and cells[1].isdigit()):
            raise DataError(
                f"{path}: line {place} must be a path, a space and the number of a class, got "
                f"{lines[place - 1]!r}"
            )
    names = [cells[0] for _, cells in rows]
    paths = files.locate(str(path), names, [place for place, _ in rows], "line")
    return [
        _Listed(file, int(cells[1]), domain) for file, (_, cells) in zip(paths, rows, strict=True)
    ]


def _splits(
    place: Path, found: Mapping[str, Mapping[str, list[_Listed]]]
) -> tuple[list[_Listed], list[_Listed]]:
    """Choose the lists of training and test data."""
    if "train" not in found:
        raise DataError(
            f"{place} has lists of {', '.join(found)}, but none called <domain>_train.txt"
        )
    train = _all(found["train"])
    trained = {image.path for image in train}
    # The test lists of PACS hold whole domains, for training on the others: then crossval is taken.
    splits = [name for name in ("test", *_HELD) if name in found]
    clean = [name for name in splits if trained.isdisjoint(i.path for i in _all(found[name]))]
    if not clean:
        lists = f"lists of {', '.join(splits)} name training images" if splits else "no other list"
        raise DataError(
            f"{place} has training lists, but {lists}; add <domain>_test.txt with other images"
        )
    tests = found[clean[0]]
    if tests.keys() != found["train"].keys():
        alone = sorted(tests.keys() ^ found["train"].keys())[0]
        raise DataError(
            f"{place}: {alone or 'a list without a domain'} has a list of train or {clean[0]}, not "
            "of both; add the other one"
        )
    return train, _all(tests)


def _all(lists: Mapping[str, list[_Listed]]) -> list[_Listed]:
    return [image for domain in sorted(lists) for image in lists[domain]]


def _hold_out(place: Path, images: list[_Listed]) -> tuple[list[_Listed], list[_Listed]]:
    labels = np.array([image.number for image in images], dtype=np.int64)
    test = held_out(labels, numbered(_origins(images))[0][0]).tolist()
    if not any(test):
        raise DataError(
            f"{place}: no class has the five images in a domain of which each fifth could be test "
            "data; make lists <domain>_train.txt and <domain>_test.txt"
        )
    pairs = list(zip(images, test, strict=True))
    return [i for i, mark in pairs if not mark], [i for i, mark in pairs if mark]


def _classes(place: Path, images: Sequence[_Listed]) -> tuple[int, tuple[str, ...]]:
    """Return the number of the first class, and names: of folders if they agree with the numbers.

    Numbers are kept where one never occurs, as class 327 of DomainNet's painting.
    """
    folders: dict[int, set[str]] = {}
    for image in images:
        folders.setdefault(image.number, set()).add(image.path.parent.name)
    base, last = int(min(folders) == 1), max(folders)
    if last - base >= len(images) or len(folders) < 2:
        raise DataError(
            f"{place}: numbers of classes are {', '.join(map(str, sorted(folders)[:5]))}, up to "
            f"{last}, of {len(images):,} images; number two or more classes from 0 or 1"
        )
    only = {number: names.pop() for number, names in folders.items() if len(names) == 1}
    agree = len(only) == len(folders) == len(set(only.values()))
    names = [only[n] if agree and n in only else str(n) for n in range(base, last + 1)]
    return base, tuple(names)


def _origins(images: Sequence[_Listed]) -> NDArray[np.str_]:
    return np.array([image.domain for image in images], dtype=str)
