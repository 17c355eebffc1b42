"""Errors of the toolkit: each says what was got, what is allowed and what to do."""

import errno
import re
from collections.abc import Collection, Iterable, Iterator
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
        With ``group.`` before the keys with which its text begins, and before ``key=`` in it.

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
        full = _qualified(str(error), group, keys) if group and keys else str(error)
        if full != str(error):
            raise ConfigError(full) from error
        raise


def _qualified(text: str, group: str, keys: Collection[str]) -> str:
    """Put a group before the keys with which a text begins, and before ``key=`` in it."""
    key = "|".join(sorted(map(re.escape, keys), key=len, reverse=True))
    start = re.match(rf"(?:{key})(?:(?:, | and )(?:{key}))*(?![\w.-])", text)
    end = start.end() if start else 0
    first = re.sub(rf"\b(?:{key})\b", lambda found: f"{group}.{found[0]}", text[:end])
    rest = re.sub(rf"(?<![\w.])(?:{key})(?==)", lambda found: f"{group}.{found[0]}", text[end:])
    return first + rest


def near(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return `` (did you mean X?)`` for what is nearly known, nothing for what is not.

    Examples
    --------
    >>> near("dirichlett", ["iid", "dirichlet"])
    ' (did you mean dirichlet?)'
    """
    from difflib import get_close_matches

    found = get_close_matches(name, list(known), n=1)
    return f" (did you mean {prefix}{found[0]}?)" if found else ""


def unknown(name: object, known: Iterable[str], key: str = "") -> ConfigError:
    """Make the error of a name that is not known.

    Parameters
    ----------
    name : object
        What was given.
    known : iterable of str
        What is allowed.
    key : str
        The setting; empty where that is not known here.

    Examples
    --------
    >>> print(unknown("iidd", ["iid", "natural"], "partition"))
    partition=iidd is not known (did you mean iid?); allowed: iid, natural
    """
    allowed = list(known)
    given = f"{key}={name}" if key else repr(name)
    listed = ", ".join(allowed) or "none"
    return ConfigError(f"{given} is not known{near(str(name), allowed)}; allowed: {listed}")
