"""Where the time of a round goes, and what looking costs; writes benchmarks/results/profiles.json.

    python benchmarks/profiles.py [case ...] [--rounds 5] [--pairs 7]

Every case is a run of ``callbacks=profile``. Then one round is run over and over, in turns with the
clock off and on, in one process; its processor time is compared, which others on the machine hardly
change. What one phase costs is measured alone as well, and counted, phases times cost: that of a
clock that is off is too little to see beside a round.
"""

import argparse
import contextlib
import io
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import quantiles
from typing import Any

import numpy as np

from fedlabels.cohort import clock
from fedlabels.machine import allowed_cores
from fedlabels.rounds.flower_compat import quiet
from fedlabels.rounds.job import Job, Task
from fedlabels.run import RunFolder, Table
from fedlabels.run import main as entry
from fedlabels.run.setup import build_backend, build_world

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "profiles.json"

TRAIN, TEST = 20_000, 2_000
SERIAL, RAY = ["backend=serial"], ["backend=ray", "backend.num_workers=2"]
ARRAYS = [
    "dataset=npz", "dataset.views=fashion", "model=lenet", "clients=100", "per_round=10",
    "partition.alpha=1.0", "labels.fraction=0.1",
]  # fmt: skip
FEDLABEL = [
    "method=fedlabel", "training.steps=10", "training.steps_unlabeled=10", "training.batch_size=64",
    "training.batch_unlabeled=64",
]  # fmt: skip
LABELED = ["training.steps=10", "training.batch_size=64"]
QUICKSTART = ["preset=quickstart", "evaluate_every=1"]


@dataclass(frozen=True)
class Case:
    """A kind of run.

    Parameters
    ----------
    text : str
        For the table.
    overrides : list of str
        As on the command line of ``run_sim.py``.
    workers : int
        Two of them run on Ray; one, in this process, is also run in turns with the clock off.
    """

    text: str
    overrides: list[str]
    workers: int = 1


CASES = {
    "fedavg": Case(
        "FedAvg, LeNet, 28x28 arrays, all labeled",
        [*ARRAYS, "method=fedavg", *LABELED, "labels.fraction=1.0"],
    ),
    "fedlabel-digits": Case("FedLabel, the quickstart (digits)", QUICKSTART),
    "fedlabel": Case("FedLabel, LeNet, 28x28 arrays", [*ARRAYS, *FEDLABEL]),
    "fixmatch": Case(
        "FixMatch, LeNet, 28x28 arrays",
        [*ARRAYS, "method=fixmatch", *LABELED, "training.batch_unlabeled=64"],
    ),
    "fedlabel-digits-ray": Case("the quickstart on two Ray workers", QUICKSTART, workers=2),
}


# ---- where the time goes


def write_arrays(folder: Path) -> None:
    """Write gray 28x28 pictures of ten classes, blurred shapes with noise."""
    random = np.random.default_rng(0)
    shapes = random.integers(0, 256, (10, 7, 7)).repeat(4, axis=1).repeat(4, axis=2)
    for name, count in (("train", TRAIN), ("test", TEST)):
        y = random.integers(0, 10, count)
        noise = random.integers(0, 256, (count, 28, 28))
        np.savez(folder / f"{name}.npz", x=((shapes[y] + noise) // 2).astype(np.uint8), y=y)


def composed(case: Case, data: Path, *more: str) -> dict[str, Any]:
    """Compose and check settings as ``run_sim.py`` does."""
    given = [*(SERIAL if case.workers == 1 else RAY), *case.overrides, *more]
    if "dataset=npz" in given:
        given.append(f"dataset.root={data}")
    return entry.compose_settings(given)


def profile(case: Case, data: Path, rounds: int) -> dict[str, Any]:
    """Run a case and return its mean seconds by phase, the first round left out."""
    config = composed(case, data, "callbacks=profile", f"rounds={rounds + 1}")
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.redirect_stdout(io.StringIO()):
            entry.execute(config, Path(folder) / "run")
        rows = list(Table(Path(folder) / "run" / "profile.csv").rows())
        facts = json.loads((Path(folder) / "run" / "profile.json").read_text())["otherData"]
    found: dict[str, dict[str, list[float]]] = {"server": {}, "workers": {}}
    for row in rows:
        if row["round"] != "1":
            found[row["side"]].setdefault(row["phase"], []).append(float(row["seconds"]))
    seconds = {
        side: {name: round(sum(each) / rounds, 6) for name, each in phases.items()}
        for side, phases in found.items()
    }
    wall = sum(seconds["server"].values())
    return {
        "seconds": round(wall, 6),
        "phases_a_round": facts["phases"],
        "server_seconds": seconds["server"],
        "worker_seconds": seconds["workers"],
    }


# ---- what looking costs


def phase_seconds(*, on: bool, repeats: int = 50_000) -> float:
    """Time one phase without the loop around it; the least of five."""

    def empty() -> None:
        for _ in range(repeats):
            pass

    def phases() -> None:
        if on:
            clock.start("demo")
        for _ in range(repeats):
            with clock.phase("gather"):
                pass
        clock.stop()

    return min(spent(phases) - spent(empty) for _ in range(5)) / repeats


def spent(work: Callable[[], Any]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def overhead(case: Case, data: Path, pairs: int) -> dict[str, float]:
    """Run one round in turns with the clock off and on; the ratios of neighbours."""
    config = composed(case, data)
    world = build_world(config)
    off = build_round(config, world)
    on = build_round({**config, "callbacks": {"profile": {"enabled": True}}}, world)
    for run in (off, on):
        run(False)
    ratios = []
    for turn in range(pairs):  # whoever comes second finds the caches as the first left them
        if turn % 2:
            after, before = spent(lambda: on(True)), spent(lambda: off(False))
        else:
            before, after = spent(lambda: off(False)), spent(lambda: on(True))
        ratios.append(after / before)
    low, middle, high = quantiles(ratios, n=4)
    return {"on": round(middle, 4), "on_low": round(low, 4), "on_high": round(high, 4)}


def build_round(config: Mapping[str, Any], world: Any) -> Callable[[bool], None]:
    """Return what trains the first clients of a federation from the initial weights."""
    with tempfile.TemporaryDirectory() as folder:
        backend = build_backend(config, world, RunFolder(folder), 0)
    model = backend.initial()
    tasks = tuple(Task(k) for k in range(config["per_round"]))
    job = Job("train", 1, config["rounds"], tasks, {"model": model}, {}, {"model": "sum"})

    def run(timed: bool) -> None:
        if timed:
            clock.start("round")
        result = backend.run(job)
        clock.stop()
        backend.tracks(False)
        wrong = [row.error for row in result.rows if row.error]
        if wrong:
            sys.exit(f"a client failed: {wrong[0]}")

    return run


# ---- the table


def measure(names: list[str], rounds: int, pairs: int) -> list[dict[str, Any]]:
    off, on, rows = phase_seconds(on=False), phase_seconds(on=True), []
    with tempfile.TemporaryDirectory() as data:
        write_arrays(Path(data))
        for name in names:
            case = CASES[name]
            row = {"case": name, "text": case.text, "workers": case.workers}
            row |= {"overrides": case.overrides, **profile(case, Path(data), rounds)}
            if case.workers == 1:
                row["ratio"] = overhead(case, Path(data), pairs)
                share = row["phases_a_round"] / row["seconds"]
                row["ratio"]["on_counted"] = round(1 + on * share, 6)
                row["ratio"]["off_counted"] = round(1 + off * share, 6)
            rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    heads = [row["text"] for row in rows]
    lines = [*aligned("", heads), *aligned("s a round", [f"{r['seconds']:.2f}" for r in rows], 0)]
    for side in ("worker", "server"):
        times = [row[f"{side}_seconds"] for row in rows]
        whole = [sum(each.values()) for each in times]
        names = list(dict.fromkeys(name for each in times for name in each))
        lines += [
            "",
            *aligned(f"% of {side}-seconds" if side == "worker" else "% of a round", heads),
        ]
        for name in names:
            cells = zip(times, whole, strict=True)
            lines += aligned(name, [f"{100 * t.get(name, 0.0) / w:.1f}" for t, w in cells], 0)
    ratios = [row.get("ratio") for row in rows]
    lines += ["", *aligned("times the round without a clock", heads)]
    for text, key in (("on", "on"), ("on, counted", "on_counted"), ("off, counted", "off_counted")):
        lines += aligned(f"clock {text}", [f"{r[key]:.5f}" if r else "" for r in ratios], 0)
    return "\n".join(["", *lines, ""])


def aligned(first: str, cells: list[str], rule: int = 1) -> list[str]:
    return [f"| {' | '.join([first, *cells])} |", f"|{'---|' * (len(cells) + 1)}"][: 1 + rule]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="case", help=", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=5, help="after one that warms up")
    parser.add_argument("--pairs", type=int, default=7, help="rounds with the clock off and on")
    options = parser.parse_args()
    unknown = set(options.cases) - set(CASES)
    if unknown:
        parser.error(f"unknown case {', '.join(sorted(unknown))}; choose from {', '.join(CASES)}")
    quiet()
    rows = measure(options.cases or list(CASES), options.rounds, options.pairs)
    facts = {
        "hardware": {"machine": platform.machine(), "cores": allowed_cores()},
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("fedlabels", "torch", "numpy", "ray")},
        },
        "nanoseconds_a_phase": {
            name: round(1e9 * phase_seconds(on=name == "on"), 1) for name in ("off", "on")
        },
        "rows": rows,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(facts, indent=1) + "\n")
    sys.stdout.write(table(rows))


if __name__ == "__main__":
    main()
