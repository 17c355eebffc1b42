"""What a reader of a comparison must know beside its numbers."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fedlabels.machine.differences import differing
from fedlabels.report.comparison.cells import (
    ABSENT,
    METHOD,
    Levels,
    level,
    order,
    show,
)
from fedlabels.report.comparison.compare import Comparison, doubt
from fedlabels.report.comparison.format import seed_text
from fedlabels.report.comparison.runs import Run
from fedlabels.report.comparison.shared import unequal
from fedlabels.report.numbers import plural

_PACKAGES = ("fedlabels", "flwr", "numpy", "torch")
_BITS = (
    "backend.device", "backend.execution", "backend.stack_size", "backend.block_size",
    "backend.tf32",
)  # fmt: skip
"""Settings that decide the last bits, beside those that a manifest's hardware tells."""
_CORE = (
    "dataset.name", "partition.name", "partition.alpha", "labels.name", "labels.fraction",
    "labels.total", "clients", "per_round", "rounds", "model.name",
)  # fmt: skip


def summary(comparison: Comparison) -> str:
    """Say in a paragraph what was compared.

    Parameters
    ----------
    comparison : Comparison
        What was compared.

    Returns
    -------
    str
        The metric and its direction, the seeds, and the settings that differ.
    """
    design, question = comparison.design, comparison.question
    direction = "lower" if question.lower_is_better else "higher"
    seeds = sorted({run.seed for run in comparison.runs})
    parts = [
        f"Metric: {question.scale.head}, {question.when}; {direction} is better.",
        f"Seeds: {seed_text(seeds)}.",
        f"Compared: {design.noun} ({_listed(comparison.contenders)}).",
    ]
    for index, key in enumerate(design.settings):
        parts.append(f"Setting: {key} ({_listed(comparison.levels(index))}).")
    return " ".join(parts)


def notes(comparison: Comparison) -> list[str]:
    """List what limits a comparison, a sentence or two each.

    Parameters
    ----------
    comparison : Comparison
        What was compared.
    """
    return [
        *_data(comparison),
        *_pooled(comparison),
        *_unequal(comparison),
        *_seeds(comparison),
        *_unpaired(comparison),
        *_last_rounds(comparison),
        *_stopped_early(comparison),
        *_versions(comparison),
    ]


def fixed(comparison: Comparison, *, core: bool = False) -> list[str]:
    """List the settings that all runs share, as key=value.

    Parameters
    ----------
    comparison : Comparison
        What was compared.
    core : bool
        Whether to list the few alone that say what the task is.
    """
    shared = comparison.design.fixed
    keys = [key for key in _CORE if key in shared] if core else list(shared)
    return [f"{key}={show(shared[key])}" for key in keys]


def methods(comparison: Comparison) -> list[tuple[str, str]]:
    """List each method with those of its settings that are not the same everywhere.

    Parameters
    ----------
    comparison : Comparison
        What was compared.
    """
    return [
        (show(name), ", ".join(f"{key}={show(text)}" for key, text in own.items()))
        for name, own in comparison.design.methods.items()
        if own
    ]


def _data(comparison: Comparison) -> Iterator[str]:
    """Say where the same seed and setting had another data set or federation."""
    if len(comparison.contenders) < 2:
        return
    places: dict[str, dict[Levels, set[int]]] = {}
    for row in comparison.rows:
        groups: dict[Any, list[Run]] = {}
        for cell in comparison.cells:
            for key, run in cell.runs.items() if cell.row == row else ():
                groups.setdefault(key, []).append(run)
        for (seed, _), runs in groups.items():
            reason = doubt(runs) if len(runs) > 1 else ""
            if reason:
                places.setdefault(reason, {}).setdefault(row, set()).add(seed)
    for reason, rows in sorted(places.items()):
        where = "; ".join(_where(comparison, row, seed_text(sorted(s))) for row, s in rows.items())
        yield (
            f"{reason.capitalize()}: at {where}. A difference there may come from who holds what,"
            " and is no comparison of the same task."
        )


def _pooled(comparison: Comparison) -> Iterator[str]:
    design, first = comparison.design, comparison.design.noun
    if design.inside:
        pooled = "; ".join(f"{key}: {_listed(_levels(comparison, key))}" for key in design.inside)
        yield (
            f"Within cells other settings differ, because --by leaves them out ({pooled}): n counts"
            " their values, too, and deviations are also over them. Pairs have the same values."
        )
    if design.apart:
        apart = "; ".join(f"{key}: {_by_contender(comparison, key)}" for key in design.apart[:5])
        more = f"; and {len(design.apart) - 5} more" if len(design.apart) > 5 else ""
        yield (
            f"What is compared differs in more than {first} ({apart}{more}): a difference may come"
            " from that."
        )
    if design.linked:
        yield f"These differ together with the settings above: {', '.join(design.linked)}."


def _unequal(comparison: Comparison) -> Iterator[str]:
    """Say which rates, steps and batches the methods do not share."""
    if comparison.design.compared != METHOD:
        return
    runs = [
        (show(cell.contender), run.settings)
        for cell in comparison.cells
        for run in cell.runs.values()
    ]
    lines = unequal(runs)
    if lines:
        yield (
            f"The methods do not share all settings ({'; '.join(lines)}): a difference may come "
            "from these. training.KEY=VALUE gives all of them the same."
        )


def _seeds(comparison: Comparison) -> Iterator[str]:
    single = sum(len(cell.runs) == 1 for cell in comparison.cells)
    if single:
        yield (
            f"{single} of {plural(len(comparison.cells), 'cell')} with one run: no deviation, and"
            " nothing can be tested there."
        )
    rows = [
        row
        for row in comparison.rows
        if len({tuple(cell.runs) for cell in comparison.cells if cell.row == row}) > 1
    ]
    if rows:
        where = "; ".join(comparison.row_text(row) for row in rows)
        at = f" (at {where})" if where else ""
        replicates = "seeds and pooled settings" if comparison.design.inside else "seeds"
        yield (
            f"Not every cell has the same {replicates}{at}: means are over each one's own,"
            " differences and ranks over common ones."
        )


def _unpaired(comparison: Comparison) -> Iterator[str]:
    if comparison.differences and not any(one.pairs for one in comparison.differences):
        design, baseline = comparison.design, show(comparison.baseline)
        yield (
            f"No other {design.noun} has a seed and setting in common with {baseline}, so"
            f" nothing is tested. --by {design.compared} compares across the other settings,"
            " and says so; --baseline names another one."
        )


def _last_rounds(comparison: Comparison) -> Iterator[str]:
    for row in comparison.rows:
        cells = [cell for cell in comparison.cells if cell.row == row]
        ends = sorted({int(run.rounds[-1]) for cell in cells for run in cell.runs.values()})
        if len(ends) > 1:
            yield (
                f"{_where(comparison, row, '')}: the last evaluated round is not the same for all:"
                f" {', '.join(map(str, ends))}."
            ).removeprefix(": ")


def _stopped_early(comparison: Comparison) -> Iterator[str]:
    """Say which runs did fewer rounds than their setting says."""
    early = {run.label for run in comparison.runs if run.stopped_early}
    if not early:
        return
    by = [
        f"{show(name)} {len(early & _labels(comparison, name))} of {len(_labels(comparison, name))}"
        for name in comparison.contenders
        if early & _labels(comparison, name)
    ]
    yield (
        f"{plural(len(early), 'run')} stopped early ({', '.join(by)}): not all planned rounds were"
        " run; the result is of the round where each stopped, and so are its bytes and seconds."
    )


def _labels(comparison: Comparison, contender: str) -> set[str]:
    cells = [cell for cell in comparison.cells if cell.contender == contender]
    return {run.label for cell in cells for run in cell.runs.values()}


def _versions(comparison: Comparison) -> Iterator[str]:
    runs = comparison.runs
    for name in _PACKAGES:
        versions = _different(runs, _version(name))
        if versions:
            yield f"Made with different versions of {name}: {versions}."
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
    known = [run.facts("hardware") for run in runs]
    known = [one for one in known if "aten" in one]
    changes = sorted({line for one in known[1:] for line in differing(known[0], one)})
    changes += [f"{key}: {v}" for key in _BITS if (v := _different(runs, _setting(key)))]
    if changes:
        yield (
            f"Made with different kernels ({'; '.join(changes)}): equal settings have other last "
            "bits there, and after many rounds other accuracies; backend.portable=true pins those "
            "of CPUs."
        )


def _setting(key: str) -> Callable[[Run], Any]:
    return lambda run: run.settings.get(key)


def _version(package: str) -> Callable[[Run], Any]:
    return lambda run: run.facts("package").get(package)


def _different(runs: Sequence[Run], pick: Callable[[Run], Any]) -> str:
    values = {level(pick(run)) for run in runs}
    return _listed(sorted(values, key=order)) if len(values) > 1 else ""


def _by_contender(comparison: Comparison, key: str) -> str:
    by: dict[str, set[str]] = {}
    for cell in comparison.cells:
        for run in cell.runs.values():
            text = level(run.settings[key]) if key in run.settings else ABSENT
            by.setdefault(cell.contender, set()).add(text)
    return ", ".join(
        f"{show(name)} {' or '.join(map(show, sorted(by[name], key=order)))}"
        for name in comparison.contenders
    )


def _levels(comparison: Comparison, key: str) -> list[str]:
    return sorted({comparison.design.levels[run.label][key] for run in comparison.runs}, key=order)


def _where(comparison: Comparison, row: Levels, seeds: str) -> str:
    parts = [comparison.row_text(row), f"seed {seeds}" if seeds else ""]
    return ", ".join(part for part in parts if part)


def _listed(levels: Sequence[str]) -> str:
    return ", ".join(show(text) for text in levels)
