"""FedLabel's and FixMatch's round beside the passes that they need; writes results/passes.json.

    python benchmarks/passes.py [--repeats 15]

One worker of one thread, 20 clients with 20 labeled and 180 unlabeled samples of 1x28x28, LeNet,
10 + 10 steps (FixMatch: 10), 10 labeled and 50 unlabeled rows a step, weak and strong views.
"needed" is a plain loop of the same forward and backward passes on samples that are there already:
FedLabel's labeled step, two experts' labels and one student step; FixMatch's labels and one step on
both streams. "views" is the augmentation alone. Taken in turns; the median of the repeats.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from fedlabels import clients
from fedlabels.cohort.types import DataSpec
from fedlabels.data.dataset import pair
from fedlabels.federation import PARTITIONS, POLICIES, Samples, build, make
from fedlabels.machine import allowed_cores
from fedlabels.models import build as build_model
from fedlabels.worker.population import Group, Population
from fedlabels.worker.worker import Item, Order, Worker, WorkerSpec

RESULTS = Path(__file__).resolve().parent / "results" / "passes.json"
CLIENTS, COHORT, STEPS, LABELED, UNLABELED, SHARD = 100, 20, 10, 10, 50, 200
SETTINGS: dict[str, dict[str, Any]] = {
    "fedlabel": {
        "lr": 0.05, "lr_unlabeled": 0.05, "threshold": 0.1, "tau": STEPS,
        "steps_unlabeled": STEPS, "batch_size": LABELED, "batch_unlabeled": UNLABELED,
    },
    "fixmatch": {
        "lr": 0.05, "threshold": 0.1, "steps": STEPS, "batch_size": LABELED,
        "batch_unlabeled": UNLABELED,
    },
}  # fmt: skip


def worker_of(method: str) -> tuple[Worker, Callable[[int], None]]:
    """Return a worker with the method's clients, and a function that runs a round."""
    random = np.random.default_rng(0)
    count = CLIENTS * SHARD
    x = random.integers(0, 256, (count, 1, 28, 28), dtype=np.uint8)
    y = random.integers(0, 10, count)
    names = tuple("0123456789")
    data = pair("noise", (x, y), (x[:500], y[:500]), class_names=names, mean=(0.5,), std=(0.25,))
    federation = build(
        Samples(y, 10), clients=CLIENTS, partition=make(PARTITIONS, "iid", {}),
        policy=make(POLICIES, "uniform", {"fraction": 0.1}), seed=0,
    )  # fmt: skip
    client = clients.build({"name": method, **SETTINGS[method]})
    population = Population.uniform(Group(client, "lenet", {}), CLIENTS)
    worker = Worker(WorkerSpec(data.train, data.test, federation, population, "fashion", 0))
    shared = {"model": worker.initial()}
    items = tuple(Item(k, k, {}, None) for k in range(COHORT))

    def run(index: int) -> None:
        report = worker.run(
            Order("train", index, 99, {}, {"model": "sum"}, items, 8, COHORT), shared
        )
        wrong = [row.error for row in report.rows if row.status != "ok"]
        if wrong:
            sys.exit(f"a client failed: {wrong[0]}")

    return worker, run


class Passes:
    """The forward and backward passes alone, of a plain module."""

    def __init__(self) -> None:
        net = build_model("lenet", DataSpec((1, 28, 28), 10))
        self.net = net.to(memory_format=torch.channels_last)
        self.parameters = list(net.parameters())
        generator = torch.Generator().manual_seed(0)
        self.x, self.y = {}, {}
        for rows in (LABELED, UNLABELED, STEPS * UNLABELED):
            x = torch.randn(rows, 1, 28, 28, generator=generator)
            self.x[rows] = x.contiguous(memory_format=torch.channels_last)
            self.y[rows] = torch.randint(0, 10, (rows,), generator=generator)

    def train(self, *sizes: int) -> None:
        """Make one SGD step on the sum of the losses of several batches."""
        loss = sum(functional.cross_entropy(self.net(self.x[n]), self.y[n]) for n in sizes)
        grads = torch.autograd.grad(loss, self.parameters)
        with torch.no_grad():
            torch._foreach_add_(self.parameters, list(grads), alpha=-1e-4)

    def label(self, rows: int = UNLABELED) -> None:
        """Write labels for a batch."""
        with torch.no_grad():
            self.net(self.x[rows])

    def needed(self, method: str) -> None:
        """Make all passes of a round."""
        for _ in range(COHORT * STEPS):
            self.label()
            if method == "fedlabel":
                self.label()
                self.train(LABELED)
                self.train(UNLABELED)
            else:
                self.train(LABELED, UNLABELED)

    def experts(self, at_once: bool) -> None:
        """Write the labels of a client step by step, or of all its steps together."""
        for _ in range(1 if at_once else STEPS):
            self.label(STEPS * UNLABELED if at_once else UNLABELED)


def views(worker: Worker) -> None:
    """See a round's unlabeled samples through both views."""
    source, rows = worker._source, STEPS * UNLABELED
    for _ in range(COHORT):
        for view in ("weak", "strong"):
            source.rows(torch.arange(rows), view, torch.rand(rows, source.columns(view)))


def timed(work: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Time several kinds of work in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats + 1):
        for name, function in work.items():
            began = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - began)
    return {name: values[1:] for name, values in seconds.items()}


def measure(method: str, repeats: int) -> dict[str, float]:
    """Measure one method."""
    worker, run = worker_of(method)
    passes = Passes()
    rounds = iter(range(1, repeats + 2))
    seconds = timed(
        {
            "round": lambda: run(next(rounds)),
            "needed": lambda: passes.needed(method),
            "views": lambda: views(worker),
        },
        repeats,
    )
    whole = zip(*seconds.values(), strict=True)
    ratios = [(r / n, r / (n + v)) for r, n, v in whole]
    return {
        **{name: median(values) for name, values in seconds.items()},
        "ratio": median(r for r, _ in ratios),
        "ratio_with_views": median(r for _, r in ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    facts: dict[str, Any] = {
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "hardware": {"machine": platform.machine(), "cores": allowed_cores()},
        "methods": {name: measure(name, repeats) for name in SETTINGS},
    }
    passes = Passes()
    labels = timed(
        {"steps": lambda: passes.experts(False), "once": lambda: passes.experts(True)}, 9
    )
    facts["experts_at_once_over_step_by_step"] = median(labels["once"]) / median(labels["steps"])
    RESULTS.write_text(json.dumps(facts, indent=1) + "\n")
    sys.stdout.write(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
