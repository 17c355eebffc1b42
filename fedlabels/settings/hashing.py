"""Fingerprints that say whether two settings are the same, and which ones may differ."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fedlabels.renamed import came_later

MAY_DIFFER = (
    "rounds", "checkpoint_every", "name", "plugins", "run_dir", "resume", "resume_code", "tracker",
    "callbacks", "deploy", "sweep", "early_stop", "predictions",
)  # fmt: skip
"""Settings, with everything below them, that may change when a run is resumed."""

MACHINE = ("backend.device", "backend.execution", "backend.stack_size", "backend.block_size")
"""Settings that change the last bits, and may follow the machine on which a run goes on."""

FILES = ("strategy.anchor_file", "partition.file", "labels.file", "model.start")
"""Settings that name a file: what counts is its content."""

_ROOT = "dataset.root"  # a place, too: the data's content is compared apart
_SCHEDULE = "schedule_rounds"
_EPOCHS = "training.epochs"
_MODS = "deploy.mods"  # they change what clients send, in a simulation and on devices
_PORTABLE = "backend.portable"
_BITS = (*MACHINE, "backend.threads", "backend.tf32", _PORTABLE)
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
    >>> flatten({"seed": 1, "training": {"lr": 0.1}, "deploy": {"mods": ["x"]}})
    {'deploy.mods': ['x'], 'seed': 1, 'training.lr': 0.1}
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
    if key == _MODS:
        return False
    top = key.split(".", 1)[0]
    if top == "backend":
        return key not in _BITS
    return top in MAY_DIFFER or key == _ROOT or key.startswith("report")


def schedule_of(config: Mapping[str, Any]) -> int:
    """Return over how many rounds schedules are planned: as many as the first run had.

    Parameters
    ----------
    config : mapping
        Resolved settings, nested or flat.
    """
    return int(config.get("schedule_rounds") or config["rounds"])


def deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that decide the bits of a round.

    Parameters
    ----------
    config : mapping
        Resolved settings, nested or flat.

    Returns
    -------
    dict
        Dotted key -> value, without those for which `may_differ` holds; a file's path is replaced
        by a mark. ``schedule_rounds`` is there where it is not ``rounds``; a setting that came
        later is there where it is not what runs of before have.
    """
    flat = flatten(config)
    found = {key: value for key, value in flat.items() if not may_differ(key)}
    found |= {key: "(a file)" for key in FILES if found.get(key) is not None}
    if not found.get(_PORTABLE):  # runs from before it was there have the usual kernels
        found.pop(_PORTABLE, None)
    if found.get(_SCHEDULE) == flat.get("rounds"):
        found.pop(_SCHEDULE, None)
    # A number of epochs is one setting, written 5 or 5.0; before, it was a whole number.
    if isinstance(epochs := found.get(_EPOCHS), float) and epochs.is_integer():
        found[_EPOCHS] = int(epochs)
    return {key: value for key, value in found.items() if not came_later(key, value)}


def config_hash(config: Mapping[str, Any]) -> str:
    """Fingerprint the settings that decide the result of a round.

    Parameters
    ----------
    config : mapping
        Resolved settings, nested or flat.

    Returns
    -------
    str
        SHA-256 in hexadecimal, of what `deciding` returns. Two configs with the same hash may
        resume each other.
    """
    return hashlib.sha256(_canonical(deciding(config)).encode()).hexdigest()


def differing_keys(saved: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """List the settings that stand in the way of a resume.

    Parameters
    ----------
    saved, given : mapping
        Resolved settings, nested or flat.

    Returns
    -------
    list of str
        ``"key: saved -> given"``, sorted by key, without the keys for which `may_differ` holds
        and those of `MACHINE`.
    """
    return _differing(saved, given, lambda key: key not in MACHINE)


def machine_keys(saved: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """List the settings of `MACHINE` that a resume changes, as `differing_keys` does."""
    return _differing(saved, given, lambda key: key in MACHINE)


def _differing(
    saved: Mapping[str, Any], given: Mapping[str, Any], wanted: Callable[[str], bool]
) -> list[str]:
    old, new = deciding(saved), deciding(given)
    if flatten(given).get(_SCHEDULE) is None:  # more rounds alone: whoever resumes plans as before
        old.pop(_SCHEDULE, None)
    elif "rounds" in flatten(saved):
        old[_SCHEDULE], new[_SCHEDULE] = schedule_of(saved), schedule_of(given)
    keys = (key for key in sorted({*old, *new}) if wanted(key))
    pairs = ((key, _text(old, key), _text(new, key)) for key in keys)
    return [f"{key}: {before} -> {after}" for key, before, after in pairs if before != after]


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
