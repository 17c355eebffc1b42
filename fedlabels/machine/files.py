"""Files that survive a crash: written under another name, flushed to disk, then renamed."""

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from fedlabels.errors import writing

TEMPORARY = ".tmp-"
"""Prefix of names that are not finished; whoever lists a folder skips them."""


def temporary_name(path: Path) -> Path:
    """Name a sibling of `path` under which it is written before it is renamed.

    Parameters
    ----------
    path : Path
        The final name.

    Returns
    -------
    Path
        A fresh name in the same folder, so that the rename stays on one file system.
    """
    return path.with_name(f"{TEMPORARY}{path.name}-{secrets.token_hex(4)}")


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of names to disk, where the system can do that.

    Parameters
    ----------
    folder : Path
        A folder that exists.
    """
    if os.name == "nt":  # Windows opens no folder; its renames are journaled
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_synced(path: Path, content: bytes) -> None:
    """Write a file and flush it to disk; not atomic, for files that nobody reads yet.

    Parameters
    ----------
    path : Path
        File to write.
    content : bytes
        Its whole content.
    """
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file so that a reader sees the old content or the new one, never a part.

    Parameters
    ----------
    path : Path
        File to write; its folder must exist. It is replaced when the block ends without an error.

    Yields
    ------
    BinaryIO
        What to write to.

    Raises
    ------
    DiskError
        If the disk refuses; the old file is untouched then.
    """
    temporary = temporary_name(path)
    with writing(path):
        try:
            # not mkstemp: its files are the owner's alone, whatever the umask
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):  # what went wrong first is said
                temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def write_atomic(path: Path, content: str | bytes) -> Path:
    """Write the whole content of a file, or leave what was there; see `replacing`.

    Parameters
    ----------
    path : Path
        File to write; its folder must exist.
    content : str or bytes
        Its whole content; a text is written as UTF-8 with line ends as they are.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    DiskError
        If the disk refuses; the old file is untouched then.
    """
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return path


def json_bytes(values: Mapping[str, Any]) -> bytes:
    """Write a mapping as readable JSON with sorted keys.

    Parameters
    ----------
    values : mapping
        JSON values; NaN and infinities are kept, in Python's spelling.

    Returns
    -------
    bytes
        UTF-8 text that ends with a newline; equal mappings give equal bytes.
    """
    return (json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
