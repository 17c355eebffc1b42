"""Image files by the names that tables and lists give them."""

from pathlib import Path, PurePosixPath

from fedlabels.data.images import is_image, is_unread

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


def _is_strange(place: PurePosixPath) -> bool:
    return any(part.startswith(".") or part in STRANGE for part in place.parts)
