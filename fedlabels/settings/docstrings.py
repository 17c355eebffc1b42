"""What numpy-style docstrings say of parameters, for the page of all settings."""

import inspect
import pydoc
import re
from collections.abc import Sequence
from typing import Any

Docs = dict[str, tuple[str, str]]
"""Parameter -> its type as written, and its meaning."""
_SEE = re.compile(r"^(?:See|As in) (?::\w+:)?`~?([\w.]+)`[.;]?\s*(.*)", re.DOTALL)


def parameters(thing: Any) -> Docs:
    """Read the section Parameters of a docstring.

    Examples
    --------
    >>> def scale(x, y):
    ...     '''Scale.
    ...
    ...     Parameters
    ...     ----------
    ...     x, y : float
    ...         Factors, > 0;
    ...         None is 1.
    ...     '''
    >>> parameters(scale)["y"]
    ('float', 'Factors, > 0; None is 1.')
    """
    lines = (inspect.getdoc(thing) or "").splitlines()
    found: Docs = {}
    names: list[str] = []
    inside = False
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if following.startswith("---"):
            inside = line == "Parameters"
        elif inside and line.startswith(" "):
            for name in names:
                written, text = found[name]
                found[name] = written, f"{text} {line.strip()}".strip()
        elif inside and line and not line.startswith("---"):
            head, _, written = line.partition(" : ")
            names = [name.strip() for name in head.split(",")]
            found.update(dict.fromkeys(names, (written, "")))
    return found


def explained(kind: Any, others: Sequence[Any] = ()) -> Docs:
    """Collect what the docstrings of a class, its bases and others say of parameters."""
    bases = inspect.getmro(kind)[:-1] if inspect.isclass(kind) else ()
    found: Docs = {}
    for source in (*(bases or (kind,)), *others):
        if inspect.isclass(source) and "__doc__" not in vars(source):
            continue  # inspect would hand on the docstring of a base
        for name, (written, text) in parameters(source).items():
            found.setdefault(name, _followed(source, name, (written, text), bases))
    return found


def _followed(
    source: Any, name: str, said: tuple[str, str], bases: Sequence[type]
) -> tuple[str, str]:
    """Put the meaning itself where a docstring only says where it is."""
    seen = _SEE.match(said[1])
    if not seen:
        return said
    target, rest = seen.groups()
    place: Any = next((base for base in bases if base.__name__ == target), None)
    place = place or getattr(inspect.getmodule(source), target, None) or pydoc.locate(target)
    there = parameters(place).get(name) if place else None
    return (said[0] or there[0], f"{there[1]} {rest}".strip()) if there else said


def summary(thing: Any) -> str:
    """Return the first paragraph of a docstring as Markdown."""
    return markdown((inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " "))


def first_words(thing: Any) -> str:
    """Return the first sentence of a docstring without markup, and without the word Read.

    Examples
    --------
    >>> def read_rows(): "Read rows from ``a.csv``. They have names."
    >>> first_words(read_rows)
    'Rows from a.csv'
    """
    paragraph = " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
    sentence = re.split(r"\.(?:\s|$)", markdown(paragraph).replace("`", "").replace("\\", ""))[0]
    words = sentence.removeprefix("Read ")
    return words[:1].upper() + words[1:]


def markdown(text: str) -> str:
    r"""Turn the markup of docstrings into Markdown, and Python's words into those of YAML.

    Examples
    --------
    >>> markdown("See :func:`~a.b.f`; ``None`` or None, a * b")
    'See `f`; `None` or `null`, a \\* b'
    """
    text = re.sub(r":\w+:`~?(?:\w+\.)*(\w+)`", r"`\1`", text).replace("``", "`")
    parts = text.split("`")
    for number in range(0, len(parts), 2):  # outside of code
        plain = parts[number].replace("*", r"\*").replace("<", "&lt;")
        linked = re.sub(r"docs/([\w/-]+)\.md", r"[\1](\1.md)", plain)
        parts[number] = re.sub(r"\bNone\b", "`null`", linked)
    return "`".join(parts)
