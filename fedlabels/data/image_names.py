"""Image files by the names that tables and lists give them."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from fedlabels.data.images import is_image, is_unread
from fedlabels.errors import DataError

STRANGE = ("__MACOSX", "@eaDir")  # what archives and disk stations add


class Files:
    """Images below a folder.

    Parameters
    ----------
    folder : Path
        Where to look, at any depth; hidden files and folders are left aside.
    beside : Path
        Folder of the table or list, in or below ``folder``: a name may be a path from there.
    """

    def __init__(self, folder: Path, beside: Path) -> None:
        self._folder = folder
        self._beside = beside.relative_to(folder)
        self._by_path: dict[PurePosixPath, Path] = {}
        self._by_name: dict[str, list[PurePosixPath]] = {}
        for path in sorted(folder.rglob("*")):
            place = PurePosixPath(path.relative_to(folder).as_posix())
            if not (is_image(path) or is_unread(path)) or _is_strange(place):
                continue
            self._by_path[place] = path
            for name in {place.name, place.stem}:
                self._by_name.setdefault(name, []).append(place)

    def find(self, name: str) -> list[Path]:
        """Return the files that a name may mean.

        A path from ``folder`` or ``beside`` means that file. Else the end of a path, down to the
        bare name, with or without the file's ending, means every file whose path ends so.
        """
        asked = PurePosixPath(name)
        for place in (asked, PurePosixPath(self._beside / name)):
            if place in self._by_path:
                return [self._by_path[place]]
        above = asked.parent.parts
        places = self._by_name.get(asked.name, [])
        fitting = (p for p in places if not above or p.parent.parts[-len(above) :] == above)
        return [self._by_path[place] for place in fitting]

    def locate(
        self, where: str, names: Sequence[str], lines: Sequence[int], unit: str
    ) -> list[Path]:
        """Return the file of every name.

        Parameters
        ----------
        where, unit : str
            What names the files, and what it consists of ("row"), for messages.
        names, lines : sequence of str, sequence of int
            Names, and the number of each one's row or line.

        Raises
        ------
        DataError
            If a file is missing, named twice, one of several or of a kind that is not read.
        """
        found = [self.find(name) for name in names]
        absent = [place for place, paths in enumerate(found) if not paths]
        if absent:
            raise DataError(
                f"{where}: {len(absent):,} of {len(names):,} files are not below {self._folder}, "
                f"the first is {names[absent[0]]!r} in {unit} {lines[absent[0]]}; put them there, "
                f"or take their {unit}s out"
            )
        first: dict[Path, int] = {}
        for line, name, paths in zip(lines, names, found, strict=True):
            if len(paths) > 1:
                raise DataError(
                    f"{where}: {name!r} in {unit} {line} may be {paths[0]} or {paths[1]}; name "
                    f"files by their path below {self._folder}"
                )
            if is_unread(paths[0]):
                raise DataError(
                    f"{paths[0]} is a picture of a kind that is not read; convert it to png or jpg"
                )
            if first.setdefault(paths[0], line) != line:
                raise DataError(
                    f"{where} names {paths[0]} twice, in {unit}s {first[paths[0]]} and {line}; a "
                    f"sample has one {unit}"
                )
        return [paths[0] for paths in found]


def _is_strange(place: PurePosixPath) -> bool:
    return any(part.startswith(".") or part in STRANGE for part in place.parts)
