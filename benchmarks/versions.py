"""Speed of this checkout beside another, in one sitting; writes benchmarks/results/versions.json.

    python benchmarks/versions.py OTHER_CHECKOUT [--cells cnn lenet] [--engine fedlabels-processes]
                                  [--passes 5] [--out FILE]

The cells are those of simulators.py. In a pass both do the same rounds, each in a process of its
own, and the next pass turns the order round; the ratio is taken pass by pass, so that a slow minute
of the machine hits both. Both must have moved the weights by the same distance.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from engines.work import CELLS, Job
from machine import hardware, versions
from simulators import ENGINES, HERE, SEED, attempt, prepare

RESULTS = HERE / "results" / "versions.json"


def commit(checkout: Path) -> str:
    """Return which commit a checkout is at."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def once(cell: str, engine: str, checkout: Path, folder: Path) -> dict[str, Any]:
    """Run the rounds of a cell once with the code of a checkout."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        workers, rounds = ENGINES[engine].workers, CELLS[cell].rounds
        job = Job(engine, cell, folder, Path(scratch), rounds, workers, SEED)
        made, wrong = attempt(job, Path(sys.executable), checkout)
    if made is None:
        sys.exit(f"{checkout}: {wrong}")
    time.sleep(ENGINES[engine].settle)
    return made


def compare(cell: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return the seconds of a round of both, pass by pass, and their ratios."""
    checkouts = {"before": options.other, "after": HERE.parent}
    made: dict[str, list[dict[str, Any]]] = {name: [] for name in checkouts}
    for turn in range(options.passes):
        for name in checkouts if turn % 2 == 0 else reversed(checkouts):
            made[name].append(once(cell, options.engine, checkouts[name], folder))
    ratios = [
        after["median"] / before["median"]
        for before, after in zip(made["before"], made["after"], strict=True)
    ]
    moved = {name: [one["moved"] for one in passes] for name, passes in made.items()}
    return {
        "engine": options.engine,
        "ratio": median(ratios),
        "ratios": ratios,
        "seconds": {name: [one["median"] for one in passes] for name, passes in made.items()},
        "equal_work": len({round(value, 9) for values in moved.values() for value in values}) == 1,
        "measured": time.strftime("%Y-%m-%d %H:%M"),
        "commits": {name: commit(path) for name, path in checkouts.items()},
        "versions": versions(),
        "hardware": hardware(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path, help="a checkout of the version to compare with")
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=["cnn", "lenet"])
    parser.add_argument("--engine", choices=list(ENGINES), default="fedlabels-processes")
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.other = options.other.absolute()
    saved = json.loads(options.out.read_text()) if options.out.exists() else {}
    with tempfile.TemporaryDirectory(prefix="fedlabels-benchmark-") as folder:
        prepare(Path(folder), options.cells)
        for cell in options.cells:
            saved[cell] = facts = compare(cell, options, Path(folder))
            options.out.write_text(json.dumps(saved, indent=1) + "\n")
            shown = ", ".join(f"{ratio:.3f}" for ratio in facts["ratios"])
            sys.stdout.write(f"{cell}: {facts['ratio']:.3f} of before ({shown})\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
