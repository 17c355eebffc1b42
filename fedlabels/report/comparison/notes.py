"""What a reader of a comparison must know beside its numbers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fedlabels.machine.differences import differing
from fedlabels.report.comparison.cells import (
    ABSENT,
    METHOD,
    Levels,
    level,
    order,
    short_names,
    show,
)
from fedlabels.report.comparison.compare import Comparison, doubt
from fedlabels.report.comparison.format import seed_text
from fedlabels.report.comparison.runs import Run
from fedlabels.report.comparison.shared import unequal
from fedlabels.report.comparison.tables import row_text, scale_of
from fedlabels.report.numbers import plural

_PACKAGES = ("fedlabels", "flwr", "numpy", "torch")
_BITS = (
    "backend.device", "backend.execution", "backend.stack_size", "backend.block_size",
    "backend.tf32",
)  # fmt: skip
"""Settings that decide the last bits, beside those that a manifest's hardware tells."""
_CORE = (
    "dataset.name", "partition.name", "partition.alpha", "labels.name", "labels.fraction",
    "clients", "per_round", "rounds", "model.name",
)  # fmt: skip


def summary(found: Comparison) -> str:
    """Say in a paragraph what was compared.

    Parameters
    ----------
    found : Comparison
        What was found.

    Returns
    -------
    str
        The metric and its direction, the seeds, and the settings that differ.
    """
    direction = "lower" if found.question.lower_is_better else "higher"
    seeds = sorted({run.seed for run in found.runs})
    names = short_names(found.design.keys)
    first, *others = found.design.keys
    parts = [
        f"Metric: {scale_of(found).head}, {found.question.when}; {direction} is better.",
        f"Seeds: {seed_text(seeds)}.",
        f"Compared: {names[first]} ({_listed(found.contenders)}).",
    ]
    for index, key in enumerate(others):
        levels = sorted({row[index] for row in found.rows}, key=order)
        parts.append(f"Setting: {key} ({_listed(levels)}).")
    return " ".join(parts)


def notes(found: Comparison) -> list[str]:
    """List what limits a comparison, a sentence or two each.

    Parameters
    ----------
    found : Comparison
        What was found.
    """
    return [
        *_data(found),
        *_pooled(found),
        *_unequal(found),
        *_seeds(found),
        *_unpaired(found),
        *_last_rounds(found),
        *_stopped_early(found),
        *_versions(found),
    ]


def fixed(found: Comparison, *, core: bool = False) -> list[str]:
    """List the settings that all runs share, as key=value.

    Parameters
    ----------
    found : Comparison
        What was found.
    core : bool
        Whether to list the few alone that say what the task is.
    """
    shared = found.design.fixed
    keys = [key for key in _CORE if key in shared] if core else list(shared)
    return [f"{key}={show(shared[key])}" for key in keys]


def methods(found: Comparison) -> list[tuple[str, str]]:
    """List each method with those of its settings that are not the same everywhere.

    Parameters
    ----------
    found : Comparison
        What was found.
    """
    return [
        (show(name), ", ".join(f"{key}={show(text)}" for key, text in own.items()))
        for name, own in found.design.methods.items()
        if own
    ]


def _data(found: Comparison) -> Iterator[str]:
    """Say where the same seed and setting had another data set or federation."""
    if len(found.contenders) < 2:
        return
    places: dict[str, dict[Levels, set[int]]] = {}
    for row in found.rows:
        groups: dict[Any, list[Run]] = {}
        for cell in found.cells:
            for key, run in cell.runs.items() if cell.row == row else ():
                groups.setdefault(key, []).append(run)
        for (seed, _), runs in groups.items():
            reason = doubt(runs) if len(runs) > 1 else ""
            if reason:
                places.setdefault(reason, {}).setdefault(row, set()).add(seed)
    for reason, rows in sorted(places.items()):
        where = "; ".join(_where(found, row, seed_text(sorted(s))) for row, s in rows.items())
        yield (
            f"{reason.capitalize()}: at {where}. A difference there may come from who holds what,"
            " and is no comparison of the same task."
        )


def _pooled(found: Comparison) -> Iterator[str]:
    made, first = found.design, short_names(found.design.keys)[found.design.keys[0]]
    if made.inside:
        told = "; ".join(f"{key}: {_listed(_levels(found, key))}" for key in made.inside)
        yield (
            f"Within cells other settings differ, because --by leaves them out ({told}): n counts"
            " their values, too, and deviations are also over them. Pairs have the same values."
        )
    if made.apart:
        told = "; ".join(f"{key}: {_by_contender(found, key)}" for key in made.apart[:5])
        more = f"; and {len(made.apart) - 5} more" if len(made.apart) > 5 else ""
        yield (
            f"What is compared differs in more than {first} ({told}{more}): a difference may come"
            " from that."
        )
    if made.linked:
        yield f"These differ together with the settings above: {', '.join(made.linked)}."


def _unequal(found: Comparison) -> Iterator[str]:
    """Say which rates, steps and batches the methods do not share."""
    if found.design.keys[0] != METHOD:
        return
    runs = [
        (show(cell.contender), run.settings) for cell in found.cells for run in cell.runs.values()
    ]
    lines = unequal(runs)
    if lines:
        yield (
            f"The methods do not share all settings ({'; '.join(lines)}): a difference may come "
            "from these. sweep.per_method gives each method its own names for the same values."
        )


def _seeds(found: Comparison) -> Iterator[str]:
    single = sum(len(cell.runs) == 1 for cell in found.cells)
    if single:
        yield (
            f"{single} of {plural(len(found.cells), 'cell')} with one run: no deviation, and"
            " nothing can be tested there."
        )
    rows = [
        row
        for row in found.rows
        if len({tuple(cell.runs) for cell in found.cells if cell.row == row}) > 1
    ]
    if rows:
        where = "; ".join(row_text(found, row) for row in rows)
        at = f" (at {where})" if where else ""
        what = "seeds and pooled settings" if found.design.inside else "seeds"
        yield (
            f"Not every cell has the same {what}{at}: means are over each one's own, differences"
            " and ranks over common ones."
        )


def _unpaired(found: Comparison) -> Iterator[str]:
    if found.differences and not any(one.pairs for one in found.differences):
        first = short_names(found.design.keys)[found.design.keys[0]]
        yield (
            f"No other {first} has a seed and setting in common with {show(found.baseline)}, so"
            f" nothing is tested. --by {found.design.keys[0]} compares across the other settings,"
            " and says so; --baseline names another one."
        )


def _last_rounds(found: Comparison) -> Iterator[str]:
    for row in found.rows:
        cells = [cell for cell in found.cells if cell.row == row]
        ends = sorted({int(run.rounds[-1]) for cell in cells for run in cell.runs.values()})
        if len(ends) > 1:
            yield (
                f"{_where(found, row, '')}: the last evaluated round is not the same for all:"
                f" {', '.join(map(str, ends))}."
            ).removeprefix(": ")


def _stopped_early(found: Comparison) -> Iterator[str]:
    """Say which runs did fewer rounds than their setting says."""
    early = {run.label for run in found.runs if run.stopped_early}
    if not early:
        return
    by = [
        f"{show(name)} {len(early & _labels(found, name))} of {len(_labels(found, name))}"
        for name in found.contenders
        if early & _labels(found, name)
    ]
    yield (
        f"{plural(len(early), 'run')} stopped early ({', '.join(by)}): not all planned rounds were"
        " run; the result is of the round where each stopped, and so are its bytes and seconds."
    )


def _labels(found: Comparison, contender: str) -> set[str]:
    cells = [cell for cell in found.cells if cell.contender == contender]
    return {run.label for cell in cells for run in cell.runs.values()}


def _versions(found: Comparison) -> Iterator[str]:
    runs = found.runs
    for name in _PACKAGES:
        got = _different(runs, _version(name))
        if got:
            yield f"Made with different versions of {name}: {got}."
    yield from _kernels(runs)
    machines = _different(runs, lambda r: r.manifest.get("hardware"))
    keys = {key for run in runs for key in run.settings if key.startswith("backend.")}
    backends = [key for key in sorted(keys) if _different(runs, _setting(key))]
    if machines or backends:
        why = ["machines"] if machines else []
        why += [f"settings of {key}" for key in backends]
        yield f"Seconds are not comparable: they come from different {', '.join(why)}."


def _kernels(runs: Sequence[Run]) -> Iterator[str]:
    """Say where kernels differ: then what else is equal has different last bits."""
    known = [_part(run.manifest, "hardware") for run in runs]
    known = [one for one in known if "aten" in one]
    changes = sorted({line for one in known[1:] for line in differing(known[0], one)})
    changes += [f"{key}: {got}" for key in _BITS if (got := _different(runs, _setting(key)))]
    if changes:
        yield (
            f"Made with different kernels ({'; '.join(changes)}): equal settings have other last "
            "bits there, and after many rounds other accuracies; backend.portable=true pins those "
            "of CPUs."
        )


def _setting(key: str) -> Callable[[Run], Any]:
    return lambda run: run.settings.get(key)


def _version(package: str) -> Callable[[Run], Any]:
    return lambda run: _part(run.manifest, "package").get(package)


def _different(runs: Sequence[Run], pick: Callable[[Run], Any]) -> str:
    values = {level(pick(run)) for run in runs}
    return _listed(sorted(values, key=order)) if len(values) > 1 else ""


def _part(manifest: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = manifest.get(key)
    return value if isinstance(value, Mapping) else {}


def _by_contender(found: Comparison, key: str) -> str:
    by: dict[str, set[str]] = {}
    for cell in found.cells:
        for run in cell.runs.values():
            text = level(run.settings[key]) if key in run.settings else ABSENT
            by.setdefault(cell.contender, set()).add(text)
    return ", ".join(
        f"{show(name)} {' or '.join(map(show, sorted(by[name], key=order)))}"
        for name in found.contenders
    )


def _levels(found: Comparison, key: str) -> list[str]:
    return sorted({found.design.levels[run.label][key] for run in found.runs}, key=order)


def _where(found: Comparison, row: Levels, seeds: str) -> str:
    parts = [row_text(found, row), f"seed {seeds}" if seeds else ""]
    return ", ".join(part for part in parts if part)


def _listed(levels: Sequence[str]) -> str:
    return ", ".join(show(text) for text in levels)
