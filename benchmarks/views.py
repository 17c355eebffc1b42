"""Cost of weak and strong views beside a training step, and how many operations a batch sees.

    python benchmarks/views.py [--repeats 200] [--kornia]

Writes benchmarks/results/views.json. All times are of one thread. With --kornia, kornia is
installed into a virtual environment of its own below the system's temporary folder, which is
removed afterwards, and its RandAugment is measured on the same batch.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedlabels.cohort import DataSpec
from fedlabels.data import View, make_views
from fedlabels.data.view_base import whole
from fedlabels.data.views import StrongView
from fedlabels.machine import allowed_cores
from fedlabels.models import build

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "views.json"

BATCH = 64
IMAGE, SERIES = (3, 32, 32), (6, 128)
IMAGES, DRAWS = 16, 40  # for counting operations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--kornia", action="store_true", help="install kornia and measure it too")
    parser.add_argument("--only-kornia", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.only_kornia:
        print(json.dumps(kornia_figures(arguments.repeats)))
        return
    load = os.getloadavg()[0]
    figures: dict[str, Any] = {
        "hardware": {
            "machine": platform.machine(), "cores": allowed_cores(), "threads": 1,
            "load_before": round(load, 2),
        },
        "versions": {
            "python": platform.python_version(), **{p: version(p) for p in ("torch", "numpy")}
        },
        "batch": {"images": [BATCH, *IMAGE], "series": [BATCH, *SERIES]},
        "milliseconds": timings(arguments.repeats),
        "operations": {"images": IMAGES, "draws": DRAWS, "fedlabels": count(own_draws())},
    }  # fmt: skip
    if arguments.kornia:
        figures["kornia"] = in_own_environment(arguments.repeats)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


# ---- time


def timings(repeats: int) -> dict[str, dict[str, float]]:
    """Measure views and training steps in turn, so that a busy moment hits all of them."""
    jobs: dict[str, Callable[[], object]] = {}
    for preset, shape in (("natural", IMAGE), ("timeseries", SERIES)):
        x = torch.rand(BATCH, *shape, generator=torch.Generator().manual_seed(0))
        for kind, view in make_views(preset).items():
            jobs[f"{preset} {kind} view"] = view_job(view, x)
    # What kornia's RandAugment does: two operations, no cutout, no crop, no mirror image.
    alone = make_views("natural", cutout=0.0, shift=0.0, flip=False)["strong"]
    jobs["natural two operations alone"] = view_job(alone, torch.rand(BATCH, *IMAGE))
    for name, shape in (("lenet", IMAGE), ("resnet8", IMAGE), ("cnn1d", SERIES)):
        jobs[f"{name} forward and backward"] = step_job(name, shape)
    return measure(jobs, repeats)


def measure(jobs: dict[str, Callable[[], object]], repeats: int) -> dict[str, dict[str, float]]:
    """Return median, tenth and ninetieth percentile of each job in milliseconds."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(repeats + 5):
        for name, job in jobs.items():
            began = time.perf_counter()
            job()
            if turn >= 5:  # the first turns warm up
                seconds[name].append(time.perf_counter() - began)
    marks = {"median": 50, "p10": 10, "p90": 90}
    return {
        name: {key: round(1e3 * float(np.percentile(v, q)), 3) for key, q in marks.items()}
        for name, v in seconds.items()
    }


def view_job(view: View, x: Tensor) -> Callable[[], Tensor]:
    """Apply a view with fresh numbers, whose drawing counts."""
    random = torch.Generator().manual_seed(1)
    return lambda: view(x, torch.rand(len(x), view.columns, generator=random))


def step_job(name: str, shape: tuple[int, ...]) -> Callable[[], None]:
    """Compute a loss and its gradients."""
    model = build(name, DataSpec(shape, 10)).train()
    x, y = torch.rand(BATCH, *shape), torch.arange(BATCH) % 10

    def step() -> None:
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()

    return step


# ---- operations


def own_draws() -> Iterator[list[str]]:
    """Yield the first operation of each image, draw by draw."""
    view = make_views("natural")["strong"]
    assert isinstance(view, StrongView)
    random = torch.Generator().manual_seed(0)
    for _ in range(DRAWS):
        u = torch.rand(IMAGES, view.columns, generator=random)
        yield [view.ops[i] for i in whole(u[:, 0], len(view.ops)).tolist()]


def count(draws: Iterator[list[str]]) -> dict[str, float]:
    """Count different first operations: in all draws, in a batch, and of one image over time."""
    table = list(draws)
    return {
        "different_in_all": len({name for names in table for name in names}),
        "different_in_a_batch": float(np.mean([len(set(names)) for names in table])),
        "different_of_an_image": float(
            np.mean([len({names[i] for names in table}) for i in range(IMAGES)])
        ),
    }


# ---- kornia


def in_own_environment(repeats: int) -> dict[str, Any]:
    """Install kornia beside this environment's packages and measure it in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        names = {"base": folder, "platbase": folder}
        site = Path(sysconfig.get_path("purelib", "venv", vars=names))
        own = [sysconfig.get_path("purelib"), str(ROOT)]
        (site / "fedlabels_benchmark.pth").write_text("\n".join(own) + "\n")
        install = [str(python), "-m", "pip", "install", "-q", "kornia"]
        if subprocess.run(install, capture_output=True, check=False).returncode:
            return {"version": None, "reason": "could not be installed"}
        command = [str(python), __file__, "--only-kornia", "--repeats", str(repeats)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stderr)
        return {"version": None, "reason": "installed, but did not run"}
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def kornia_figures(repeats: int) -> dict[str, Any]:
    """Measure kornia's RandAugment with two operations, as the strong view has."""
    from kornia.augmentation.auto import RandAugment

    augment = RandAugment(n=2, m=10)
    x = torch.rand(BATCH, *IMAGE)

    def draws() -> Iterator[list[str]]:
        for _ in range(DRAWS):
            augment(x[:IMAGES])
            # The parameters name one policy a slot for the whole batch.
            yield [augment._params[0].name] * IMAGES

    with torch.no_grad():
        return {
            "version": version("kornia"),
            "torch": version("torch"),
            "milliseconds": measure({"RandAugment(n=2, m=10)": lambda: augment(x)}, repeats),
            "operations": count(draws()),
        }


if __name__ == "__main__":
    main()
