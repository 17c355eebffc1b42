"""What commands print: tables for people, or an answer for programs."""

import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedlabels.answers import JSON, write_json
from fedlabels.errors import ConfigError, FedLabelsError, unknown


def answer(
    arguments: Sequence[str],
    usage: str,
    facts: Callable[[Sequence[str]], Mapping[str, Any]],
    shown: Callable[[Mapping[str, Any]], str],
) -> int:
    """Run a command that answers with facts: as text, or with ``--json`` as one object.

    Parameters
    ----------
    arguments : sequence of str
        As given; ``--help`` prints the usage.
    usage : str
        What ``--help`` says.
    facts : callable
        Takes the arguments without ``--json``.
    shown : callable
        The text for people.

    Returns
    -------
    int
        Exit status: 0, or 1 for an error that was explained.
    """
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(usage)
        return 0
    given = [argument for argument in arguments if argument != JSON]
    machine = len(given) < len(arguments)
    try:
        refused = [argument for argument in given if argument.startswith("-")]
        if refused:
            raise ConfigError(f"{refused[0]} is no option here; {usage.splitlines()[0]}")
        found = facts(given)
    except (FedLabelsError, OSError) as error:
        return fail(str(error), machine)
    if machine:
        write_json(found)
    else:
        sys.stdout.write(shown(found))
    return 0


def fail(text: str, machine: bool, status: int = 1) -> int:
    """Say what is wrong, for people or for programs; return the exit status."""
    if machine:
        write_json({"error": text})
    else:
        sys.stderr.write(f"error: {text}\n")
    return status


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, wide: int | None = None) -> str:
    """Return lines of columns; the last column is wrapped to the terminal's width.

    Parameters
    ----------
    head : sequence of str
        Names of the columns.
    rows : sequence of sequence of str
        As many cells each.
    wide : int or None
        Width in characters; None is the terminal's, or 160 where there is none.
    """
    total = wide or shutil.get_terminal_size((160, 24)).columns
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    before = sum(widths[:-1]) + 2 * (len(widths) - 1)
    lines = []
    for row in (head, *rows):
        *first, last = row
        start = "".join(f"{cell:<{width}}  " for cell, width in zip(first, widths, strict=False))
        parts = textwrap.wrap(last, max(24, total - before), break_long_words=False) or [""]
        lines.append(f"{start}{parts[0]}".rstrip())
        lines.extend(f"{'':{before}}{part}" for part in parts[1:])
    return "\n".join(lines) + "\n"


def details(facts: Mapping[str, Any]) -> str:
    """Return one line a fact; nothing of those that are not known."""
    wide = 2 + max(map(len, facts))
    pairs = [(key, text(value)) for key, value in facts.items() if value is not None]
    return "".join(f"{key:<{wide}}{value}\n" for key, value in pairs)


def text(value: Any) -> str:
    """Return a value as a cell of a table."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def one_of(key: str, known: Mapping[str, Any], given: Sequence[str]) -> Sequence[str]:
    """Return the names that were given, all where none was.

    Raises
    ------
    ConfigError
        If one is not known.
    """
    for name in given:
        if name not in known:
            raise unknown(name, known, key)
    return given or list(known)
