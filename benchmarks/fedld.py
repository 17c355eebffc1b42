"""FedLD, its two halves, FedAvg and FedProx on Fashion-MNIST; writes benchmarks/results/fedld.json.

    python benchmarks/fedld.py [--jobs 2] [--seeds 0 1 2] [--methods ...] [--alphas 0.1 0.3]
    python benchmarks/fedld.py --table      # what is there: a Markdown table, and fedld.svg

10 clients, all in every round, all samples labeled, Dirichlet 0.1 and 0.3. Every cell is one run of
run_sim.py in a folder of its own below runs/fedld/, with the loss decomposition (variant probe)
every few rounds. Finished cells are skipped and killed ones resumed. About 8 minutes on two idle
cores.
"""

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from statistics import mean, stdev

from fedlabels.sweep.study import Key, Row, Study

ROOT = Path(__file__).resolve().parents[1]

ROUNDS, EVERY = 30, 5
COMMON = [
    "dataset=fashion_mnist", "model=lenet", "clients=10", "per_round=10", "partition=dirichlet",
    "labels.fraction=1.0", "backend=serial", f"evaluate_every={EVERY}", "checkpoint_every=10",
    "callbacks=decomposition", "callbacks.decomposition.variant=probe",
    "callbacks.decomposition.probe_samples=100", f"callbacks.decomposition.every={EVERY}",
]  # fmt: skip
# The same local training for all: the momentum, decay and batch of FedLD's code, 20 steps a round.
LOCAL = [
    "training.lr=0.05", "training.momentum=0.5", "training.weight_decay=0.0005",
    "training.batch_size=50",
    "training.steps=20",
]  # fmt: skip
METHODS = {
    "fedavg": ["method=fedavg"],
    "fedprox": ["method=fedprox", "strategy.proximal_mu=0.01"],
    "fedld_margin": ["method=fedld_margin"],
    "fedld_aggregation": ["method=fedld_aggregation"],
    "fedld": ["method=fedld"],
    # beyond the comparison: does the shorter step or the direction make the difference?
    "fedld_restored": ["method=fedld", "strategy.norm_restore=true"],
}
MAIN = [name for name in METHODS if name != "fedld_restored"]
TERMS = ("loss_local", "loss_shift", "loss_aggregation")
COLORS = {"loss_local": "#0a5fa0", "loss_shift": "#c2500f", "loss_aggregation": "#08836a"}

STUDY = Study(
    ROOT / "runs" / "fedld",
    ROOT / "benchmarks" / "results" / "fedld.json",
    ("alpha", "method", "seed", "rounds"),
    {"settings": [*COMMON, *LOCAL]},
)
CHART = STUDY.results.with_suffix(".svg")


def cell(alpha: float, method: str, seed: int, rounds: int) -> tuple[str, list[str]]:
    """Return the folder and the overrides of a cell."""
    setting = [f"partition.alpha={alpha}", f"seed={seed}", f"rounds={rounds}"]
    overrides = [*COMMON, *METHODS[method], *LOCAL, *setting]
    return f"a{alpha}-r{rounds}-{method}-s{seed}", overrides


def figures(folder: Path, _key: Key) -> Row:
    """Read the figures of a finished run."""
    with (folder / "rounds.csv").open() as file:
        rows = list(csv.DictReader(file))
    manifest = json.loads((folder / "manifest.json").read_text())
    accuracies = [float(row["test_accuracy"]) for row in rows if row["test_accuracy"]]
    reports = [
        {name: float(row[name]) for name in ("round", *TERMS, "loss_global", "loss_global_error")}
        for row in rows
        if row.get("loss_global")
    ]
    spent = [float(r["seconds_decomposition"]) for r in rows if r.get("seconds_decomposition")]
    server = {k: float(v) for k, v in rows[-1].items() if k.startswith("pg_") and v}
    return {
        "accuracy": accuracies[-1], "accuracy_best": max(accuracies),
        "test_loss": float(rows[-1]["test_loss"]), "reports": reports, "server": server,
        "seconds_per_round": mean(float(row["seconds_train"]) for row in rows),
        "seconds_per_report": mean(spent) if spent else None,
        "federation_hash": manifest["federation_hash"], "package": manifest["package"],
    }  # fmt: skip


# ---- what is shown


def chosen(rows: Iterable[Row], rounds: int) -> dict[tuple[float, str], list[Row]]:
    """Group the rows of runs of a length by alpha and method, in the order of METHODS."""
    groups: dict[tuple[float, str], list[Row]] = {}
    order = list(METHODS)
    for row in sorted(rows, key=lambda r: (r["alpha"], order.index(r["method"]), r["seed"])):
        if row["rounds"] == rounds:
            groups.setdefault((row["alpha"], row["method"]), []).append(row)
    return groups


def spread(values: Sequence[float], digits: int, factor: float = 1.0) -> str:
    """Write mean and standard deviation."""
    scaled = [factor * value for value in values]
    deviation = stdev(scaled) if len(scaled) > 1 else 0.0
    return f"{mean(scaled):.{digits}f} ± {deviation:.{digits}f}"


def table(groups: dict[tuple[float, str], list[Row]]) -> list[str]:
    """Write accuracies and the last report's terms, mean and deviation over the seeds."""
    lines = [
        "| Dirichlet | method | seeds | accuracy, % | test loss | local | shift | aggregation |"
        " global | length of the update / mean |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (alpha, method), rows in groups.items():
        last = [row["reports"][-1] for row in rows]
        terms = [spread([one[name] for one in last], 3) for name in (*TERMS, "loss_global")]
        ratio = [row["server"]["pg_norm_ratio"] for row in rows if "pg_norm_ratio" in row["server"]]
        cells = [
            f"{alpha:g}", method, str(len(rows)),
            spread([row["accuracy"] for row in rows], 1, 100),
            spread([row["test_loss"] for row in rows], 3), *terms,
            spread(ratio, 2) if ratio else "",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    seconds = [row["seconds_per_report"] for rows in groups.values() for row in rows]
    rounds = [row["seconds_per_round"] for rows in groups.values() for row in rows]
    lines += ["", f"A report took {mean(seconds):.2f} s, a round {mean(rounds):.2f} s (means)."]
    return lines


def chart(groups: dict[tuple[float, str], list[Row]]) -> str:
    """Draw the terms over the rounds, mean over the seeds: a panel a method, a row an alpha."""
    alphas = sorted({alpha for alpha, _ in groups})
    methods = [m for m in METHODS if any(method == m for _, method in groups)]
    means = {key: averaged(rows) for key, rows in groups.items()}
    flat = [report for reports in means.values() for report in reports]
    high = max(sum(max(r[t], 0) for t in TERMS) for r in flat)
    low = min(sum(min(r[t], 0) for t in TERMS) for r in flat)
    width, height, left, top = 170, 190, 46, 54
    whole = left + width * len(methods) + 10, top + (height + 34) * len(alphas) + 10
    parts = [_text(left, 18, "Loss of the global model in three terms (nats), by round", 14)]
    for place, name in enumerate(TERMS):
        x = left + 150 * place
        parts.append(f'<rect x="{x}" y="28" width="11" height="11" fill="{COLORS[name]}"/>')
        parts.append(_text(x + 16, 38, name.removeprefix("loss_")))
    parts.append(_text(left + 450, 38, "line: loss of the global model"))
    for i, alpha in enumerate(alphas):
        for j, method in enumerate(methods):
            box = left + width * j, top + (height + 34) * i + 18, width - 14, height - 18
            title = f"{method}, Dirichlet {alpha:g}"
            parts += panel(means.get((alpha, method), []), box, (low, high), title, first=j == 0)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole[0]} {whole[1]}" '
        f'font-family="sans-serif"><rect width="100%" height="100%" fill="#ffffff"/>'
        f"{''.join(parts)}</svg>\n"
    )


def averaged(rows: Sequence[Row]) -> list[dict[str, float]]:
    """Average the reports of some seeds, round by round."""
    by_round: dict[float, list[dict[str, float]]] = {}
    for row in rows:
        for report in row["reports"]:
            by_round.setdefault(report["round"], []).append(report)
    return [
        {name: mean(one[name] for one in found) for name in ("round", *TERMS, "loss_global")}
        for _, found in sorted(by_round.items())
    ]


def panel(
    reports: Sequence[dict[str, float]],
    box: tuple[float, float, float, float],
    span: tuple[float, float],
    title: str,
    *,
    first: bool,
) -> list[str]:
    """Draw one panel: bars up from zero for positive terms, down for negative ones."""
    x0, y0, width, height = box

    def y(value: float) -> float:
        return y0 + height * (span[1] - value) / (span[1] - span[0])

    parts = [_text(x0, y0 - 5, title, 11)]
    for value in range(int(span[0]) - 1, int(span[1]) + 1):
        if span[0] <= value <= span[1]:
            shade = "#999999" if value == 0 else "#e5e5e5"
            parts.append(_line(x0, x0 + width, y(value), shade))
            parts += [_text(x0 - 8, y(value) + 4, str(value), 11, "end")] if first else []
    step = width / max(len(reports), 1)
    for place, report in enumerate(reports):
        start, above, below = x0 + step * place + 0.15 * step, 0.0, 0.0
        for name in TERMS:
            ground = above if report[name] >= 0 else below
            low, high = sorted((ground, ground + report[name]))
            above, below = (high, below) if report[name] >= 0 else (above, low)
            parts.append(
                f'<rect x="{start:.1f}" y="{y(high):.1f}" width="{0.7 * step:.1f}" '
                f'height="{y(low) - y(high):.1f}" fill="{COLORS[name]}"/>'
            )
        total = y(report["loss_global"])
        parts.append(_line(start - 0.1 * step, start + 0.8 * step, total, "#17202b", 2))
        parts.append(
            _text(start + 0.35 * step, y0 + height + 12, f"{report['round']:.0f}", 10, "middle")
        )
    return parts


def _text(x: float, y: float, text: str, size: int = 12, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="#333333" '
        f'text-anchor="{anchor}">{text}</text>'
    )


def _line(x1: float, x2: float, y: float, color: str, width: float = 1) -> str:
    return (
        f'<line x1="{x1:.1f}" x2="{x2:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="{color}" '
        f'stroke-width="{width:g}"/>'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true", help="print what is there, run nothing")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--alphas", nargs="+", type=float, default=[0.1, 0.3])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=MAIN)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    status = 0
    if not arguments.table:
        choice = arguments.seeds, arguments.alphas, arguments.methods
        keys = [(alpha, name, seed, arguments.rounds) for seed, alpha, name in product(*choice)]
        status = STUDY.run({key: cell(*key) for key in keys}, arguments.jobs, figures)
    groups = chosen(STUDY.rows(), arguments.rounds)
    if groups:
        print("\n".join(table(groups)))
        CHART.write_text(chart(groups))
        print(f"chart: {CHART.relative_to(ROOT)}")
    sys.exit(status)


if __name__ == "__main__":
    main()
