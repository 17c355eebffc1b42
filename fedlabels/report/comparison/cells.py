"""Which settings differ between runs, and the cells that they make.

A cell is one value of what is compared, usually a method, at one setting of the rest; its
replicates are its seeds. Nothing is averaged over silently: what a choice of keys leaves out is
part of the design, and is told.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedlabels.errors import ConfigError
from fedlabels.renamed import came_later
from fedlabels.report.comparison.runs import LeftOut, Run

METHOD = "method"
ABSENT = ""  # the level of a setting that a run does not have

# Settings, with all below them, that change no result: where and how a run ran, what it is called.
# "rounds" may differ between a run and its resumption, too, but it decides which round is the last.
IGNORED = (
    "backend", "callbacks", "checkpoint_every", "deploy", "plugins", "predictions", "sweep",
    "tracker", "name", "resume", "resume_code", "run_dir", "seed",
)  # fmt: skip
_IGNORED_KEYS = ("dataset.root",)  # where the files lie
_NO_KEYS = ("seed", "run_dir", "resume")
_FIRST = (
    "dataset.name", "partition.name", "partition.alpha", "labels.name", "labels.fraction",
    "labels.total", "model.name", "clients", "per_round", "rounds",
)  # fmt: skip
_NUMBERS = re.compile(r"([0-9]+(?:\.[0-9]+)?)")

Levels = tuple[str, ...]
Column = tuple[str, ...]
Order = tuple[int, float, list[tuple[float, str]]]


@dataclass(frozen=True, slots=True)
class Design:
    """How runs fall into cells.

    Parameters
    ----------
    keys : tuple of str
        The settings that make the cells; the first one is what is compared.
    levels : mapping of str to mapping of str to str
        Label of a run -> key -> its level, for `keys`, `inside` and `method`.
    inside : tuple of str
        Settings that differ within a cell, because the choice of keys leaves them out.
    apart : tuple of str
        Settings in which the compared differ beside the first key.
    linked : tuple of str
        Settings that differ only together with the other keys.
    fixed : mapping of str to str
        Settings, with their levels, that all runs share.
    methods : mapping of str to mapping of str to str
        Method -> its own settings, those that are not the same everywhere.
    """

    keys: tuple[str, ...]
    levels: Mapping[str, Mapping[str, str]]
    inside: tuple[str, ...]
    apart: tuple[str, ...]
    linked: tuple[str, ...]
    fixed: Mapping[str, str]
    methods: Mapping[str, Mapping[str, str]]

    @property
    def compared(self) -> str:
        """The key that is compared."""
        return self.keys[0]

    @property
    def settings(self) -> tuple[str, ...]:
        """The keys that make the rows."""
        return self.keys[1:]

    @property
    def names(self) -> dict[str, str]:
        """The short name of every key."""
        return short_names(self.keys)

    @property
    def noun(self) -> str:
        """What is compared, in a word."""
        return self.names[self.compared]


@dataclass(frozen=True, slots=True)
class Cell:
    """Runs that differ in their seeds alone, or also in what was pooled.

    Parameters
    ----------
    row : tuple of str
        Levels of the keys after the first.
    contender : str
        Level of the first key.
    runs : mapping of tuple to Run
        (seed, levels of what is pooled) -> run, sorted.
    """

    row: Levels
    contender: str
    runs: Mapping[tuple[int, Levels], Run]

    @property
    def seeds(self) -> list[int]:
        """Its seeds, ascending, each once."""
        return sorted({seed for seed, _ in self.runs})


def level(value: Any) -> str:
    """Write a setting so that equal ones are equal text: 1 and 1.0 are the same number.

    Parameters
    ----------
    value : Any
        A JSON value.

    Examples
    --------
    >>> level(1.0), level("a"), level([True, None])
    ('1', '"a"', '[true, null]')
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


def show(text: str) -> str:
    """Write a level as people read it.

    Parameters
    ----------
    text : str
        What `level` made, or `ABSENT`.

    Examples
    --------
    >>> show('"a"'), show("0.3"), show("")
    ('a', '0.3', '(absent)')
    """
    if text == ABSENT:
        return "(absent)"
    value = json.loads(text)
    return value if isinstance(value, str) else text


def number(text: str) -> float | None:
    """Return a level's number; None where it is none.

    Parameters
    ----------
    text : str
        What `level` made, or `ABSENT`.
    """
    value = json.loads(text) if text else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def order(text: str) -> Order:
    """Return a sort key: numbers by size, then texts, by the numbers in them (a2 before a10).

    Parameters
    ----------
    text : str
        What `level` made, or `ABSENT`.
    """
    value = number(text)
    if value is not None:
        return 0, value, []
    parts = _NUMBERS.split(show(text))
    return (
        1,
        0.0,
        [(-1.0, part) if i % 2 == 0 else (float(part), "") for i, part in enumerate(parts)],
    )


def choose_design(runs: Sequence[Run], by: Sequence[str] | None) -> Design:
    """Decide which settings make the cells.

    Parameters
    ----------
    runs : sequence of Run
        At least one.
    by : sequence of str or None
        Keys that make the cells, ``method`` among them or not; None takes the method and every
        other setting that differs.

    Returns
    -------
    Design
        The keys, the one that is compared first, and what becomes of the other settings.

    Raises
    ------
    ConfigError
        If a key of `by` is unknown, named twice, or cannot make cells.
    """
    requested = tuple(by or ())
    table = _columns(runs, requested)
    _check_keys(requested, table)
    groups = ("client.", "training.", "strategy.")
    own = [k for k in table if k.startswith(groups) and k not in requested]
    table[METHOD] = _methods(runs, {key: table[key] for key in own if _differs(table[key])})
    own += _brought(table, requested)
    varied = [k for k in table if k not in own and _differs(table[k])]
    keys = requested or (METHOD, *_independent([k for k in varied if k != METHOD], table))
    if METHOD in keys:
        keys = (METHOD, *(key for key in keys if key != METHOD))
    rest = [key for key in varied if key not in keys]
    free = [k for k in rest if not _follows(k, keys, table)]
    inside = _independent(free, table, after=keys)
    steady = [k for k in rest if k not in free and k != METHOD]
    apart = [k for k in steady if not _follows(k, keys[1:], table)]
    apart += [k for k in own if k.startswith("model.") and METHOD in keys]
    noted = {METHOD, *keys, *inside}
    return Design(
        keys=keys,
        levels={r.label: {k: table[k][i] for k in sorted(noted)} for i, r in enumerate(runs)},
        inside=inside,
        apart=tuple(apart),
        linked=tuple(k for k in (*steady, *free) if k not in (*apart, *inside, METHOD)),
        fixed={k: table[k][0] for k in sorted(table) if not _differs(table[k]) and k != METHOD},
        methods=_own_settings(table, [k for k in own if _differs(table[k])]),
    )


def group_runs(runs: Sequence[Run], design: Design) -> tuple[list[Cell], list[LeftOut]]:
    """Put runs into their cells.

    Parameters
    ----------
    runs : sequence of Run
        Sorted by label.
    design : Design
        From the same runs.

    Returns
    -------
    tuple of list of Cell and list of LeftOut
        Cells sorted by their levels; and runs that repeat another one.
    """
    groups: dict[Levels, dict[tuple[int, Levels], Run]] = {}
    left: list[LeftOut] = []
    for run in runs:
        levels = design.levels[run.label]
        cell = groups.setdefault(tuple(levels[key] for key in design.keys), {})
        replicate = (run.seed, tuple(levels[key] for key in design.inside))
        first = cell.setdefault(replicate, run)
        if first is not run:
            left.append(LeftOut(run.label, _repeats(run, first)))
    cells = [
        Cell(place[1:], place[0], dict(sorted(groups[place].items(), key=_replicate_order)))
        for place in sorted(groups, key=lambda place: [order(t) for t in (*place[1:], place[0])])
    ]
    return cells, left


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Shorten dotted keys to their last names where these are enough to tell them apart.

    Parameters
    ----------
    keys : iterable of str
        Dotted keys.

    Examples
    --------
    >>> short_names(["partition.alpha", "client.name", "strategy.name"])["partition.alpha"]
    'alpha'
    """
    every = list(keys)
    last = [key.rpartition(".")[2] for key in every]
    return {
        key: name if last.count(name) == 1 and name != "name" else key
        for key, name in zip(every, last, strict=True)
    }


def _columns(runs: Sequence[Run], requested: Sequence[str]) -> dict[str, Column]:
    keys = sorted({key for run in runs for key in run.settings})
    counted = [key for key in keys if key in requested or not _ignored(key)]
    return {key: tuple(_level(run, key) for run in runs) for key in sorted(counted, key=_priority)}


def _level(run: Run, key: str) -> str:
    absent = key not in run.settings or came_later(key, run.settings[key])
    return ABSENT if absent else level(run.settings[key])


def _ignored(key: str) -> bool:
    top = key.split(".", 1)[0]
    return top in IGNORED or top.startswith("report") or key in _IGNORED_KEYS


def _priority(key: str) -> tuple[int, str]:
    return (_FIRST.index(key) if key in _FIRST else len(_FIRST)), key


def _check_keys(requested: Sequence[str], table: Mapping[str, Column]) -> None:
    known = {*table, METHOD} - set(_NO_KEYS)
    for key in requested:
        if key not in known:
            differ = ", ".join(k for k in table if _differs(table[k])) or "none but the seed"
            why = "makes the replicates" if key == "seed" else "is no setting of these runs"
            raise ConfigError(
                f"--by {key} {why}: give {METHOD}, or settings; these differ: {differ}"
            )
        if requested.count(key) > 1:
            raise ConfigError(f"--by names {key} twice: once is enough")


def _differs(column: Column) -> bool:
    return len(set(column)) > 1


def _follows(key: str, others: Sequence[str], table: Mapping[str, Column]) -> bool:
    """Say whether the other keys' levels determine this one's."""
    places = list(zip(*(table[other] for other in others), strict=True)) or [()] * len(table[key])
    return len(set(places)) == len({*zip(places, table[key], strict=True)})


def _independent(
    keys: Sequence[str], table: Mapping[str, Column], *, after: Sequence[str] = ()
) -> tuple[str, ...]:
    """Drop the keys whose levels those before them, and `after`, determine."""
    free: tuple[str, ...] = ()
    for key in keys:
        if not _follows(key, (*after, *free), table):
            free += (key,)
    return free


def _methods(runs: Sequence[Run], own: Mapping[str, Column]) -> Column:
    """Name every run's method: its given name, and its own settings where that is not enough."""
    signatures = list(zip(*own.values(), strict=True)) or [()] * len(runs)
    names: dict[Any, set[str]] = {}
    for signature, run in zip(signatures, runs, strict=True):
        names.setdefault(signature, set()).add(_given_name(run))
    bases = [_base(run, names[sig]) for run, sig in zip(runs, signatures, strict=True)]
    named = []
    for index, base in enumerate(bases):
        same = [i for i, other in enumerate(bases) if other == base]
        among = {key: tuple(column[i] for i in same) for key, column in own.items()}
        telling = _independent(list(among), among)
        short = short_names(telling)
        parts = ", ".join(f"{short[key]}={show(own[key][index])}" for key in telling)
        named.append(level(f"{base} ({parts})" if parts else base))
    return tuple(named)


def _given_name(run: Run) -> str:
    """Return the preset that a run was started with, else what its manifest calls the method."""
    overrides = run.manifest.get("overrides")
    listed = overrides if isinstance(overrides, list) else []
    texts = [text for text in listed if isinstance(text, str)]
    presets = [text.removeprefix("method=") for text in texts if text.startswith("method=")]
    if presets and not any(text.startswith(("client=", "strategy=")) for text in texts):
        return presets[-1]
    name = run.manifest.get("method")
    return name if isinstance(name, str) else ""


def _base(run: Run, names: set[str]) -> str:
    client, strategy = (str(run.settings.get(f"{g}.name", "")) for g in ("client", "strategy"))
    presets = names - {"", client}  # a run that was started without a preset is named by its client
    if len(presets) == 1:
        return presets.pop()
    if names == {client} and client:
        return client
    if not client and not strategy:
        return "unnamed"
    return client if strategy in ("", client) else " + ".join(n for n in (client, strategy) if n)


def _brought(table: Mapping[str, Column], requested: Sequence[str]) -> list[str]:
    """List the settings of the model, not its kind, that a method brings with it."""
    return [
        key
        for key in table
        if key.startswith("model.") and key != "model.name" and key not in requested
        if _differs(table[key]) and _follows(key, [METHOD], table)
    ]


def _own_settings(table: Mapping[str, Column], own: Sequence[str]) -> dict[str, dict[str, str]]:
    settings: dict[str, dict[str, str]] = {}
    for index, method in enumerate(table[METHOD]):
        levels = {key: table[key][index] for key in sorted(own)}
        settings[method] = {key: text for key, text in levels.items() if text != ABSENT}
    return {method: settings[method] for method in sorted(settings, key=order)}


def _replicate_order(item: tuple[tuple[int, Levels], Run]) -> tuple[int, list[Order]]:
    (seed, levels), _ = item
    return seed, [order(text) for text in levels]


def _repeats(run: Run, first: Run) -> str:
    if run.metric.tolist() == first.metric.tolist():
        return f"the same settings, seed and results as {first.label}"
    return (
        f"the same settings and seed as {first.label}, but another result:"
        f" {run.last:.4g} at the end, not {first.last:.4g}"
    )
