"""How far it scales; writes benchmarks/results/scale.json and scale.svg. Linux only.

    python benchmarks/scale.py [--parts clients cohorts cluster soak] [--quick] [--out FILE]
    python benchmarks/scale.py --table [--out FILE]

Every row is a run in a process of its own. Clients are artificial users that draw 20 samples of
the digits each and train five steps of at most ten samples. A round counts everything: messages,
training, sums, tables, checkpoints. Rows are written as they come, other parts stay as they were
measured. Shares the machine with whatever else runs on it, so "load" is in every row.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from machine import hardware, run_limited, versions
from scaling import chart, tables

from fedlabels.telemetry import OFF

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "scale.json"
LIMIT = 900  # seconds a run may take
COHORTS = {10: 20, 30: 15, 100: 8, 300: 4, 1000: 3}  # clients a round: timed rounds
QUICK_COHORTS = {10: 2, 30: 2}
SOAK, LOOK = 200, 10  # rounds, and rounds between two looks at the memory

BASE = [
    "dataset=digits", "partition=iid", "partition.reuse=true", "partition.samples_per_client=20",
    "labels=uniform", "labels.fraction=0.5", "method=fedavg", "training.steps=5",
    "training.batch_size=10", "training.lr=0.1", "evaluate_every=1", "checkpoint_every=10",
]  # fmt: skip
MODELS = {"mlp": ["model=mlp", "model.hidden=[32]"], "lenet": ["model=lenet"]}
PLACES = {
    "serial": ["backend=serial"],
    "ray-1": ["backend=ray", "backend.num_workers=1"],
    "ray-2": ["backend=ray", "backend.num_workers=2"],
    "ray-2-nodes": ["backend=ray", "backend.num_workers=2"],
}
TEXT = {
    "clients": "clients in all; 100 a round, MLP of 2,410 parameters",
    "cohorts": "clients a round, of 1,000",
    "cluster": "where 100 clients a round run; the MLP's clients keep a model between rounds",
    "soak": "memory over the rounds; 20 of 200 clients a round, each keeps a model",
}


@dataclass(frozen=True)
class Row:
    """One run of a part: what tells it from the others, and the case to run."""

    facts: dict[str, Any]
    overrides: list[str]
    rounds: int
    more: dict[str, Any] = field(default_factory=dict)

    def case(self) -> dict[str, Any]:
        """Return the case as the run's process reads it."""
        return {"overrides": [*BASE, *self.overrides], "rounds": self.rounds, **self.more}


def row(place: str, model: str, clients: int, cohort: int, rounds: int, **more: Any) -> Row:
    """Describe a run."""
    facts = {"place": place, "model": model, "clients": clients, "cohort": cohort}
    sizes = [f"clients={clients}", f"per_round={cohort}"]
    return Row(facts, [*PLACES[place], *MODELS[model], *sizes], rounds, more)


# ---- parts


def clients(quick: bool) -> Iterator[Row]:
    """Many clients, few of them in a round."""
    if quick:
        yield row("serial", "mlp", 5_000, 20, 2)
        return
    for number, places in (
        (1_000, ("serial", "ray-2")),
        (100_000, ("serial", "ray-2")),
        (1_000_000, ("serial",)),
    ):
        for place in places:
            yield row(place, "mlp", number, 100, 10)


def cohorts(quick: bool) -> Iterator[Row]:
    """Small to large rounds."""
    sizes = QUICK_COHORTS if quick else COHORTS
    for model in MODELS:
        for place in ("serial", "ray-2"):
            for cohort, rounds in sizes.items():
                yield row(place, model, max(sizes), cohort, rounds)


def cluster(quick: bool) -> Iterator[Row]:
    """Run the same in one process, on Ray workers, and on a cluster that is joined."""
    for model in MODELS:
        for place in PLACES:
            nodes = 2 if place == "ray-2-nodes" else 0
            size = (30, 10, 2) if quick else (300, 100, 20)
            yield row(place, model, *size, nodes=nodes, keeps=model == "mlp")


def soak(quick: bool) -> Iterator[Row]:
    """Many rounds: does the memory grow, is anything left behind."""
    for place in ("serial", "ray-2"):
        rounds = 30 if quick else SOAK
        yield row(place, "mlp", 200, 20, rounds - 1, every=LOOK, keeps=True)


PARTS = {"clients": clients, "cohorts": cohorts, "cluster": cluster, "soak": soak}


# ---- running


def attempt(chosen: Row) -> dict[str, Any]:
    """Run a case in a process of its own; return its results, or why there are none."""
    load = round(os.getloadavg()[0], 2)
    # Ray puts sockets below it, whose paths must be short
    with tempfile.TemporaryDirectory(prefix="fl-") as scratch:
        file, own, log = Path(scratch, "case.json"), Path(scratch, "t"), Path(scratch, "log")
        own.mkdir()
        file.write_text(json.dumps(chosen.case()))
        environment = {**os.environ, **OFF, "OMP_NUM_THREADS": "1", "TMPDIR": str(own)}
        environment["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parent)])
        environment.pop("RAY_TMPDIR", None)
        environment.pop("RAY_ADDRESS", None)
        command = [sys.executable, "-m", "scaling", str(file)]
        error = run_limited(command, environment, log, LIMIT)
        result = Path(scratch, "result.json")
        if not error and result.exists():
            return {**chosen.facts, "load": load, **json.loads(result.read_text())}
        said = log.read_text(errors="replace").strip().splitlines() or ["nothing was said"]
        return {**chosen.facts, "load": load, "error": f"{error or 'no result'}: {said[-1]}"[:300]}


def run_part(name: str, quick: bool, out: Path | None) -> dict[str, Any]:
    """Measure a part, row by row."""
    facts: dict[str, Any] = {
        "text": TEXT[name],
        "measured": time.strftime("%Y-%m-%d %H:%M"),
        "versions": versions(),
        "hardware": hardware(),
        "rows": [],
    }
    for chosen in PARTS[name](quick):
        made = attempt(chosen)
        facts["rows"].append(made)
        shown = made.get("error") or f"{made['round']:.4f} s a round"
        sys.stdout.write(f"{name}: {' '.join(map(str, chosen.facts.values()))}: {shown}\n")
        sys.stdout.flush()
        if out is not None:
            save(out, name, facts)
    return facts


# ---- what is written


def save(out: Path, name: str, facts: dict[str, Any]) -> None:
    """Put a part into the results; other parts stay as they were measured."""
    old = json.loads(out.read_text())["parts"] if out.exists() else {}
    parts = {**old, name: facts}
    ordered = {key: parts[key] for key in PARTS if key in parts}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"parts": ordered}, indent=1) + "\n")
    out.with_suffix(".svg").write_text(chart.draw(ordered))


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=[*PARTS], choices=PARTS)
    parser.add_argument("--quick", action="store_true", help="tiny sizes; not saved without --out")
    parser.add_argument("--out", type=Path, help="instead of benchmarks/results/scale.json")
    parser.add_argument("--table", action="store_true", help="print the results there are")
    return parser.parse_args(arguments)


def main() -> None:
    options = options_of()
    out = options.out or (None if options.quick else RESULTS)
    if options.table:
        saved = json.loads((out or RESULTS).read_text())["parts"]
        sys.stdout.write("".join(tables.part(name, facts) for name, facts in saved.items()))
        return
    for name in options.parts:
        facts = run_part(name, options.quick, out)
        sys.stdout.write(tables.part(name, facts))


if __name__ == "__main__":
    main()
