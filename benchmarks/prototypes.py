"""Prototype methods, one and four architectures; writes benchmarks/results/prototypes.json.

    python benchmarks/prototypes.py [--settings one four] [--seeds 0 1 2] [--jobs 2]
    python benchmarks/prototypes.py --table

20 clients, Dirichlet 0.1, 3,000 pictures of Fashion-MNIST, all clients in every round. Every cell
is one run of run_sim.py in a folder of its own below runs/prototypes/; finished cells are skipped
and killed ones resumed, so it can be stopped and started at any time.

Accuracy is that of the clients' own models: on their own test samples, which mirror their classes,
and on samples of all classes, apart for classes that a client has and that it lacks. For these the
clients of the finished run are asked once more, with 1,000 test samples each.
"""

import argparse
import csv
import json
import sys
from pathlib import Path
from statistics import mean, stdev

import yaml

from fedlabels.rounds.job import Job, Task
from fedlabels.run.folder import RunFolder
from fedlabels.run.folder.checkpoint import latest_checkpoint, read_checkpoint
from fedlabels.run.setup import build_backend, build_world
from fedlabels.strategies.support import Server, State
from fedlabels.sweep.study import Key, Row, Study

ROOT = Path(__file__).resolve().parents[1]
STUDY = Study(
    ROOT / "runs" / "prototypes",
    ROOT / "benchmarks" / "results" / "prototypes.json",
    ("setting", "method", "seed"),
)

CLIENTS, ROUNDS = 20, 25
COMMON = [
    "dataset=fashion_mnist", "model=lenet", "model.feature_dim=64", f"clients={CLIENTS}",
    f"per_round={CLIENTS}", "partition=dirichlet", "partition.alpha=0.1", "partition.keep=0.05",
    "labels.fraction=1", "backend=serial", f"rounds={ROUNDS}", f"evaluate_every={ROUNDS}",
    f"checkpoint_every={ROUNDS}", "training.batch_size=10", "training.lr=0.02",
]  # fmt: skip
METHODS = ("local_training", "fedproto", "fedtgp", "fedsa")
SETTINGS = {"one": [], "four": ["architectures.models=[cnn_pfl, resnet8, mlp]"]}
EVERY_RULE = ("prototype", "head", "anchor")
RULES = {"local_training": ("head",), "fedsa": EVERY_RULE}
TEST_SAMPLES = 1000  # of each client, of all classes, after the run


def cell(setting: str, method: str, seed: int) -> tuple[str, list[str]]:
    """Return the folder and the overrides of a cell."""
    overrides = [f"method={method}", *COMMON, *SETTINGS[setting], f"seed={seed}"]
    return f"{setting}-{method}-s{seed}", overrides


def figures(folder: Path, key: Key) -> Row:
    """Read the figures of a finished run, and ask its clients about all classes."""
    _, method, _ = key
    with (folder / "rounds.csv").open() as file:
        rows = list(csv.DictReader(file))
    manifest = json.loads((folder / "manifest.json").read_text())
    last = {k: float(v) for k, v in rows[-1].items() if v and k.startswith(("personal_", "gap_"))}
    return {
        **last,
        **{f"all_classes_{rule}": all_classes(folder, rule) for rule in rules(method)},
        "rounds": len(rows),
        "bytes_up": float(rows[-1]["bytes_up"]),
        "seconds_per_round": mean(float(row["seconds_train"]) for row in rows),
        "federation_hash": manifest["federation_hash"],
        "package": manifest["package"],
    }


def rules(method: str) -> tuple[str, ...]:
    """Name the rules by which a method's clients predict."""
    return RULES.get(method, ("prototype", "head"))


def all_classes(folder: Path, rule: str) -> dict[str, float]:
    """Test the clients of a finished run on samples of all classes, by one rule.

    Returns
    -------
    dict of str to float
        ``accuracy``, ``held`` and ``lacking``: right over all samples of all clients.
    """
    config = yaml.safe_load((folder / "config.yaml").read_text())
    if "predict_with" in config["client"]:
        config["client"]["predict_with"] = rule
    share = TEST_SAMPLES * config["clients"] / 10_000
    config |= {"resume": None, "test_shards": {"share": share, "by": "all"}}
    world, path = build_world(config), latest_checkpoint(folder)
    assert path is not None
    checkpoint = read_checkpoint(path)
    world.strategy.bind(
        Server(
            seed=config["seed"],
            num_classes=world.source.train.num_classes,
            feature_dim=world.feature_dim,
        )
    )
    backend = build_backend(config, world, RunFolder(folder, resume=True), checkpoint.round)
    try:
        world.strategy.initial(backend.initial())
        state = State(checkpoint.strategy_arrays, checkpoint.strategy_values)
        world.strategy.load_state(state)
        shared = {
            "model": checkpoint.arrays,
            **world.strategy.shared("evaluate", checkpoint.round),
        }
        tasks = tuple(Task(k) for k in range(config["clients"]))
        job = Job("evaluate", checkpoint.round, config["rounds"], tasks, shared)
        rows = backend.run(job).rows
    finally:
        backend.close()
    names = {"accuracy": "accuracy", "held": "accuracy_held", "lacking": "accuracy_lacking"}
    return {ours: pooled([row.metrics for row in rows], name) for ours, name in names.items()}


def pooled(metrics: list[dict[str, tuple[float, float]]], name: str) -> float:
    """Divide sums by counts over all clients; 0 where nobody had such a sample."""
    found = [one[name] for one in metrics if name in one]
    return sum(total for total, _ in found) / max(sum(count for _, count in found), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--table", action="store_true", help="print what is there as Markdown")
    given = parser.parse_args()
    if given.table:
        print_table()
        return
    keys = [(s, m, seed) for seed in given.seeds for s in given.settings for m in given.methods]
    cells = {key: cell(*key) for key in STUDY.missing(keys)}
    sys.exit(STUDY.run(cells, given.jobs, figures))


def print_table() -> None:
    """Print mean and standard deviation over the seeds of all finished cells, in percent."""
    rows = STUDY.rows()
    columns = ["own test samples"]
    columns += [f"{part}, {rule}" for part in ("held", "lacking") for rule in EVERY_RULE]
    print("| architectures | method | seeds | " + " | ".join(columns) + " |")
    print("|" + "---|" * (3 + len(columns)))
    order = [(s, m) for s in SETTINGS for m in METHODS]
    for setting, method in order:
        cells = [r for r in rows if (r["setting"], r["method"]) == (setting, method)]
        if not cells:
            continue
        values = [[r["personal_accuracy_pooled"] for r in cells]]
        for part in ("held", "lacking"):
            for rule in EVERY_RULE:
                name = f"all_classes_{rule}"
                values.append([r[name][part] for r in cells if name in r])
        shown = " | ".join(map(spread, values))
        print(f"| {setting} | {method} | {len(cells)} | {shown} |")


def spread(values: list[float]) -> str:
    """Write mean and standard deviation of shares as percent."""
    if not values:
        return "-"
    deviation = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{deviation}"


if __name__ == "__main__":
    main()
