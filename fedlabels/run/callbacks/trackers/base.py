"""What every tracker is told of a run, and what it must be able to do."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Protocol

from fedlabels.settings.hashing import flatten

Metrics = Mapping[str, int | float]
"""Column of rounds.csv -> value, without ``round`` and without what is blank."""
Rounds = Mapping[int, Metrics]
"""Round -> its metrics, in rising order."""

# Where a run is and where it is tracked says nothing of it; an address may hold a password.
_APART = ("resume", "run_dir", "tracker")


@dataclass(frozen=True, slots=True)
class Subject:
    """The run that is tracked.

    Parameters
    ----------
    folder : Path
        Its folder.
    run_id : str
        From its manifest: it stays the same when the run is resumed.
    name, method : str
        For people.
    seed : int
        Of the run.
    settings : mapping
        Dotted key -> scalar or list.
    """

    folder: Path
    run_id: str
    name: str
    method: str
    seed: int
    settings: Mapping[str, Any]

    def tags(self) -> dict[str, str]:
        """Return what the run is found by."""
        return {
            "name": self.name, "seed": str(self.seed), "method": self.method, "run_id": self.run_id
        }  # fmt: skip

    def title(self) -> str:
        """Return a name that tells runs of one setting apart."""
        return f"{self.name}-{self.method}-{self.seed}"


class Tracker(Protocol):
    """One library; whatever it raises is caught, and ends the tracking, never the run."""

    def start(self, subject: Subject, rounds: Rounds) -> str:
        """Begin or go on; afterwards the tracker has the rounds given.

        Parameters
        ----------
        subject : Subject
            The run.
        rounds : Rounds
            Those that are done and count; others that the tracker may have do not.

        Returns
        -------
        str
            The tracker's own name of the run.
        """

    def log(self, index: int, metrics: Metrics) -> None:
        """Add a round; what came before outlives a kill of this process."""

    def close(self, status: str) -> None:
        """End with ``"finished"``, ``"stopped"`` or ``"failed"``."""


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten the settings of a run to those that a tracker is told."""
    return flatten({key: value for key, value in config.items() if key not in _APART})


def text_of(value: Any) -> str:
    """Write a setting as text: words as they are, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def metrics_of(record: Mapping[str, Any]) -> dict[str, int | float]:
    """Return the numbers of a round; its index and what is blank are left out."""
    return {key: value for key, value in _numbers(record) if key != "round"}


def metrics_of_row(row: Mapping[str, str]) -> dict[str, int | float]:
    """Return the same of a row of rounds.csv, which is text."""
    return metrics_of({key: _parsed(text) for key, text in row.items()})


def _numbers(record: Mapping[str, Any]) -> Iterator[tuple[str, int | float]]:
    for key, value in record.items():
        if isinstance(value, bool | int):
            yield key, int(value)
        elif isinstance(value, Real):  # numpy's, too
            yield key, float(value)


def _parsed(text: str) -> int | float | None:
    if text in ("true", "false"):
        return int(text == "true")
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None
