"""FedLabel between its two bounds on Fashion-MNIST; writes benchmarks/results/label_scarcity.json.

    python benchmarks/label_scarcity.py headroom short long [--seeds 0 1] [--jobs 2]

Every cell is one run of run_sim.py in a folder of its own below runs/label_scarcity/. Finished
cells are skipped and killed ones resumed, so it can be stopped and started at any time.
"""

import argparse
import csv
import json
import sys
from pathlib import Path
from statistics import mean

import numpy as np

from fedlabels.data import load
from fedlabels.sweep.study import Key, Row, Study

ROOT = Path(__file__).resolve().parents[1]
STUDY = Study(
    ROOT / "runs" / "label_scarcity",
    ROOT / "benchmarks" / "results" / "label_scarcity.json",
    ("setting", "method", "seed"),
)

COMMON = [
    "dataset=fashion_mnist", "model=lenet", "clients=100", "per_round=10", "partition=dirichlet",
    "backend=serial", "evaluate_every=10", "checkpoint_every=20",
]  # fmt: skip
# 10 labeled steps of at most 64 samples for every method. Without clipping, lr 0.1 on 5 samples a
# client now and then explodes: a labeled_only run went from 71 % to 10 % in two rounds.
LABELED = [
    "training.batch_size=64", "training.steps=10", "training.lr=0.1", "training.clip=5",
]  # fmt: skip
FEDLABEL = [
    "training.steps=10", "training.steps_unlabeled=10", "training.batch_size=64",
    "training.batch_unlabeled=64",
    "training.lr=0.1", "training.lr_unlabeled=0.1", "training.clip=5",
]  # fmt: skip
METHODS = {
    "labeled_only": ["method=labeled_only", *LABELED],
    "fully_labeled": ["method=fully_labeled", *LABELED],
    "fixmatch": ["method=fixmatch", *LABELED],
    "fedlabel": ["method=fedlabel", *FEDLABEL],
    "fedlabel_stable": ["method=fedlabel_stable", *FEDLABEL],
    "fedlabel_adaptive": ["method=fedlabel_adaptive", *FEDLABEL],
}
# What was tried for fedlabel_stable, on validation data (the last 10,000 training pictures, never
# the test set) and with a seed of its own.
VARIANTS = {
    "t0.95": ["client.threshold=0.95"],
    "t0.95-burn40": ["client.threshold=0.95", "client.burn_in_rounds=40"],
    "t0.95-global": ["client.threshold=0.95", "client.expert=global"],
    "t0.95-flexmatch": ["client.threshold=0.95", "client.threshold_rule=flexmatch"],
    "t0.95-burn40-lr0.03": [
        "client.threshold=0.95", "client.burn_in_rounds=40", "training.lr_unlabeled=0.03",
    ],
}  # fmt: skip
METHODS |= {f"tune-{k}": [*METHODS["fedlabel_stable"], *v] for k, v in VARIANTS.items()}
BOUNDS = ["labeled_only", "fully_labeled"]
MAIN = [*BOUNDS, "fixmatch", "fedlabel", "fedlabel_stable", "fedlabel_adaptive"]
QUICK = [*BOUNDS, "fixmatch", "fedlabel_adaptive"]
VALIDATION = ROOT / "runs" / "validation"


def cell(alpha: float, fraction: float, rounds: int, *extra: str) -> list[str]:
    """Return the overrides of a setting."""
    return [f"partition.alpha={alpha}", f"labels.fraction={fraction}", f"rounds={rounds}", *extra]


SETTINGS = {
    "headroom": {
        "a0.3-f5-r80": (cell(0.3, 0.05, 80), BOUNDS),
        "a0.3-f1-r80": (cell(0.3, 0.01, 80), BOUNDS),
        "a1-f1-r80": (cell(1.0, 0.01, 80), BOUNDS),
        "a1-f1-r80-p20": (cell(1.0, 0.01, 80, "per_round=20"), BOUNDS),
    },
    "short": {"a0.3-f5-r80": (cell(0.3, 0.05, 80), MAIN)},
    "wide": {"a1-f1-r80-p20": (cell(1.0, 0.01, 80, "per_round=20"), MAIN)},
    "mild": {"a1-f1-r80": (cell(1.0, 0.01, 80), MAIN)},
    "tune": {
        f"validation-{name}": (
            cell(
                alpha,
                0.01,
                80,
                "dataset=npz",
                f"dataset.root={VALIDATION}",
                "dataset.views=fashion",
            ),
            [m for m in METHODS if m not in ("fedlabel", "fixmatch", "fedlabel_adaptive")],
        )
        for name, alpha in (("a0.3-f1-r80", 0.3), ("a1-f1-r80", 1.0))
    },
    "digits": {
        "digits-a0.5-f10-r60": (
            cell(0.5, 0.1, 60, "dataset=digits", "clients=20", "evaluate_every=5"),
            MAIN,
        )
    },
    # Three settings of this toolkit alone; see docs/benchmarks.md for each as one command.
    "mismatch": {
        "mismatch-a0.1-f5-r80": (cell(0.1, 0.05, 80, "labels=class_mismatch"), QUICK),
    },
    "noise": {
        "zero30-noise20-a0.3-f5-r80": (
            cell(
                0.3,
                0.05,
                80,
                "labels=zero_label_clients",
                "labels.share=0.3",
                "label_noise.kind=symmetric",
                "label_noise.rate=0.2",
            ),
            QUICK,
        ),
    },
    "watch": {
        "watch-f5-r60": (
            [
                "dataset=watch",
                "dataset.options.test_subjects=2",
                "partition=natural",
                "clients=8",
                "per_round=4",
                "model=cnn1d",
                "labels.fraction=0.05",
                "rounds=60",
                "evaluate_every=5",
            ],
            QUICK,
        ),
    },
    "long": {"a0.3-f1-r300": (cell(0.3, 0.01, 300), MAIN)},
}


def overrides_of(changes: list[str], method: str, seed: int) -> list[str]:
    """Return the overrides of a cell: what is given last, counts."""
    last = {o.partition("=")[0]: o for o in [*COMMON, *METHODS[method], *changes]}
    return [*last.values(), f"seed={seed}"]


def make_validation() -> None:
    """Split the training set into 50,000 samples to train on and 10,000 to choose settings by."""
    if (VALIDATION / "test.npz").exists():
        return
    train = load("fashion_mnist").train
    VALIDATION.mkdir(parents=True, exist_ok=True)
    np.savez(VALIDATION / "train.npz", x=train.x[:50_000], y=train.y[:50_000])
    np.savez(VALIDATION / "test.npz", x=train.x[50_000:], y=train.y[50_000:])


def figures(folder: Path, _key: Key) -> Row:
    """Read the figures of a finished run."""
    with (folder / "rounds.csv").open() as file:
        rows = list(csv.DictReader(file))
    accuracies = [float(row["test_accuracy"]) for row in rows if row["test_accuracy"]]
    manifest = json.loads((folder / "manifest.json").read_text())
    last = {k: float(v) for k, v in rows[-1].items() if k.startswith("pseudo") and v}
    return {
        "accuracy": accuracies[-1], "accuracy_last_three": mean(accuracies[-3:]),
        "accuracy_best": max(accuracies), "rounds": len(rows),
        "seconds_per_round": mean(float(row["seconds_train"]) for row in rows), **last,
        "federation_hash": manifest["federation_hash"], "package": manifest["package"],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("groups", nargs="*", choices=[*SETTINGS, []])
    parser.add_argument("--table", action="store_true", help="print what is there as Markdown")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS))
    arguments = parser.parse_args()
    if arguments.table:
        print_table()
        return
    if "tune" in arguments.groups:
        make_validation()
    cells = {
        (name, method, seed): (f"{name}-{method}-s{seed}", overrides_of(changes, method, seed))
        for seed in arguments.seeds
        for group in arguments.groups
        for name, (changes, methods) in SETTINGS[group].items()
        for method in methods
        if arguments.methods is None or method in arguments.methods
    }
    sys.exit(STUDY.run(cells, arguments.jobs, figures))


def print_table() -> None:
    """Print mean and range over the seeds of all finished cells."""
    rows = STUDY.rows()
    print("| setting | method | seeds | accuracy | by seed | pseudo-labels right |")
    print("|---|---|---|---|---|---|")
    for setting, method in dict.fromkeys((r["setting"], r["method"]) for r in rows):
        cells = [r for r in rows if (r["setting"], r["method"]) == (setting, method)]
        values = [100 * r["accuracy_last_three"] for r in cells]
        pseudo = [100 * r["pseudo_accuracy"] for r in cells if "pseudo_accuracy" in r]
        right = f"{mean(pseudo):.0f} %" if pseudo else ""
        listed = ", ".join(f"{v:.1f}" for v in values)
        print(f"| {setting} | {method} | {len(cells)} | {mean(values):.1f} | {listed} | {right} |")


if __name__ == "__main__":
    main()
