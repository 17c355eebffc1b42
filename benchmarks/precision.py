"""What bfloat16 costs in accuracy: FedAvg and FedLabel after 20 rounds, beside float32.

    python benchmarks/precision.py [--seeds 0 1 2] [--rounds 20]

Fashion-MNIST, LeNet, 50 clients of Dirichlet 0.3, ten a round, 5 % of the labels for FedLabel and
all for FedAvg. Writes benchmarks/results/precision.json.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from itertools import product
from pathlib import Path
from statistics import mean, stdev

from fedlabels.machine import allowed_cores

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "precision.json"
METHODS = {
    "fedavg": ["method=fedavg", "labels.fraction=1.0", "training.lr=0.1"],
    "fedlabel_stable": [
        "method=fedlabel_stable", "labels.fraction=0.05", "training.lr=0.1",
        "training.lr_unlabeled=0.1",
    ],
}  # fmt: skip
KINDS = ("float32", "bfloat16")


def accuracy(method: str, kind: str, seed: int, rounds: int) -> float:
    """Run one setting and return the accuracy on the global test set."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        subprocess.run(
            [
                sys.executable, "run_sim.py", "backend=processes", "dataset=fashion_mnist",
                "model=lenet", "clients=50", "per_round=10", "partition.alpha=0.3",
                f"rounds={rounds}", f"evaluate_every={rounds}", f"seed={seed}",
                f"precision={kind}", f"run_dir={run}", *METHODS[method],
            ],
            cwd=ROOT, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        lines = (run / "rounds.csv").read_text().splitlines()
        return float(lines[-1].split(",")[lines[0].split(",").index("test_accuracy")])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    rows = []
    for method, kind in product(METHODS, KINDS):
        found = [accuracy(method, kind, seed, arguments.rounds) for seed in arguments.seeds]
        rows.append({"method": method, "precision": kind, "accuracies": found})
        spread = stdev(found) if len(found) > 1 else 0.0
        sys.stdout.write(f"{method} {kind} {100 * mean(found):.2f} +- {100 * spread:.2f}\n")
        sys.stdout.flush()
    document = {
        "versions": {name: version(name) for name in ("fedlabels", "torch", "numpy")},
        "hardware": {"machine": platform.machine(), "cores": allowed_cores()},
        "rounds": arguments.rounds,
        "seeds": arguments.seeds,
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
