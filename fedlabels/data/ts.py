"""Files ``.ts`` of the UCR and UEA archives: series, one a line, as aeon and sktime read them.

A header of lines with ``@`` is followed by ``@data``. In a line of data ``:`` separates channels
and the class, ``,`` values; ``?`` is a missing value, or a class that is not known. Blank lines
and comments (``#`` or ``%`` in front) are passed over.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.arrays import statistics
from fedlabels.data.dataset import DataSource, pair
from fedlabels.data.options import choice, text
from fedlabels.data.ragged import finite
from fedlabels.data.roots import Roots, candidates, find_first
from fedlabels.data.roots import missing as not_found
from fedlabels.data.windows import Cutter, Series
from fedlabels.errors import DataError

_NAME = "ts"
_SPLITS = ("TRAIN", "TEST")
_UNKNOWN = ("?", "NaN", "nan")  # aeon writes an unknown class as NaN
_SHOWN = 10


class _Line(NamedTuple):
    """What is read, for messages."""

    path: Path
    number: int

    def fail(self, problem: str) -> DataError:
        return DataError(f"{self.path}, line {self.number}: {problem}")


@dataclass
class _Part:
    """One file: its classes in order, and series with the class of each."""

    classes: tuple[str, ...] = ()
    series: list[Series] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)


def read_ts(
    roots: Roots,
    /,
    *,
    name: str | None = None,
    window: int | None = None,
    step: int | None = None,
    pad: str | None = None,
    missing: str | None = None,
) -> DataSource:
    """Read ``NAME_TRAIN.ts`` and ``NAME_TEST.ts``.

    Parameters
    ----------
    roots : Roots
        ``root`` is the folder with the two files, or one that holds it under the name of the set.
    name : str or None
        Name of the set; None takes that of the folder, or the only one in it.
    window, step, pad
        As in `fedlabels.data.windows.Cutter`.
    missing : {"interpolate"} or None
        What becomes of values that are missing within a series: they lie on a line between their
        neighbours, and are the nearest one at the ends. None refuses them.

    Returns
    -------
    DataSource
        Training and test split, float32 (N, channels, time), classes in the order of
        ``@classLabel``, -1 where ``?``. Constants are those of the training windows.

    Raises
    ------
    ConfigError
        If an option is out of range.
    DataError
        If files are missing or damaged, have time stamps or no classes, or do not fit together.
    """
    cutter = Cutter(_NAME, window, step, pad)
    if missing is not None:
        choice(_NAME, "dataset.options.missing", missing, ("interpolate",))
    if name is not None:
        text(_NAME, "dataset.options.name", name)
    paths = _locate(roots, name)
    parts = [_read(path, fills=missing is not None) for path in paths]
    train, test = parts
    if set(train.classes) != set(test.classes):
        raise DataError(
            f"{paths[1]} names the classes {', '.join(test.classes)}, {paths[0]} "
            f"{', '.join(train.classes)}; @classLabel of both must name the same"
        )
    number = {label: place for place, label in enumerate(train.classes)}
    cut = [cutter.cut(str(path), part.series) for path, part in zip(paths, parts, strict=True)]
    labels = [np.array([number.get(label, -1) for label in part.labels]) for part in parts]
    mean, std = statistics(cut[0].x)
    return pair(
        paths[0].name.removesuffix(f"_{_SPLITS[0]}.ts"),
        (cut[0].x, labels[0][cut[0].series]),
        (cut[1].x, labels[1][cut[1].series]),
        class_names=train.classes,
        mean=mean,
        std=std,
        reading=cut[0].reading,
    )


def _locate(roots: Roots, name: str | None) -> tuple[Path, Path]:
    remedy = (
        "set dataset.root to the folder with NAME_TRAIN.ts and NAME_TEST.ts, and "
        "dataset.options.name=NAME"
    )
    folders = candidates(roots, (name, f"{_NAME}/{name}") if name else (_NAME,))
    if name is None:
        found = [path for folder in folders for path in sorted(folder.glob("*_TRAIN.ts"))]
        namesakes = [path for path in found if path.name == f"{path.parent.name}_TRAIN.ts"]
        found = namesakes[:1] or found
        if len(found) > 1:
            names = [path.name.removesuffix("_TRAIN.ts") for path in found]
            raise DataError(
                f"{found[0].parent} holds {len(found)} sets ({', '.join(names[:_SHOWN])}); set "
                "dataset.options.name to one of them"
            )
        if not found:
            raise not_found(_NAME, [folder / "NAME_TRAIN.ts" for folder in folders], remedy)
        folders, name = [found[0].parent], found[0].name.removesuffix("_TRAIN.ts")
    files = [tuple(folder / f"{name}_{split}.ts" for split in _SPLITS) for folder in folders]
    both = [pair for pair in files if all(path.is_file() for path in pair)]
    if not both:
        lacking = find_first((path for pair in files for path in pair), Path.is_file)
        beside = f"{lacking} lies there alone; " if lacking else ""
        raise not_found(_NAME, [path for pair in files for path in pair], f"{beside}{remedy}")
    return both[0][0], both[0][1]


def _read(path: Path, *, fills: bool) -> _Part:
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error})") from error
    part, channels, in_data = _Part(), 0, False
    for number, raw in enumerate(lines, start=1):
        line, where = raw.strip(), _Line(path, number)
        if not line or line[0] in "#%":
            continue
        if line.startswith("@"):
            if in_data:
                raise where.fail(f"{line.split()[0]} after @data: one set a file is read")
            in_data = _header(where, line, part)
            continue
        if not in_data:
            raise where.fail("neither @... nor a comment before @data: this is no .ts file")
        item, label = _sample(where, line, part.classes, fills=fills)
        channels = channels or len(item)
        if len(item) != channels:
            raise where.fail(f"{len(item)} channels, the lines before have {channels}")
        part.series.append(item)
        part.labels.append(label)
    if not part.series:
        raise DataError(f"{path} holds no series{'' if in_data else ', and no line @data'}")
    return part


def _header(where: _Line, line: str, part: _Part) -> bool:
    """Take in a line of the header; true where it is the last one."""
    tag, *words = line.split()
    flag = words[0].lower() if words else ""
    match tag.lower():
        case "@timestamps" if flag == "true":
            raise where.fail(_stamps())
        case "@targetlabel" if flag == "true":
            raise where.fail("@targetLabel true: its targets are numbers (regression), not classes")
        case "@classlabel":
            if flag != "true":
                raise where.fail(f"@classLabel {flag}: a set without classes is not read")
            part.classes = tuple(word for word in words[1:] if word not in _UNKNOWN)
            if len(part.classes) < 2 or len(set(part.classes)) < len(part.classes):
                raise where.fail(
                    "@classLabel true must name two or more different classes, got "
                    f"{' '.join(words[1:]) or 'none'}"
                )
        case "@data":
            if not part.classes:
                raise where.fail("@data without a line @classLabel true ... before it")
            return True
        case _:
            pass
    return False


def _sample(where: _Line, line: str, classes: Sequence[str], *, fills: bool) -> tuple[Series, str]:
    *channels, label = (word.strip() for word in line.split(":"))
    if label in _UNKNOWN and label not in classes:
        label = "?"
    elif label not in classes:
        raise where.fail(
            f"ends in {label[:30]!r}, which is no class of @classLabel ({', '.join(classes)}) and "
            "not ?: the line may be cut off"
        )
    if not channels:
        raise where.fail("no values before the class")
    if channels[0].startswith("("):
        raise where.fail(_stamps())
    values = [_values(where, number, channel) for number, channel in enumerate(channels)]
    if len({len(channel) for channel in values}) > 1:
        lengths = ", ".join(str(len(channel)) for channel in values[:_SHOWN])
        raise where.fail(f"channels of different lengths ({lengths}); all need the same")
    item = np.stack(values)
    known = np.flatnonzero(~np.isnan(item).all(axis=0))
    item = item[:, : known[-1] + 1] if len(known) else item[:, :0]
    if fills:
        item = np.stack([_filled(where, number, channel) for number, channel in enumerate(item)])
    elif np.isnan(item).any():
        channel, step = np.argwhere(np.isnan(item))[0].tolist()
        raise where.fail(
            f"a value is missing in channel {channel} at step {step}; set "
            "dataset.options.missing=interpolate, or leave the series out"
        )
    if not item.size:
        raise where.fail("every value is missing; leave the series out")
    return finite(f"{where.path}, line {where.number}", 0, item.astype(np.float32)), label


def _values(where: _Line, number: int, channel: str) -> NDArray[np.float64]:
    try:
        return np.array(channel.replace("?", "nan").split(","), dtype=np.float64)
    except ValueError as error:
        raise where.fail(
            f"channel {number} holds what is neither a number nor ? ({error})"
        ) from error


def _filled(where: _Line, number: int, channel: NDArray[np.float64]) -> NDArray[np.float64]:
    known = np.flatnonzero(~np.isnan(channel))
    if not len(known):
        raise where.fail(f"channel {number} has no value to fill the missing ones from")
    return np.interp(np.arange(len(channel)), known, channel[known])


def _stamps() -> str:
    return (
        "values with time stamps are not read: store values at equal distances and "
        "@timeStamps false"
    )
