"""Answers for programs: JSON on the standard output, and nothing else there."""

import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

JSON = "--json"
"""The option that asks for them."""


def plain(value: Any) -> Any:
    """Return a value as JSON can say it: what is not finite is None, arrays are lists."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in value]
    if hasattr(value, "tolist"):  # of numpy
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def write_json(value: Mapping[str, Any], stream: TextIO | None = None) -> None:
    """Write one object as one line; a reader that has gone does not end what is done.

    Parameters
    ----------
    value : mapping
        The object.
    stream : TextIO or None
        None is the standard output.
    """
    line = json.dumps(plain(value), allow_nan=False) + "\n"
    stream = sys.stdout if stream is None else stream
    show(stream, lambda: (stream.write(line), stream.flush()))


def show(stream: TextIO, action: Callable[[], object]) -> None:
    """Write to a stream; when nobody is there any more, what follows goes nowhere.

    So does what the stream still holds, which Python would write at its end, and fail once more.
    """
    try:
        action()
    except OSError:
        with contextlib.suppress(OSError):  # a stream without a file
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


@contextlib.contextmanager
def alone() -> Iterator[TextIO]:
    """Keep the standard output for the answers: what else is written there goes to the other one.

    Also what libraries and worker processes write, as far as the stream has a file.

    Yields
    ------
    TextIO
        Where the answers go.
    """
    before = sys.stdout
    try:
        number = before.fileno()
    except OSError:  # a stream without a file, as in tests
        number = None
    if number is None:
        with contextlib.redirect_stdout(sys.stderr):
            yield before
        return
    before.flush()
    kept = os.dup(number)
    try:
        with contextlib.redirect_stdout(sys.stderr), os.fdopen(os.dup(kept), "w") as answers:
            os.dup2(sys.stderr.fileno(), number)
            yield answers
    finally:
        os.dup2(kept, number)
        os.close(kept)
