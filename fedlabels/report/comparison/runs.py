"""Runs as a comparison needs them, read strictly from their folders.

What a report may show with a gap, a comparison must not count: a run that is unfinished, failed or
damaged is left out, with the reason.
"""

import csv
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlabels.errors import DataError
from fedlabels.renamed import renamed

MANIFEST, ROUNDS = "manifest.json", "rounds.csv"
Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A run folder that is not compared.

    Parameters
    ----------
    label : str
        Its folder, from the folder that all runs share.
    reason : str
        Why, in a few words.
    """

    label: str
    reason: str


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run.

    Parameters
    ----------
    label : str
        Its folder, from the folder that all runs share.
    path : Path
        Its folder, absolute; for what else is read from it, never for a text.
    seed : int
        Its seed.
    settings : mapping of str to Any
        Resolved settings by dotted key.
    manifest : mapping of str to Any
        ``manifest.json``.
    rounds : ndarray, shape (evaluations,)
        Rounds after which the metric was measured, ascending, at least one.
    metric : ndarray, shape (evaluations,)
        What was measured; the last one is finite.
    bytes_moved, seconds : ndarray, shape (evaluations,)
        Up to and including that round: both directions of all clients, and wall-clock time with
        evaluations. NaN where a round does not say it.
    total_bytes, total_seconds : float
        Of the whole run; NaN when unknown.
    window : int
        Evaluations at the end whose mean is its result, >= 1.
    """

    label: str
    path: Path
    seed: int
    settings: Mapping[str, Any]
    manifest: Mapping[str, Any]
    rounds: Values
    metric: Values
    bytes_moved: Values
    seconds: Values
    total_bytes: float
    total_seconds: float
    window: int = 1

    @property
    def stopped_early(self) -> str:
        """Why it did fewer rounds than its setting says; empty if it did all."""
        stopped = self.manifest.get("stopped_early")
        return str(stopped.get("reason")) if isinstance(stopped, Mapping) else ""

    def facts(self, group: str) -> Mapping[str, Any]:
        """Return a group of its manifest, such as its hardware; empty where there is none.

        Parameters
        ----------
        group : str
            The group's key.
        """
        facts = self.manifest.get(group)
        return facts if isinstance(facts, Mapping) else {}

    @property
    def last(self) -> float:
        """The metric at the last evaluated rounds, their mean where these are several."""
        return float(np.nanmean(self.metric[-self.window :]))

    def best(self, *, lower_is_better: bool) -> float:
        """Return the metric at the round where it was best.

        Parameters
        ----------
        lower_is_better : bool
            Whether the smallest value is the best.
        """
        return float(np.nanmin(self.metric) if lower_is_better else np.nanmax(self.metric))

    def reached(self, target: float, *, lower_is_better: bool) -> tuple[float, float, float] | None:
        """Return what it took until the metric first reached a target.

        Parameters
        ----------
        target : float
            In the unit of the metric.
        lower_is_better : bool
            Whether at most, rather than at least, the target is wanted.

        Returns
        -------
        tuple of float or None
            Rounds, bytes and seconds; None when it was not reached.
        """
        reaching = self.metric <= target if lower_is_better else self.metric >= target
        if not reaching.any():
            return None
        first = int(np.argmax(reaching))
        return float(self.rounds[first]), float(self.bytes_moved[first]), float(self.seconds[first])


def is_run(folder: Path) -> bool:
    """Say whether a folder is itself a run, whole or damaged.

    Parameters
    ----------
    folder : Path
        Any path.
    """
    return (folder / MANIFEST).is_file() or (folder / ROUNDS).is_file()


def find_runs(folders: Sequence[Path], *, empty: bool = False) -> list[Path]:
    """Find the run folders at and below some folders.

    Parameters
    ----------
    folders : sequence of Path
        Run folders, and folders with runs anywhere below them.
    empty : bool
        Whether a folder without a run is fine.

    Returns
    -------
    list of Path
        Absolute and sorted, each once. Nothing below a run is looked at: its checkpoints have
        manifests, too.

    Raises
    ------
    DataError
        If one of `folders` is no folder, or neither is nor holds a run, and that is not fine.
    """
    runs: set[Path] = set()
    for folder in folders:
        below = set(_walk(folder.resolve()))
        if not below and not empty:
            kind = "holds no run" if folder.is_dir() else "is no folder"
            raise DataError(
                f"{folder} {kind}: give folders that hold a {MANIFEST} at some depth, as runs"
                " write it"
            )
        runs |= below
    return sorted(runs)


def read_runs(
    paths: Sequence[Path], metric: str, window: int = 1
) -> tuple[list[Run], list[LeftOut]]:
    """Read runs, and say which cannot be compared.

    Parameters
    ----------
    paths : sequence of Path
        Run folders, absolute.
    metric : str
        A column of ``rounds.csv``.
    window : int
        Evaluations at the end whose mean is a run's result, >= 1.

    Returns
    -------
    tuple of list of Run and list of LeftOut
        Both in the order of `paths`.
    """
    runs: list[Run] = []
    left: list[LeftOut] = []
    root = _shared_folder(paths)
    for path in paths:
        label = path.relative_to(root).as_posix()
        try:
            runs.append(_read(path, label, metric, window))
        except DataError as error:
            left.append(LeftOut(label, str(error)))
    return runs, left


def _shared_folder(paths: Sequence[Path]) -> Path:
    parents = [path.parent for path in paths]
    return Path(os.path.commonpath(parents)) if parents else Path()


def _walk(folder: Path) -> Iterator[Path]:
    for place, below, _ in os.walk(folder):
        if is_run(Path(place)):
            below.clear()
            yield Path(place)


def _read(path: Path, label: str, metric: str, window: int) -> Run:
    manifest = _json(path / MANIFEST)
    status = manifest.get("status")
    done = manifest.get("rounds_done")
    if status != "finished":
        after = f" after round {done}" if isinstance(done, int) else ""
        raise DataError(f"not finished: its status is {status or 'missing'}{after}")
    settings = _settings(path, manifest)
    seed = settings.get("seed", manifest.get("seed"))
    if not isinstance(seed, int):
        raise DataError(f"damaged: its seed must be an integer, got {seed!r}")
    table = read_table(path / ROUNDS)
    _check_rounds(table, done)
    evaluated = _evaluated(table, metric)
    values = read_column(table, metric)[evaluated]
    if not math.isfinite(values[-1]):
        at = table["round"][int(np.flatnonzero(evaluated)[-1])]
        raise DataError(f"its last {metric} is {values[-1]}, in round {at}")
    moved = read_column(table, "bytes_up") + read_column(table, "bytes_down")
    seconds = read_column(table, "seconds_total")
    known = manifest.get("seconds")
    timed = isinstance(known, int | float) and not isinstance(known, bool)
    return Run(
        label=label,
        path=path,
        seed=seed,
        settings=settings,
        manifest=manifest,
        rounds=read_column(table, "round")[evaluated],
        metric=values,
        bytes_moved=np.cumsum(moved)[evaluated],
        seconds=np.cumsum(seconds)[evaluated],
        total_bytes=float(moved.sum()),
        total_seconds=float(known) if timed and known is not None else float(seconds.sum()),
        window=window,
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"damaged: it has no {path.name}") from None
    except ValueError as error:
        raise DataError(f"damaged: {path.name} is no JSON ({error})") from error
    if not isinstance(values, dict):
        raise DataError(f"damaged: {path.name} holds no JSON object")
    return values


def _settings(path: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Read the settings from the newest checkpoint, which needs no YAML, else config.yaml."""
    for saved in sorted(path.glob(f"checkpoints/round-*/{MANIFEST}"), reverse=True):
        try:
            values = _json(saved)
        except DataError:
            break  # config.yaml says the same
        config = values.get("config")
        if not isinstance(config, dict):
            break
        if values.get("config_hash") != manifest.get("config_hash"):
            raise DataError("damaged: its manifest and its newest checkpoint have other settings")
        return _named(config)
    return _named(_yaml(path / "config.yaml"))


def _yaml(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise DataError("damaged: it has no readable checkpoint and no config.yaml")
    try:
        import yaml  # not everybody has it, and most runs have a checkpoint
    except ImportError:
        raise DataError(
            "without a readable checkpoint its settings are in config.yaml alone, which needs"
            " PyYAML: pip install 'fedlabels[sim]'"
        ) from None
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"damaged: config.yaml is no YAML ({_one_line(error)})") from error
    if not isinstance(values, dict):
        raise DataError("damaged: config.yaml holds no settings")
    return values


def _named(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by dotted key, as they are called now; a method may lack ``training``."""
    settings = renamed(dict(_leaves(config, "")))
    if settings.get("training") == {}:
        del settings["training"]
    return settings


def _leaves(config: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def read_table(path: Path) -> dict[str, list[str]]:
    """Read a whole CSV table.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    dict of str to list of str
        Column -> texts.

    Raises
    ------
    DataError
        If there is none, or it is damaged.
    """
    if not path.is_file():
        raise DataError(f"damaged: it has no {path.name}")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = list(csv.reader(file, strict=True)) or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"damaged: {path.name} is no table ({_one_line(error)})") from error
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise DataError(
                f"damaged: line {number} of {path.name} has {len(row)} values, not {len(header)}"
            )
    columns = zip(*rows, strict=True) if rows else ([] for _ in header)
    return {name: list(values) for name, values in zip(header, columns, strict=True)}


def _check_rounds(table: Mapping[str, list[str]], done: object) -> None:
    numbers = table.get("round", [])
    if numbers != [str(index) for index in range(1, len(numbers) + 1)]:
        raise DataError(f"damaged: the rounds of {ROUNDS} do not count 1, 2, 3, ...")
    if len(numbers) != done:
        raise DataError(f"damaged: {ROUNDS} has {len(numbers)} rounds, its manifest says {done}")


def _evaluated(table: Mapping[str, list[str]], metric: str) -> NDArray[np.bool_]:
    filled = np.array([bool(text) for text in table.get(metric, [])], dtype=bool)
    if not filled.any():
        known = ", ".join(name for name, texts in table.items() if any(texts) and name != "round")
        raise DataError(f"it has no {metric}; there are {known or 'no values at all'}")
    return filled


def read_column(table: Mapping[str, list[str]], name: str) -> Values:
    """Return a column as numbers.

    Parameters
    ----------
    table : mapping of str to list of str
        Column -> texts, with a column of rounds.
    name : str
        The column.

    Returns
    -------
    ndarray, shape (rows,)
        NaN where it is blank, or there is none of that name.

    Raises
    ------
    DataError
        If it holds other texts than numbers.
    """
    texts = table.get(name) or [""] * len(table["round"])
    try:
        return np.array([float(text) if text else math.nan for text in texts], dtype=np.float64)
    except ValueError as error:
        raise DataError(f"damaged: column {name} of {ROUNDS}: {error}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
