"""FedWon, FedBN and what they are compared with, on clients of different domains.

    python benchmarks/domains.py [--sets icons sfs4] [--sizes 32 1] [--seeds 0 1 2] [--jobs 2]
    python benchmarks/domains.py --tune        # learning rates, on validation data; optional
    python benchmarks/domains.py --table       # what is there, as Markdown

Every cell is one run below runs/domains/, one client a domain, all of them in each
round. Its figures go to benchmarks/results/domains.json when it ends; finished cells are skipped
and killed ones resumed. "icons" needs "make data-icons", "sfs4" (SFS-4 on Fashion-MNIST) "make
data". All of it takes about 13 minutes of two cores, tuning about 10.
"""

import argparse
import csv
import json
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from fedlabels.data import ArrayDataset, load
from fedlabels.sweep.study import Key, Row, Study

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ("kind", "set", "size", "method", "seed", "lr")
STUDY = Study(ROOT / "runs" / "domains", ROOT / "benchmarks" / "results" / "domains.json", COLUMNS)

# FedBN's network and its training, both made smaller: SGD without momentum, one epoch a round
COMMON = [
    "backend=serial", "partition=domain", "labels=uniform", "labels.fraction=1.0",
    "evaluate_clients=true", "model=digits_cnn", "model.width=16", "model.hidden=[128,64]",
    "training.steps=null", "training.epochs=1", "dataset=npz", "dataset.views=none",
]  # fmt: skip
METHODS = {
    "FedAvg, no norm": ["method=fedavg", "model.norm=none"],
    "FedAvg, batch norm": ["method=fedavg", "model.norm=batch"],
    "FedAvg, group norm": ["method=fedavg", "model.norm=group"],
    "FedAvg, layer norm": ["method=fedavg", "model.norm=layer"],
    "FedAvg, group norm + WS": ["method=fedavg", "model.norm=ws_group"],
    "FedBN": ["method=fedbn", "client.recompute_statistics=true"],
    "SiloBN": ["method=silobn", "client.recompute_statistics=true"],
    "FixBN": ["method=fixbn"],
    "FedWon": ["method=fedwon"],
    "FedWon, AGC": ["method=fedwon", "training.agc=0.64"],
}
OWN = ("FedBN", "SiloBN")  # judged by the clients' own models
RATES = {32: (0.03, 0.1, 0.3, 1.0), 1: (0.003, 0.01, 0.03)}
USUAL = {32: 0.1, 1: 0.01}
TUNE_SEED = 100
# Training and test images before they are dealt to domains; rounds by batch size
SETS: dict[str, dict[str, Any]] = {
    "sfs4": {
        "overrides": ["shift.preset=sfs4", "clients=4", "per_round=4"],
        "train": 1000, "test": 1000, "rounds": {32: 25, 1: 5},
    },
    "icons": {
        "overrides": ["clients=5", "per_round=5"],
        "train": 1000, "test": 1078, "rounds": {32: 25, 1: 5},
    },
}  # fmt: skip


def prepare(name: str) -> None:
    """Write the images of a set: training, test and, for tuning, validation in place of test."""
    if (STUDY.runs / "data" / name / "tune" / "test.npz").exists():
        return
    source = load("icons" if name == "icons" else "fashion_mnist")
    order = np.random.default_rng(0).permutation(len(source.train.y))
    train, test = SETS[name]["train"], SETS[name]["test"]
    parts = {
        ("run", "train"): part(source.train, order[:train]),
        ("run", "test"): part(source.test, np.arange(min(test, len(source.test.y)))),
        ("tune", "train"): part(source.train, order[:train]),
        ("tune", "test"): part(source.train, order[train : train + test]),
    }
    for (folder, split), arrays in parts.items():
        path = STUDY.runs / "data" / name / folder / f"{split}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **arrays)


def part(data: ArrayDataset, index: Any) -> dict[str, Any]:
    """Return some samples in the form of the reader of npz files."""
    arrays = {"x": data.x[index], "y": data.y[index]}
    if data.domain is not None:
        arrays["domain"] = np.array(data.domain_names)[data.domain[index]]
    return arrays


def rate(name: str, size: int, method: str) -> float:
    """Return the learning rate: the tuned one, if there is one."""
    cell = ("tune", name, size, method)
    tuned = [r for r in STUDY.rows() if tuple(r[k] for k in COLUMNS[:4]) == cell]
    return float(max(tuned, key=lambda r: r["accuracy"])["lr"]) if tuned else USUAL[size]


def cell(
    kind: str, name: str, size: int, method: str, seed: int, lr: float
) -> tuple[str, list[str]]:
    """Return the folder and the overrides of a cell."""
    label = method.replace(" ", "").replace(",", "-").replace("+", "-").lower()
    setting, rounds = SETS[name], SETS[name]["rounds"][size]
    overrides = [
        *COMMON, *METHODS[method], *setting["overrides"], f"training.batch_size={size}",
        f"training.lr={lr:g}", f"rounds={rounds}", f"evaluate_every={rounds}", f"seed={seed}",
        f"dataset.root={STUDY.runs / 'data' / name / kind}",
    ]  # fmt: skip
    return f"{kind}-{name}-b{size}-{label}-lr{lr:g}-s{seed}", overrides


def figures(folder: Path, key: Key) -> Row:
    """Read the accuracies of a finished run: of own models where there are some."""
    with (folder / "rounds.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    prefix = "personal_accuracy_" if key[COLUMNS.index("method")] in OWN else "test_accuracy_"
    with (folder / "personal.csv").open() as file:
        names = sorted({row["domain"] for row in csv.DictReader(file)})
    domains = {name: float(last[prefix + name]) for name in names}
    manifest = json.loads((folder / "manifest.json").read_text())
    kept = last.get("personal_accuracy_kept")
    return {
        "domains": domains,
        "accuracy": mean(domains.values()),
        "worst": min(domains.values()),
        "kept": float(kept) if kept else None,
        "rounds": int(last["round"]),
        "seconds": manifest["seconds"],
        "federation_hash": manifest["federation_hash"],
        "package": manifest["package"],
    }


def table(write: Callable[[str], object]) -> None:
    """Write mean and standard deviation over the seeds as Markdown."""
    made = [r for r in STUDY.rows() if r["kind"] == "run"]
    for name, size in dict.fromkeys((r["set"], r["size"]) for r in made):
        inside = [r for r in made if (r["set"], r["size"]) == (name, size)]
        domains = list(inside[0]["domains"])
        seeds = len({r["seed"] for r in inside})
        write(f"\n{name}, batches of {size}, {inside[0]['rounds']} rounds, {seeds} seeds\n\n")
        write(f"| method | lr | {' | '.join(domains)} | mean of domains | worst domain |\n")
        write("|---" * (4 + len(domains)) + "|\n")
        for method in METHODS:
            cells = [r for r in inside if r["method"] == method]
            if not cells:
                continue
            by_domain = [mean(100 * c["domains"][d] for c in cells) for d in domains]
            listed = " | ".join(f"{value:.1f}" for value in by_domain)
            both = " | ".join(spread([100 * c[k] for c in cells]) for k in ("accuracy", "worst"))
            write(f"| {method} | {cells[0]['lr']:g} | {listed} | {both} |\n")


def spread(values: list[float]) -> str:
    """Write mean and standard deviation."""
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--sizes", nargs="+", type=int, choices=list(RATES), default=list(RATES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--tune", action="store_true", help="choose learning rates")
    parser.add_argument("--table", action="store_true", help="print what is there as Markdown")
    arguments = parser.parse_args()
    if arguments.table:
        table(sys.stdout.write)
        return
    for name in arguments.sets:
        prepare(name)
    chosen = list(product(arguments.sets, arguments.sizes, arguments.methods))
    if arguments.tune:
        keys = [("tune", *one, TUNE_SEED, lr) for one in chosen for lr in RATES[one[1]]]
    else:
        keys = [("run", *one, seed, rate(*one)) for seed in arguments.seeds for one in chosen]
    cells = {key: cell(*key) for key in STUDY.missing(keys)}
    sys.exit(STUDY.run(cells, arguments.jobs, figures))


if __name__ == "__main__":
    main()
