"""The learning rate of ``preset=fashion``, chosen on validation data.

    python benchmarks/presets.py [--rounds 40] [--jobs 1]
    python benchmarks/presets.py --table       # what is there, as Markdown

Validation data are 10,000 samples held out of the training set; the test set is not read. Every
cell is one run below runs/presets/; finished cells are skipped and killed ones resumed. All of it
takes about 13 minutes of one core.
"""

import argparse
import csv
import json
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import mean

import numpy as np

from fedlabels.data import load
from fedlabels.sweep.study import Key, Row, Study

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ("method", "lr", "rounds", "seed")
STUDY = Study(ROOT / "runs" / "presets", ROOT / "benchmarks" / "results" / "presets.json", COLUMNS)
DATA = STUDY.runs / "data"
METHODS = ("fedlabel_stable", "labeled_only")
RATES = (0.03, 0.1, 0.3)
HELD_OUT = 10_000
LAST = 3  # evaluations whose mean counts: single ones jump by several points under this skew


def prepare() -> None:
    """Write the training set without the samples held out, and these in place of the test set."""
    if (DATA / "test.npz").exists():
        return
    train = load("fashion_mnist").train
    order = np.random.default_rng(0).permutation(len(train.y))
    DATA.mkdir(parents=True, exist_ok=True)
    for split, index in (("train", order[HELD_OUT:]), ("test", order[:HELD_OUT])):
        np.savez(DATA / f"{split}.npz", x=train.x[index], y=train.y[index])


def cell(method: str, lr: float, rounds: int, seed: int) -> tuple[str, list[str]]:
    """Return the folder and the overrides of a cell."""
    overrides = [
        "preset=fashion", f"method={method}", f"training.lr={lr:g}", f"rounds={rounds}",
        f"seed={seed}", "evaluate_every=5", "backend=serial", "dataset=npz",
        "dataset.views=fashion", f"dataset.root={DATA}",
    ]  # fmt: skip
    return f"{method}-lr{lr:g}-r{rounds}-s{seed}", overrides


def figures(folder: Path, _key: Key) -> Row:
    """Read the accuracies of a finished run on the samples held out."""
    with (folder / "rounds.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["test_accuracy"]]
    curve = {int(row["round"]): float(row["test_accuracy"]) for row in rows}
    manifest = json.loads((folder / "manifest.json").read_text())
    return {
        "accuracy": mean(list(curve.values())[-LAST:]),
        "curve": curve,
        "seconds": manifest["seconds"],
        "package": manifest["package"],
    }


def table(write: Callable[[str], object]) -> None:
    """Write the mean of the last evaluations as Markdown, a line a rate."""
    rows = STUDY.rows()
    write(f"| lr | {' | '.join(METHODS)} | both |\n|---|---|---|---|\n")
    for lr in RATES:
        at = {row["method"]: 100 * row["accuracy"] for row in rows if row["lr"] == lr}
        if set(at) == set(METHODS):
            cells = [*(at[method] for method in METHODS), mean(at.values())]
            write(f"| {lr:g} | {' | '.join(f'{value:.1f}' for value in cells)} |\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--table", action="store_true", help="print what is there as Markdown")
    arguments = parser.parse_args()
    if arguments.table:
        table(sys.stdout.write)
        return
    prepare()
    keys = [(method, lr, arguments.rounds, 0) for lr, method in product(RATES, METHODS)]
    sys.exit(STUDY.run({key: cell(*key) for key in STUDY.missing(keys)}, arguments.jobs, figures))


if __name__ == "__main__":
    main()
