"""Whole files or none: what a report writes replaces what was there at once."""

import contextlib
import os
import secrets
from pathlib import Path

from fedlabels.errors import writing


def write_whole(path: Path, content: str | bytes) -> Path:
    r"""Write a file, or leave what was there before.

    Parameters
    ----------
    path : Path
        The file; replaced if it exists.
    content : str or bytes
        A text is written as UTF-8 with line ends as they are.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    DiskError
        If the disk refuses.
    """
    temporary = path.with_name(f".tmp-{path.name}-{secrets.token_hex(4)}")
    with writing(path):
        try:
            with temporary.open("xb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())  # a machine that goes down must not leave half a page
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):  # what went wrong first is said
                temporary.unlink(missing_ok=True)
    return path
