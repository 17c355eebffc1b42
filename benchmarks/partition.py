"""How long dealing takes, beside flwr-datasets; writes benchmarks/results/partition.json.

    python benchmarks/partition.py [--peers] [--venv FOLDER] [--repeats 7]

With --peers everything runs in a virtual environment of its own, made on first use, that holds
flwr-datasets: both sides in one process, one after the other, with the same numpy. The work is the
same: from the classes of all samples to one index array a client. Images play no part.
"""

import argparse
import contextlib
import importlib
import importlib.metadata
import io
import json
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from fedlabels.federation import PARTITIONS, POLICIES, Federation, Ragged, Samples, build, make
from fedlabels.machine import allowed_cores
from fedlabels.telemetry import OFF

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "partition.json"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
PEER = "flwr-datasets>=0.6,<0.7"

SAMPLES, CLASSES, CLIENTS = 60_000, 10, 1_000
MANY, EACH = 100_000, 50
SMALL_WORK = f"{SAMPLES:,} samples, {CLIENTS:,} clients"
LARGE_WORK = f"{MANY:,} artificial clients, {EACH} samples each"

OURS: list[tuple[str, dict[str, Any]]] = [
    ("iid", {}),
    ("dirichlet", {"alpha": 0.5, "min_size": 10}),
    ("dirichlet", {"alpha": 0.5, "min_size": 10, "balance": True}),
    ("dirichlet", {"alpha": 0.1, "min_size": 10}),
    ("client_dirichlet", {"alpha": 0.3}),
    ("shards", {"shards_per_client": 2}),
    ("classes_per_client", {"number": 2}),
    ("extended_dirichlet", {"number": 2, "alpha": 0.5}),
    ("log_normal", {"sigma": 1.0}),
    ("quantity_dirichlet", {"alpha": 0.5}),
    ("natural", {}),
    ("domain", {}),
    ("domain", {"within": "lds", "alpha": 0.5}),
    ("fedloge", {"alpha": 0.5}),
]
LARGE_OURS: list[tuple[str, dict[str, Any]]] = [
    ("iid", {}),
    ("dirichlet", {"alpha": 0.5}),
    ("client_dirichlet", {"alpha": 0.3}),
    ("classes_per_client", {"number": 2}),
]
# Class of flwr-datasets, its arguments, and the partitioner of ours with the same rule.
THEIRS: list[tuple[str, dict[str, Any], str]] = [
    ("IidPartitioner", {}, "iid"),
    ("DirichletPartitioner", {"partition_by": "label", "alpha": 0.5}, "dirichlet"),
    ("DirichletPartitioner", {"partition_by": "label", "alpha": 0.1}, "dirichlet"),
    (
        "InnerDirichletPartitioner",
        {"partition_by": "label", "alpha": 0.3, "partition_sizes": [SAMPLES // CLIENTS] * CLIENTS},
        "client_dirichlet",
    ),
    ("ShardPartitioner", {"partition_by": "label", "num_shards_per_partition": 2}, "shards"),
    (
        "PathologicalPartitioner",
        {"partition_by": "label", "num_classes_per_partition": 2},
        "classes_per_client",
    ),
    ("NaturalIdPartitioner", {"partition_by": "owner"}, "natural"),
]
LARGE_THEIRS: list[tuple[str, dict[str, Any], str]] = [
    ("IidPartitioner", {}, "iid"),
    (
        "DirichletPartitioner",
        {"partition_by": "label", "alpha": 0.5, "min_partition_size": 0},
        "dirichlet",
    ),
]


@dataclass
class Case:
    """One line of the table.

    Parameters
    ----------
    work, tool, rule : str
        What is dealt, by whom, how.
    run : callable
        Does the work once and returns the seconds of its pieces; ``total`` among them.
    like : str
        The partitioner of ours with the same rule.
    repeats : int
        How often it is run, after once to warm up if more than once.
    """

    work: str
    tool: str
    rule: str
    run: Callable[[], dict[str, float]]
    like: str
    repeats: int
    times: list[dict[str, float]] = field(default_factory=list)
    error: str | None = None

    def once(self, keep: bool) -> None:
        """Run it; an error ends the case and is what its row says."""
        if self.error is None:
            try:
                pieces = self.run()
            except Exception as error:
                self.error = f"{type(error).__name__}: {error}"
            else:
                self.times += [pieces] if keep else []

    def row(self) -> dict[str, Any]:
        """Return medians of all pieces, and the spread of the whole."""
        facts = {"work": self.work, "tool": self.tool, "rule": self.rule, "like": self.like}
        if self.error is not None:
            return {**facts, "error": self.error}
        totals = [t["total"] for t in self.times]
        pieces = {k: round(median(t[k] for t in self.times), 6) for k in self.times[0]}
        spread = {"fastest": round(min(totals), 6), "slowest": round(max(totals), 6)}
        return {**facts, "runs": len(totals), "seconds": {**pieces, **spread}}


def clock(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def training_set() -> Samples:
    random = np.random.default_rng(0)
    return Samples(
        random.permutation(np.arange(SAMPLES) % CLASSES),
        CLASSES,
        random.integers(0, 6, SAMPLES),
        tuple("abcdef"),
        random.permutation(np.arange(SAMPLES) % CLIENTS),
        tuple(f"person {k}" for k in range(CLIENTS)),
    )


# ---- ours


def ours(samples: Samples, name: str, settings: dict[str, Any], repeats: int) -> Case:
    """Deal, choose labels, hash: each for itself, then all of it as a run does."""
    partition = make(PARTITIONS, name, settings)
    policy = make(POLICIES, "stratified", {"fraction": 0.1})

    def run() -> dict[str, float]:
        dealing, shards = clock(lambda: partition.deal(samples, clients=CLIENTS, seed=0))
        random = np.random.default_rng(0)
        labeling, masks = clock(lambda: policy.masks(shards, samples, random=random))
        parts = shards.keep(masks.labeled), shards.keep(masks.unlabeled)
        hashing, _ = clock(lambda: Federation.plain(*parts, samples.labels, CLASSES, {}))
        total, _ = clock(
            lambda: build(samples, clients=CLIENTS, partition=partition, policy=policy, seed=0)
        )
        return {"deal": dealing, "labels": labeling, "hash": hashing, "total": total}

    return Case(SMALL_WORK, "fedlabels", text(name, settings), run, name, repeats)


def ours_large(samples: Samples, name: str, settings: dict[str, Any], repeats: int) -> Case:
    partition = make(PARTITIONS, name, settings)
    policy = make(POLICIES, "uniform", {"fraction": 0.1})

    def run() -> dict[str, float]:
        total, _ = clock(
            lambda: build(
                samples,
                clients=MANY,
                partition=partition,
                policy=policy,
                seed=0,
                reuse=True,
                samples_per_client=EACH,
            )
        )
        pool = samples.take(np.resize(np.arange(SAMPLES), MANY * EACH))
        dealing, _ = clock(lambda: partition.deal(pool, clients=MANY, seed=0))
        return {"deal": dealing, "total": total}

    return Case(LARGE_WORK, "fedlabels", text(name, settings), run, name, repeats)


def text(name: str, settings: dict[str, Any]) -> str:
    shown = {k: v for k, v in settings.items() if k != "partition_sizes"}
    return " ".join([name, *(f"{k}={v}" for k, v in shown.items())])


# ---- theirs


def theirs(samples: Samples, clients: int, rule: tuple[str, dict[str, Any], str]) -> Ragged:
    """Deal with a partitioner of flwr-datasets, down to one index array a client."""
    table = importlib.import_module("datasets").Dataset
    module = importlib.import_module("flwr_datasets.partitioner")
    target, arguments, _ = rule
    number = {} if target in ("InnerDirichletPartitioner", "NaturalIdPartitioner") else {
        "num_partitions": clients
    }  # fmt: skip
    columns = {"label": samples.labels, "index": np.arange(len(samples)), "owner": samples.owner}
    partitioner = getattr(module, target)(**number, **arguments)
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        partitioner.dataset = table.from_dict(columns)
        parts = [np.asarray(partitioner.load_partition(k)["index"][:]) for k in range(clients)]
    return Ragged.from_lists(parts)


def peer(
    samples: Samples, work: str, clients: int, rule: tuple[str, dict[str, Any], str], repeats: int
) -> Case:
    def run() -> dict[str, float]:
        seconds, _ = clock(lambda: theirs(samples, clients, rule))
        return {"deal": seconds, "total": seconds}

    return Case(work, "flwr-datasets", text(*rule[:2]), run, rule[2], repeats)


def enter(venv: Path, arguments: list[str]) -> str | None:
    """Run this script in the environment with flwr-datasets; say why not if that fails."""
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    try:
        if not python.exists():
            sys.stdout.write(f"making {venv} with {PEER}\n")
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        installed = [python, "-c", "import flwr_datasets.partitioner"]
        if subprocess.run(installed, capture_output=True, check=False).returncode:
            numpy = f"numpy=={importlib.metadata.version('numpy')}"
            subprocess.run(
                [python, "-m", "pip", "install", "-q", PEER, numpy],
                check=True,
                capture_output=True,
                text=True,
            )
    except (OSError, subprocess.CalledProcessError) as error:
        return f"{error} {getattr(error, 'stderr', None) or ''}".strip()[-500:]
    environment = {**os.environ, **OFF, "PYTHONPATH": str(ROOT)}
    command = [str(python), str(Path(__file__).resolve()), *arguments, "--inside"]
    sys.exit(subprocess.run(command, env=environment, check=False).returncode)


# ---- the table


def measure(cases: list[Case]) -> None:
    """Run all cases in turn, then all again: a slow minute of the machine hits all alike."""
    for case in cases:
        if case.repeats > 1:
            case.once(keep=False)
    for turn in range(max(case.repeats for case in cases)):
        for case in cases:
            if turn < case.repeats:
                case.once(keep=True)
        sys.stdout.write(f"turn {turn + 1} done\n")
        sys.stdout.flush()


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("numpy", "flwr-datasets", "datasets", "pyarrow"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| work | tool | rule | deal | labels | hash | all | slowest |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        start = f"| {row['work']} | {row['tool']} | {row['rule']} |"
        if "error" in row:
            lines.append(f"{start} {row['error'][:60]} | | | | |")
            continue
        keys = ("deal", "labels", "hash", "total", "slowest")
        cells = [milliseconds(row["seconds"].get(key)) for key in keys]
        lines.append(f"{start} {' | '.join(cells)} |")
    return "\n".join(["", *lines, "", "Milliseconds, medians.", ""])


def milliseconds(seconds: float | None) -> str:
    return (
        ""
        if seconds is None
        else f"{seconds * 1e3:,.1f}"
        if seconds < 1
        else f"{seconds * 1e3:,.0f}"
    )


def collect(repeats: int, with_peers: bool) -> list[Case]:
    samples = training_set()
    cases = [ours(samples, name, settings, repeats) for name, settings in OURS]
    cases += [ours_large(samples, name, settings, repeats) for name, settings in LARGE_OURS]
    if with_peers:
        cases += [peer(samples, SMALL_WORK, CLIENTS, rule, repeats) for rule in THEIRS]
        pool = samples.take(np.resize(np.arange(SAMPLES), MANY * EACH))
        # Minutes each: once is enough to see the order of magnitude.
        cases += [peer(pool, LARGE_WORK, MANY, rule, 1) for rule in LARGE_THEIRS]
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", action="store_true", help="also time flwr-datasets")
    parser.add_argument("--venv", type=Path, default=CACHE / "fedlabels" / "peers-partition")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    problem = None
    if options.peers and not options.inside:
        problem = enter(options.venv.expanduser(), sys.argv[1:])
        sys.stdout.write(f"without flwr-datasets: {problem}\n")
    cases = collect(options.repeats, options.inside)
    measure(cases)
    rows = [case.row() for case in cases]
    facts = {
        "hardware": {"machine": platform.machine(), "cores": allowed_cores()},
        "versions": versions(),
        "peers": {"flwr-datasets": "timed" if options.inside else problem or "not asked for"},
        "rows": rows,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(facts, indent=1) + "\n")
    sys.stdout.write(table(rows))


if __name__ == "__main__":
    main()
