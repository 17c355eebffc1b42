"""What a device costs: installed size, memory, seconds a round, bytes up and down by method.

    python benchmarks/footprint.py [--methods fedavg fedlabel_stable fedbn fedsa] [--rounds 3]

A SuperLink and two SuperNodes on this machine, without TLS; digits, LeNet. Memory is the largest
resident set of the processes of one device (SuperNode, superexec, and the process of each message),
sampled twenty times a second. Bytes are those of arrays as clients.csv counts them, without what
transport adds. Writes benchmarks/results/footprint.json.
"""

import argparse
import csv
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from fedlabels.machine import allowed_cores

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
RESULTS = ROOT / "benchmarks" / "results" / "footprint.json"
PORT, DEVICES = 18513, 2
METHODS = {
    "fedavg": "method=fedavg training.lr=0.1",
    "fedlabel_stable": "method=fedlabel_stable training.lr=0.1 training.lr_unlabeled=0.1"
    " training.steps=10 training.steps_unlabeled=10",
    "fedbn": "method=fedbn training.lr=0.1",
    "fedsa": "method=fedsa",
}


def installed(package: str = "fedlabels") -> dict[str, float]:
    """Return the megabytes of every package that a device installs."""
    found: dict[str, float] = {}
    todo = [package]
    while todo:
        name = re.split(r"[ ;<>=!~\[(]", todo.pop(), maxsplit=1)[0].lower().replace("_", "-")
        if name in found:
            continue
        try:
            dist = distribution(name)
        except PackageNotFoundError:
            continue  # of another platform or Python
        paths = [dist.locate_file(file) for file in dist.files or ()]
        sizes = [os.path.getsize(str(path)) for path in paths if os.path.isfile(str(path))]
        if name == package:  # installed from a checkout: its files lie there
            code = (ROOT / package).rglob("*.py")
            sizes = [p.stat().st_size for p in code]
        found[name] = sum(sizes) / 1e6
        todo += [r for r in dist.requires or () if "extra ==" not in r]
    return found


def tree(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    out, todo = [], [pid]
    while todo:
        out.append(todo.pop())
        try:
            for task in Path(f"/proc/{out[-1]}/task").iterdir():
                todo += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return out


def resident(pid: int) -> tuple[float, dict[str, float]]:
    """Return the megabytes of a process tree, and of each kind of process in it."""
    kinds: dict[str, float] = {}
    for one in tree(pid):
        try:
            status = Path(f"/proc/{one}/status").read_text()
            name = Path(f"/proc/{one}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        kilobytes = re.search(r"VmRSS:\s+(\d+)", status)
        if kilobytes:
            kind = next((k for k in ("clientapp", "superexec", "supernode") if k in name), "other")
            kinds[kind] = max(kinds.get(kind, 0.0), int(kilobytes[1]) / 1e3)
    return sum(kinds.values()), kinds


class Fleet:
    """SuperLink and SuperNodes of one measurement."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {
            **os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1", "OMP_NUM_THREADS": "1",
            "FLWR_HOME": str(root / "client"),
        }  # fmt: skip
        self.processes = []
        deploy = [sys.executable, "-m", "fedlabels.deploy"]
        subprocess.run(
            [*deploy, "example", "--out", "devices", "--labels", "20", "40"], cwd=root, check=True,
            env=self.environment, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        self.start("superlink", "flower-superlink", "--insecure", "--host", "127.0.0.1", "--port",
                   str(PORT), "--disable-runtime-dependency-installation")  # fmt: skip
        address = f"127.0.0.1:{PORT}"
        subprocess.run(
            [*deploy, "connection", "--name", "fl", "--address", address, "--insecure"],
            cwd=root, check=True, env=self.environment, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(4)
        for k in range(DEVICES):
            config = (
                f'client-id={k} data-dir="{root}/devices/device-{k}" '
                f'state-dir="{root}/state-{k}" threads=1'
            )
            self.start(
                f"node-{k}", "flower-supernode", "--insecure", "--superlink", address, "--host",
                "127.0.0.1", "--port", str(PORT + 1 + k), "--node-config", config,
            )  # fmt: skip

    def start(self, name: str, *command: str) -> None:
        """Start a process with a home and a log of its own."""
        environment = {**self.environment, "FLWR_HOME": str(self.root / f"home-{name}")}
        log = (self.root / f"{name}.log").open("wb")
        self.processes.append(
            subprocess.Popen(
                command, cwd=self.root, env=environment, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        )  # fmt: skip

    def measure(self, method: str, rounds: int) -> dict[str, Any]:
        """Run a method and watch the first device."""
        folder = self.root / "runs" / method
        overrides = (
            f"{METHODS[method]} dataset=digits model=lenet per_round={DEVICES} rounds={rounds} "
            f"deploy.min_clients={DEVICES} deploy.final_evaluation=false run_dir={folder}"
        )
        subprocess.run(
            ["flwr", "run", str(ROOT), "fl", "--run-config", f'overrides="{overrides}"'],
            cwd=self.root, env=self.environment, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        pid, most, kinds = self.processes[1].pid, 0.0, dict[str, float]()
        idle, _ = resident(pid)
        manifest = folder / "manifest.json"
        deadline = time.monotonic() + 300
        while not manifest.exists() or json.loads(manifest.read_text())["status"] == "running":
            total, parts = resident(pid)
            most = max(most, total)
            kinds = {k: max(v, kinds.get(k, 0.0)) for k, v in {**kinds, **parts}.items()}
            if time.monotonic() > deadline:
                raise SystemExit(f"{method} did not end: see {self.root}")
            time.sleep(0.05)
        with (folder / "rounds.csv").open() as file:
            seconds = [float(row["seconds_train"]) for row in csv.DictReader(file)]
        with (folder / "clients.csv").open() as file:
            row = list(csv.DictReader(file))[-1]
        arrays = load_file(folder / "model.safetensors")
        return {
            "method": method,
            "seconds_a_round": float(np.median(seconds[1:])),
            "first_round": seconds[0],
            "megabytes_idle": idle,
            "megabytes_most": most,
            "megabytes_by_process": kinds,
            "bytes_down": int(row["bytes_down"]),
            "bytes_up": int(row["bytes_up"]),
            "global_arrays_bytes": int(sum(value.nbytes for value in arrays.values())),
            "state_bytes": sum(p.stat().st_size for p in self.root.glob("state-0/0/*.safetensors")),
        }

    def close(self) -> None:
        """End all processes."""
        for process in self.processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    sizes = installed()
    root = Path(tempfile.mkdtemp(prefix="fedlabels-footprint-"))
    fleet = Fleet(root)
    try:
        rows = [fleet.measure(method, arguments.rounds) for method in arguments.methods]
    finally:
        fleet.close()
    found = {
        "versions": {n: version(n) for n in ("fedlabels", "flwr", "torch", "numpy")},
        "hardware": {"machine": platform.machine(), "cores": allowed_cores()},
        "installed_megabytes": {
            "all": round(sum(sizes.values()), 1),
            **{k: round(v, 1) for k, v in sorted(sizes.items(), key=lambda i: -i[1])[:12]},
        },
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
