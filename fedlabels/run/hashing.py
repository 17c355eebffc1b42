"""Fingerprints that say whether two runs are the same: of settings, files and round tables."""

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

MAY_DIFFER = (
    "rounds", "checkpoint_every", "backend", "tracker", "callbacks", "deploy", "sweep",
)  # fmt: skip
"""Settings, with everything below them, that may change when a run is resumed."""

_CHUNK = 1 << 20  # bytes read at once
_ABSENT = object()


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten nested settings to dotted keys.

    Parameters
    ----------
    config : mapping
        Resolved settings: mappings, lists and scalars.

    Returns
    -------
    dict
        Dotted key -> scalar or list, sorted by key; an empty mapping stays as ``{}``.

    Examples
    --------
    >>> flatten({"seed": 1, "client": {"lr": 0.1, "views": ["weak"]}})
    {'client.lr': 0.1, 'client.views': ['weak'], 'seed': 1}
    """
    return dict(sorted(_leaves(config, "")))


def may_differ(key: str) -> bool:
    """Say whether a setting may change when a run is resumed.

    Parameters
    ----------
    key : str
        Dotted key.

    Returns
    -------
    bool
        True for those that change no result of a finished round.

    Examples
    --------
    >>> may_differ("backend.num_workers"), may_differ("seed")
    (True, False)
    """
    return key.split(".", 1)[0] in MAY_DIFFER or key.startswith("report")


def config_hash(config: Mapping[str, Any]) -> str:
    """Fingerprint the settings that decide the result of a round.

    Parameters
    ----------
    config : mapping
        Resolved settings, nested or flat.

    Returns
    -------
    str
        SHA-256 in hexadecimal. Two configs with the same hash may resume each other: the settings
        for which `may_differ` holds are left out.
    """
    fixed = {key: value for key, value in flatten(config).items() if not may_differ(key)}
    return hashlib.sha256(_canonical(fixed).encode()).hexdigest()


def differing_keys(saved: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """List the settings that stand in the way of a resume.

    Parameters
    ----------
    saved, given : mapping
        Resolved settings, nested or flat.

    Returns
    -------
    list of str
        ``"key: saved -> given"``, sorted by key, without the keys for which `may_differ` holds.
    """
    old, new = flatten(saved), flatten(given)
    keys = (key for key in sorted({*old, *new}) if not may_differ(key))
    pairs = ((key, _text(old, key), _text(new, key)) for key in keys)
    return [f"{key}: {before} -> {after}" for key, before, after in pairs if before != after]


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


def _leaves(config: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(config: Mapping[str, Any], key: str) -> str:
    value = config.get(key, _ABSENT)
    return "(absent)" if value is _ABSENT else _canonical(value)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
