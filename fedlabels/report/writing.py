"""Whole files or none: what a report writes replaces what was there at once."""

import os
from pathlib import Path


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
    """
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
