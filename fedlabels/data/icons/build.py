"""Collect the icons of installed themes into one file; see :mod:`fedlabels.data.icons`."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.icons.reader import CLASSES, FILE, NAME, SIDE, THEMES
from fedlabels.data.images import read_pixels
from fedlabels.errors import DataError

SYSTEM_THEMES = Path("/usr/share/icons")
_SIZES = (32, 48)


class _Theme(NamedTuple):
    """Where the classes of a theme lie, and those whose folder has another name."""

    layout: str
    renamed: dict[str, str]


_THEMES = (  # in the order of THEMES
    _Theme("oxygen/base/{size}x{size}/{kind}", {}),
    _Theme("Tango/{size}x{size}/{kind}", {}),
    _Theme("gnome/{size}x{size}/{kind}", {}),
    _Theme("Faenza/{kind}/{size}", {}),
    _Theme("elementary-xfce/{kind}/{size}", {"mimetypes": "mimes"}),
)


def build(folder: Path, *, themes: Path = SYSTEM_THEMES) -> dict[str, int]:
    """Collect the icons of the installed themes into ``icons.npz``.

    Parameters
    ----------
    folder : Path
        Where to write it; made if it is not there.
    themes : Path
        Folder of the installed themes.

    Returns
    -------
    dict of str to int
        Number of icons of every theme.

    Raises
    ------
    DataError
        If a theme is missing, an icon is damaged, or Pillow is not installed.
    """
    rows: list[tuple[NDArray[np.uint8], int, int, str]] = []
    seen: set[bytes] = set()
    for number, (name, theme) in enumerate(zip(THEMES, _THEMES, strict=True)):
        before = len(rows)
        for kind, path in _files(theme, themes):
            digest = hashlib.sha256(path.read_bytes()).digest()
            if digest not in seen:
                seen.add(digest)
                rows.append((_pixels(path), kind, number, path.stem))
        if len(rows) == before:
            raise DataError(
                f"theme {name!r} has no icons below {themes}: install "
                f"{name}-icon-theme, for instance by make data-icons"
            )
    _write(folder / FILE, rows)
    counts = np.bincount([row[2] for row in rows], minlength=len(THEMES))
    return dict(zip(THEMES, counts.tolist(), strict=True))


def _files(theme: _Theme, themes: Path) -> Iterator[tuple[int, Path]]:
    for kind, name in enumerate(CLASSES):
        for size in _SIZES:
            layout = theme.layout.format(size=size, kind=theme.renamed.get(name, name))
            # A link is another name of an icon that is there.
            files = (p for p in (themes / layout).rglob("*.png") if not p.is_symlink())
            yield from ((kind, path) for path in sorted(files))


def _pixels(path: Path) -> NDArray[np.uint8]:
    return read_pixels(path, reader=NAME, where=str(path), size=SIDE)


def _write(path: Path, rows: Sequence[tuple[NDArray[np.uint8], int, int, str]]) -> None:
    x, y, theme, icon = zip(*rows, strict=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")  # a reader never sees half a file
    np.savez_compressed(
        part, x=np.stack(x), y=np.array(y), theme=np.array(theme), icon=np.array(icon, dtype=str)
    )
    part.replace(path)
