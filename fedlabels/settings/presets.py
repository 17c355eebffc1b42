"""The YAML files below configs/ as they describe themselves: what each is, and facts about it.

A file begins with comments: what it is, in words, and then a line ``# Fact: value`` for each fact
of `FACTS` that is known. Tables of methods and of data sets are made of these.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import fedlabels
from fedlabels import plugins

CONFIGS = Path(fedlabels.__file__).resolve().parent / "configs"
FACTS = ("Paper", "Page", "Samples", "Licence", "Clients", "Domains", "Installed")
"""Of a method: where it was published, and its page. Of a data set: samples to train + to test,
licence, natural clients and domains, and with what package it comes, if it does."""


@dataclass(frozen=True)
class Preset:
    """One file.

    Parameters
    ----------
    name : str
        Of the option.
    what : str
        What the file says that it is; empty where it says nothing.
    facts : mapping of str to str
        Those of `FACTS` that it states.
    content : mapping
        What it sets.
    """

    name: str
    what: str
    facts: Mapping[str, str]
    content: Mapping[str, Any]

    @property
    def chosen(self) -> dict[str, str]:
        """What it chooses in other groups: ``{"client": "fedavg", ...}``."""
        pairs = [pair for entry in self.content.get("defaults", []) for pair in entry.items()]
        return {key.removeprefix("override /"): str(name) for key, name in pairs}


def preset_files(group: str) -> list[Path]:
    """Return the files of a group, sorted by name: ours, and those of the plugins that take part.

    Parameters
    ----------
    group : str
        Such as ``method`` or ``dataset``.
    """
    folders = [CONFIGS, *plugins.configs().values()]
    files = [file for folder in folders for file in (folder / group).glob("*.yaml")]
    return sorted(files, key=lambda file: file.stem)


def presets(group: str) -> dict[str, Preset]:
    """Read all files of a group, sorted by name."""
    return {path.stem: read_preset(path) for path in preset_files(group)}


def read_preset(path: Path) -> Preset:
    """Read one file."""
    text = path.read_text(encoding="utf-8")
    what, facts = described(text)
    return Preset(path.stem, what, facts, yaml.safe_load(text) or {})


def described(text: str) -> tuple[str, dict[str, str]]:
    r"""Read the comments that a file begins with.

    Examples
    --------
    >>> described("# @package _global_\n# A rule\n# of two lines.\n# Page: a.md\nx: 1")
    ('A rule of two lines.', {'Page': 'a.md'})
    """
    words, facts = [], dict[str, str]()
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        comment = line.removeprefix("#").strip()
        key, colon, value = comment.partition(": ")
        if colon and key in FACTS:
            facts[key] = value
        elif not comment.startswith("@"):
            words.append(comment)
    return " ".join(words), facts
