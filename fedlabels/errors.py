"""Errors of the toolkit: each says what was got, what is allowed and what to do."""

import errno
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path


class FedLabelsError(Exception):
    """Base of every error that the toolkit raises on purpose."""


class ConfigError(FedLabelsError, ValueError):
    """A setting is unknown, out of range or in conflict with another one."""


class DataError(FedLabelsError):
    """A data set is missing, damaged or too small for what was asked."""


class CheckpointError(FedLabelsError):
    """A checkpoint is damaged, foreign or cannot be written."""


class WireError(FedLabelsError):
    """A message between server and client does not have the agreed form."""


class NotSentError(FedLabelsError, KeyError):
    """A client looks for a setting or a payload that the strategy does not send."""

    __str__ = Exception.__str__  # that of a KeyError puts the text into quotes


class RunError(FedLabelsError):
    """A run cannot go on, for instance because every sampled client failed."""


class DiskError(FedLabelsError, OSError):
    """A file cannot be written: its disk is full, gone or read-only."""


_ROOM = "make room or mend the disk, then resume what was begun"
_OTHERS = "make the folder writable, or choose another one"
_TAKEN = "a file stands where a folder is to be, or the reverse: choose another name"
_REMEDIES = {
    errno.EACCES: _OTHERS,
    errno.EPERM: _OTHERS,
    errno.EROFS: _OTHERS,
    errno.ENOENT: "its folder is not there and cannot be made, or was removed: choose another one",
    errno.EEXIST: _TAKEN,
    errno.EISDIR: _TAKEN,
    errno.ENOTDIR: _TAKEN,
}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say which file it was that could not be written: a full disk does not.

    Parameters
    ----------
    path : Path
        What is written inside the block.

    Raises
    ------
    DiskError
        In place of any `OSError`.
    """
    try:
        yield
    except DiskError:
        raise
    except OSError as error:
        raise DiskError(
            f"cannot write {path} ({error.strerror or error}):"
            f" {_REMEDIES.get(error.errno or 0, _ROOM)}"
        ) from error


def one_line(text: str, most: int = 2000) -> str:
    """Return a stranger's text as it may stand in a log and in a table.

    Control characters and line ends, those of Unicode, too, become spaces; what a spreadsheet would
    take for a formula (``=``, ``+``, ``-``, ``@`` in front) gets an apostrophe before it.
    """
    # what cannot be printed: control, format and private characters, surrogates, separators
    shown = "".join(c if c.isprintable() else " " for c in text[:most])
    shown = " ".join(shown.split())
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) else shown


@contextmanager
def named_below(group: str, keys: Collection[str]) -> Iterator[None]:
    """Give the full key of a setting whose class knows its last part only.

    Parameters
    ----------
    group : str
        Dotted name of the group; empty leaves the errors as they are.
    keys : collection of str
        Settings of the class.

    Raises
    ------
    ConfigError
        With ``group.`` in front where its text begins with one of the keys.

    Examples
    --------
    >>> with named_below("strategy", ["mu"]):
    ...     raise ConfigError("mu must be >= 0, got -1")
    Traceback (most recent call last):
    fedlabels.errors.ConfigError: strategy.mu must be >= 0, got -1
    """
    try:
        yield
    except ConfigError as error:
        if group and str(error).split(" ", 1)[0].split("=", 1)[0] in keys:
            raise ConfigError(f"{group}.{error}") from error
        raise
