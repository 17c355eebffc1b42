"""Fingerprints that say whether two files, or two round tables, are the same."""

import csv
import hashlib
import io
from pathlib import Path

_CHUNK = 1 << 20  # bytes read at once


def file_sha256(path: Path) -> str:
    """Fingerprint a file of any size.

    Parameters
    ----------
    path : Path
        File to read.

    Returns
    -------
    str
        SHA-256 in hexadecimal.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def rounds_hash(path: Path) -> str:
    """Fingerprint a round table without its clock times.

    Parameters
    ----------
    path : Path
        A run's ``rounds.csv``.

    Returns
    -------
    str
        SHA-256 in hexadecimal over the table without the columns whose name starts with
        ``seconds``: two runs that computed the same have the same hash.
    """
    digest = hashlib.sha256()
    with path.open(encoding="utf-8", newline="") as file:
        kept: list[int] | None = None
        for row in csv.reader(file):
            if kept is None:
                kept = [i for i, name in enumerate(row) if not name.startswith("seconds")]
            line = io.StringIO()
            values = [row[i] for i in kept if i < len(row)]
            csv.writer(line, lineterminator="\n").writerow(values)
            digest.update(line.getvalue().encode())
    return digest.hexdigest()
