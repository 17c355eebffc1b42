"""How long the command takes to start, beside the import of torch.

    python benchmarks/startup.py [--passes 9]

Each pass starts four Pythons, one after the other, in an order that turns from pass to pass:
`import torch`; `fedlabels --help`; what `fedlabels run` imports; and `fedlabels run
preset=quickstart backend=serial` up to the moment at which the first client would begin to train:
settings composed, data read, federation dealt, model built, run folder begun. CPU seconds (user and
system, of one thread) are compared, which other work on the machine disturbs less than seconds on
the clock; both are kept. Writes benchmarks/results/startup.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "startup.json"
# The process ends where the first client would begin; nothing is loaded that a run does not load.
FIRST_CLIENT = """
import os, sys
from fedlabels import command
load = command.import_module

def loaded(name):
    module = load(name)
    sys.modules["fedlabels.worker.trainer"].Trainer.run = lambda *_, **__: os._exit(0)
    return module

command.import_module = loaded
sys.exit(command.main(sys.argv[1:]) or 3)
"""
IMPORTS = """
import os, sys
from fedlabels import command
command.Command.run = lambda self, _: (self.load(), os._exit(0))
command.main(sys.argv[1:])
"""
CASES = {
    "import torch": ["-c", "import torch"],
    "fedlabels --help": ["-m", "fedlabels", "--help"],
    "imports of a run": ["-c", IMPORTS, "run"],
    "to the first client": ["-c", FIRST_CLIENT, "run", "preset=quickstart", "backend=serial"],
}


def started(arguments: list[str], folder: Path) -> tuple[float, float]:
    """Start a Python and return its seconds on the clock and of the processor."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=folder, env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    if status:
        sys.exit(f"{arguments} ended with {status}: {said.decode()}")
    return seconds, used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passes", type=int, default=9)
    passes = parser.parse_args().passes
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in CASES}
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        for name in CASES:  # files are in memory then, and compiled
            started(CASES[name], Path(folder))
        for turn in range(passes):
            names = list(CASES)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                taken[name].append(started(CASES[name], Path(folder)))
    torch_cpu = [cpu for _, cpu in taken["import torch"]]
    figures: dict[str, Any] = {
        name: {
            "seconds": round(statistics.median(seconds for seconds, _ in times), 3),
            "cpu_seconds": round(statistics.median(cpu for _, cpu in times), 3),
            "ratio_to_torch": round(
                statistics.median(c / t for (_, c), t in zip(times, torch_cpu, strict=True)), 3
            ),
            "least_ratio_to_torch": round(min(cpu for _, cpu in times) / min(torch_cpu), 3),
        }
        for name, times in taken.items()
    }
    written = {
        "hardware": {**machine.hardware(), "load_before": round(load, 2)},
        "versions": machine.versions(),
        "passes": passes,
        "figures": figures,
    }
    RESULTS.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
