"""Tables of a sweep between two bounds, for docs/benchmarks.md, and its runs as JSON.

    python run_sim.py -m sweep=label_scarcity
    python benchmarks/sweep_tables.py runs/sweeps/label_scarcity --name label_scarcity_sweep

Writes benchmarks/results/NAME.json with an entry a run, and prints a table: mean and deviation over
the seeds that all methods of a row have, and the headroom (upper minus lower bound, by seed).
"""

import argparse
import json
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from machine import hardware, versions

from fedlabels.report.comparison.cells import Levels, short_names, show
from fedlabels.report.comparison.compare import Comparison, Question, compare
from fedlabels.report.comparison.runs import Run
from fedlabels.report.single.source import read_run

RESULTS = Path(__file__).parent / "results"


def line(found: Comparison, row: Levels, name: str, run: Run) -> dict[str, object]:
    """Return one run's line of the JSON."""
    rounds = read_run(run.path).rounds
    right = rounds.get("pseudo_accuracy")
    known = right[np.isfinite(right)][-10:]
    keys = found.design.keys
    return {
        **dict(zip(keys, (show(name), *map(show, row)), strict=True)),
        "seed": run.seed,
        "accuracy": run.last,
        "accuracy_last_round": float(run.metric[-1]),
        "best_accuracy": run.best(lower_is_better=False),
        "pseudo_accuracy_last_10_rounds": float(known.mean()) if len(known) else None,
        "seconds": round(run.total_seconds, 1),
        "bytes": run.total_bytes,
        "federation_hash": run.manifest.get("federation_hash"),
        "package": run.manifest.get("package"),
    }


def written(values: list[float], digits: int = 1) -> str:
    """Write a mean with its deviation and the number of values, 100 times as large."""
    if not values:
        return "–"
    text = f"{100 * mean(values):.{digits}f}"
    return f"{text} ± {100 * stdev(values):.{digits}f}" if len(values) > 1 else text


def by_seed(found: Comparison, row: Levels, name: str) -> dict[int, float]:
    """Return the last accuracy of every seed."""
    cell = found.cell(row, f'"{name}"')
    return {seed: run.last for (seed, _), run in cell.runs.items()} if cell else {}


def table(found: Comparison, lower: str, upper: str) -> str:
    """Write accuracies and headroom as a Markdown table."""
    names = [show(name) for name in found.contenders]
    methods = [lower, *(n for n in names if n not in (lower, upper)), upper]
    keys = [short_names(found.design.keys)[key] for key in found.design.keys[1:]]
    head = [*keys, "seeds", *(f"`{n}`" for n in methods), "headroom"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in found.rows:
        values = {name: by_seed(found, row, name) for name in methods}
        # a method that was not run at this setting does not keep the others from being compared
        common = sorted(set.intersection(*(set(one) for one in values.values() if one)))
        room = [values[upper][seed] - values[lower][seed] for seed in common]
        cells = [written([values[n][seed] for seed in common if values[n]]) for n in methods]
        shown = [*(show(level) for level in row), str(len(common)), *cells, written(room)]
        lines.append("| " + " | ".join(shown) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--lower", default="labeled_only")
    parser.add_argument("--upper", default="fully_labeled")
    parser.add_argument("--last", type=int, default=3)
    given = parser.parse_args()
    found = compare([given.sweep], Question(baseline=given.lower, last=given.last))
    lines = [
        line(found, cell.row, cell.contender, run)
        for cell in found.cells
        for run in cell.runs.values()
    ]
    facts = {
        "sweep": given.sweep.name,
        "hardware": hardware(),
        "versions": versions(),
        "evaluations": given.last,
    }
    path = RESULTS / f"{given.name}.json"
    path.write_text(json.dumps({**facts, "runs": lines}, indent=1) + "\n", encoding="utf-8")
    print(table(found, given.lower, given.upper))
    print(path)


if __name__ == "__main__":
    main()
