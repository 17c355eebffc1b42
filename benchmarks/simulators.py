"""Speed beside other simulators; writes benchmarks/results/simulators.json and .svg.

    python benchmarks/simulators.py [--cells cnn lenet mlp null start] [--engines bare flower ...]
                                    [--passes 3] [--quick] [--out FILE]
    python benchmarks/simulators.py --table [--out FILE]

A round is 50 of 1,000 clients x 50 samples, batch 10, one epoch of SGD. In a pass every engine
does it once, in a process of its own; the passes are repeated, so that a slow minute of the machine
hits all alike. A ratio is to the faster fp32 bare loop of the same pass. Peers get environments of
their own below the user's cache, made on first use; what cannot be installed is left out, with the
reason. "moved" is the distance of the final from the first weights: the same for the same work.
"first" is from the start of the process to the end of its first round. In the cell "start" that is
all, from the end of the imports, beside a bare Ray whose actors import torch and answer.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from engines import chart, peers, tables
from engines.work import CELLS, COHORT, STARTED, Job, write_data
from machine import hardware, run_limited, versions

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "simulators.json"
SEED = 0
LIMIT = 1_800  # seconds of one run of one engine
QUICK = 2  # timed rounds at most
SETTLE = 0.5  # seconds between runs
# How far the distance moved may differ from the bare loop's: other clients are drawn or samples are
# shuffled, which makes 5 %; one round less in ten, or half of the steps, would make more.
UNEQUAL = 0.08
ROUNDING = 2e-6  # of the norm: how far a mean of equal float32 weights may be from them
REFERENCE = ("bare", "bare-channels_last", "actors")
OFF = {
    "OMP_NUM_THREADS": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "WANDB_MODE": "disabled",
}
TRAINED = ("cnn", "lenet", "mlp")
ROUNDS = (*TRAINED, "null")


@dataclass(frozen=True)
class Engine:
    """One row of the table.

    Parameters
    ----------
    workers : int
        Processes that train, of one thread each.
    peer : str or None
        Key of `peers.PEERS`; None runs in this environment.
    torchrun : bool
        Start the workers with torchrun.
    cells : tuple of str
        Beginnings of the cells in which it makes sense.
    settle : float
        Seconds to wait after it: Ray takes a moment to go.
    passes : int
        How many passes it takes part in at most, unless they are asked for.
    """

    workers: int = 2
    peer: str | None = None
    torchrun: bool = False
    cells: tuple[str, ...] = ROUNDS
    settle: float = SETTLE
    passes: int = 3


RAY = 2.0
ENGINES = {
    "actors": Engine(cells=("start",), settle=RAY),
    "bare": Engine(),
    "bare-channels_last": Engine(cells=("cnn", "lenet")),
    "bare-bf16": Engine(cells=TRAINED),
    "bare-1": Engine(workers=1, passes=2),
    "fedlabels-processes": Engine(cells=(*ROUNDS, "start")),
    "fedlabels-processes-bf16": Engine(cells=TRAINED),
    "fedlabels-ray": Engine(cells=(*ROUNDS, "start"), settle=RAY),
    "fedlabels-ray-stacked": Engine(cells=TRAINED, settle=RAY, passes=2),
    "fedlabels-ray-bf16": Engine(cells=TRAINED, settle=RAY),
    "fedlabels-serial": Engine(workers=1, cells=(*ROUNDS, "start")),
    "fedlabels-serial-stacked": Engine(workers=1, cells=("lenet", "mlp"), passes=2),
    "pfl-2": Engine(peer="pfl", torchrun=True),
    "pfl-1": Engine(workers=1, peer="pfl", passes=2),
    "fluke": Engine(workers=1, peer="fluke", passes=2),
    "blazefl": Engine(peer="blazefl"),
    "flower": Engine(cells=(*ROUNDS, "start"), settle=RAY),
}


@dataclass
class Row:
    """What one engine did in one cell."""

    engine: str
    passes: list[dict[str, Any]] = field(default_factory=list)
    skipped: str | None = None

    def facts(self, bare: "Bare", rounds: int) -> dict[str, Any]:
        """Return medians and spread, and how they compare."""
        begin = {"engine": self.engine, "workers": ENGINES[self.engine].workers}
        if not self.passes:
            return {**begin, "skipped": self.skipped or "did not run"}
        medians = [one["median"] for one in self.passes]
        return {
            **begin,
            "seconds": median(medians),
            "fastest": min(medians),
            "slowest": max(medians),
            **bare.compare(self.passes),
            **({"ms_a_client": 1000 * median(medians) / COHORT} if rounds else {}),
            "first": median(one["first"] for one in self.passes),
            "after_imports": median(one["after_imports"] for one in self.passes),
            "norm": [one["norm"] for one in self.passes],
            "moved": [one["moved"] for one in self.passes],
            "equal_work": bare.equal(self.passes),
            "passes": self.passes,
            **({"failed_later": self.skipped} if self.skipped else {}),
        }


def attempt(
    job: Job, python: Path, checkout: Path = HERE.parent
) -> tuple[dict[str, Any] | None, str]:
    """Run a job in a process of its own; return what it wrote, or the end of what it said."""
    file, log = job.scratch / "job.json", job.scratch / "log.txt"
    values = {**asdict(job), "folder": str(job.folder), "scratch": str(job.scratch)}
    file.write_text(json.dumps(values))
    engine = ENGINES[job.engine]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={job.workers}"]
    command = [str(python), *(launcher if engine.torchrun else []), "-m", "engines", str(file)]
    environment = {**os.environ, **OFF, STARTED: str(time.time())}
    environment["PYTHONPATH"] = os.pathsep.join([str(checkout / "benchmarks"), str(checkout)])
    environment["FLWR_HOME"] = str(job.scratch / "flwr")
    wrong = run_limited(command, environment, log, LIMIT)
    if not wrong and job.result.exists():
        return json.loads(job.result.read_text()), ""
    if wrong.startswith("took"):
        return None, wrong
    said = complaint(log.read_text(errors="replace"))
    return None, f"{wrong or 'exit status 0'}: {said}"[:300]


def complaint(said: str) -> str:
    """Return the line of a log that says most: the last error that is not the launcher's."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line and "ChildFailedError" not in line]
    lines = [line for line in lines if line.strip("=-")]
    return (errors or lines or ["nothing was said"])[-1]


def measure(cell: str, names: list[str], options: argparse.Namespace, folder: Path) -> list[Row]:
    """Run all engines in turn, then all again; an engine that fails is not tried again."""
    rows = [Row(name) for name in names if cell.startswith(ENGINES[name].cells)]
    for turn in range(options.passes or CELLS[cell].passes):
        # there and back again: nobody is always the first
        for row in rows if turn % 2 == 0 else reversed(rows):
            if row.skipped is None and turn < (options.passes or ENGINES[row.engine].passes):
                once(row, cell, rounds_of(cell, options), folder, turn)
    return rows


def rounds_of(cell: str, options: argparse.Namespace) -> int:
    """Return how many rounds are timed."""
    return min(QUICK, CELLS[cell].rounds) if options.quick else CELLS[cell].rounds


def once(row: Row, cell: str, rounds: int, folder: Path, turn: int) -> None:
    """Run one engine once and say how long it took."""
    engine = ENGINES[row.engine]
    python, row.skipped = Path(sys.executable), None
    if engine.peer is not None:
        python, row.skipped = peers.environment(engine.peer)
    if row.skipped is None:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
            job = Job(row.engine, cell, folder, Path(scratch), rounds, engine.workers, SEED)
            made, row.skipped = attempt(job, python)
            if made is not None:
                row.passes.append({"pass": turn, "load": load, **made})
                row.skipped = None
    time.sleep(engine.settle)
    done = row.skipped or f"{row.passes[-1]['median']:.4f} s"
    sys.stdout.write(f"{cell} pass {turn + 1} {row.engine}: {done}\n")
    sys.stdout.flush()


@dataclass(frozen=True)
class Bare:
    """What others are compared with: the fp32 bare loop of two processes.

    Parameters
    ----------
    seconds : dict of int to float
        Pass -> the faster of its layouts.
    moved : float or None
        How far the weights moved.
    """

    seconds: dict[int, float]
    moved: float | None

    @classmethod
    def of(cls, rows: list[Row]) -> "Bare":
        """Take it from the rows of a cell."""
        seconds: dict[int, float] = {}
        for one in (one for row in rows if row.engine in REFERENCE for one in row.passes):
            turn = one["pass"]
            seconds[turn] = min(one["median"], seconds.get(turn, math.inf))
        moved = [one["moved"] for row in rows if row.engine == "bare" for one in row.passes]
        return cls(seconds, moved[0] if moved else None)

    def compare(self, passes: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the ratio to the same pass's bare loop, its range, and seconds above it."""
        pairs = [
            (p["median"], self.seconds[p["pass"]]) for p in passes if p["pass"] in self.seconds
        ]
        if not pairs:
            return {}
        ratios = [mine / bare for mine, bare in pairs]
        return {
            "ratio": median(ratios),
            "ratio_range": [min(ratios), max(ratios)],
            "above": median(mine - bare for mine, bare in pairs),
        }

    def equal(self, passes: list[dict[str, Any]]) -> bool | None:
        """Say whether as much work was done; None where there is no bare loop."""
        moved = self.moved
        if moved is None:
            return None
        return all(
            abs(one["moved"] - moved) <= UNEQUAL * moved + ROUNDING * one["norm"] for one in passes
        )


def prepare(folder: Path, cells: list[str]) -> None:
    """Write the data and first weights of all cells."""
    command = [sys.executable, "-m", "engines.first", str(folder), str(SEED), *cells]
    for cell in cells:
        shape = CELLS[cell].shape
        write_data(folder / "x".join(map(str, shape)), shape, SEED)
    environment = {
        **os.environ,
        **OFF,
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
    }
    subprocess.run(command, env=environment, check=True)


# ---- what is written


def chosen(given: list[str], known: list[str]) -> list[str]:
    """Return names, and all of a family, in the order in which they are known."""
    wrong = [one for one in given if not any(n == one or n.startswith(f"{one}-") for n in known)]
    if wrong:
        sys.exit(f"unknown: {', '.join(wrong)}; known are {', '.join(known)}")
    return [n for n in known if any(n == one or n.startswith(f"{one}-") for one in given)]


def save(out: Path, cell: str, facts: dict[str, Any]) -> None:
    """Put a cell into the results; other cells stay as they were measured."""
    old = json.loads(out.read_text())["cells"] if out.exists() else {}
    cells = {**old, cell: facts}
    ordered = {name: cells[name] for name in CELLS if name in cells}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"cells": ordered}, indent=1) + "\n")
    out.with_suffix(".svg").write_text(chart.draw(ordered))


def run_cell(
    cell: str, names: list[str], options: argparse.Namespace, folder: Path
) -> dict[str, Any]:
    """Measure a cell and return all that is kept of it."""
    rows = measure(cell, names, options, folder)
    bare, rounds = Bare.of(rows), rounds_of(cell, options)
    return {
        "text": CELLS[cell].text,
        "unit": CELLS[cell].unit,
        "rounds": rounds,
        "passes": options.passes or CELLS[cell].passes,
        "measured": time.strftime("%Y-%m-%d %H:%M"),
        "versions": {**versions(), **peers.versions()},
        "hardware": hardware(),
        "rows": [row.facts(bare, rounds) for row in rows],
    }


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    families = list(dict.fromkeys(name.partition("-")[0] for name in ENGINES))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", nargs="+", default=[*ROUNDS, "start"])
    parser.add_argument("--engines", nargs="+", default=families)
    parser.add_argument("--passes", type=int, help="2 or 3 unless given, depending on the cell")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} timed rounds; not saved")
    parser.add_argument("--out", type=Path, help="instead of benchmarks/results/simulators.json")
    parser.add_argument("--table", action="store_true", help="print the results there are")
    return parser.parse_args(arguments)


def main() -> None:
    options = options_of()
    out = options.out or (None if options.quick else RESULTS)
    if options.table:
        saved = json.loads((out or RESULTS).read_text())["cells"]
        sys.stdout.write("".join(map(tables.cell, saved.values())) + tables.overview(saved))
        return
    names, cells = chosen(options.engines, list(ENGINES)), chosen(options.cells, list(CELLS))
    measured = {}
    with tempfile.TemporaryDirectory(prefix="fedlabels-benchmark-") as folder:
        prepare(Path(folder), cells)
        for cell in cells:
            measured[cell] = run_cell(cell, names, options, Path(folder))
            sys.stdout.write(tables.cell(measured[cell]))
            sys.stdout.flush()
            if out is not None:
                save(out, cell, measured[cell])
    sys.stdout.write(tables.overview(measured))


if __name__ == "__main__":
    main()
