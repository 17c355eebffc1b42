"""The work that every engine does: cells, data, plain models, the plain loop, what is written.

Needs torch and numpy only, so that it can be imported in any engine's environment.
"""

import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

CLIENTS, SAMPLES, COHORT, BATCH, LR, CLASSES = 1_000, 50, 50, 10, 0.1, 10
MEAN, STD = 0.5, 0.25
STARTED = "FEDLABELS_BENCHMARK_STARTED"  # variable: when the driver started this process
NULL_TENSORS = 8  # as many as the CNN has


@dataclass(frozen=True)
class Cell:
    """One kind of work.

    Parameters
    ----------
    shape : tuple of int
        A sample: channels, height, width.
    parameters : int
        Floating-point numbers of the model.
    rounds : int
        Timed rounds after the first one; 0 times the first round, from the end of the imports.
    passes : int
        How often each engine is run.
    text : str
        For the table.
    trains : bool
        False: a client hands back what it got.
    """

    shape: tuple[int, int, int]
    parameters: int
    rounds: int
    passes: int
    text: str
    trains: bool = True

    @property
    def unit(self) -> str:
        """What a reader looks for: multiples of the bare loop, ms a client or seconds."""
        if not self.trains:
            return "ms a client"
        return "x bare" if self.rounds else "s"


CELLS = {
    "cnn": Cell((3, 32, 32), 1_626_442, 3, 3, "CNN of pfl-research, 1,626,442 parameters"),
    "lenet": Cell((3, 32, 32), 62_006, 10, 3, "LeNet, 62,006 parameters"),
    "mlp": Cell((1, 28, 28), 199_210, 10, 2, "784-200-200-10, 199,210 parameters"),
    "null-1KB": Cell((1, 4, 4), 256, 12, 2, "no training, 1 KB", trains=False),
    "null-1MB": Cell((1, 4, 4), 250_000, 12, 2, "no training, 1 MB", trains=False),
    "null-6.5MB": Cell((1, 4, 4), 1_626_442, 12, 2, "no training, 6.5 MB", trains=False),
    "start": Cell((3, 32, 32), 62_006, 0, 3, "from the end of imports to the first round, LeNet"),
}


@dataclass(frozen=True)
class Job:
    """One run of one engine.

    Parameters
    ----------
    engine, cell : str
        Name of the engine with its variant, and of the cell.
    folder : Path
        Holds the data of all cells; the run's own files go into ``scratch``.
    scratch : Path
        Empty folder of this run alone.
    rounds : int
        Timed rounds; one more is run before them.
    workers : int
        Processes that train.
    seed : int
        Of the data, the first weights and the cohorts.
    """

    engine: str
    cell: str
    folder: Path
    scratch: Path
    rounds: int
    workers: int
    seed: int

    @property
    def work(self) -> Cell:
        """What is to be done."""
        return CELLS[self.cell]

    @property
    def data(self) -> Path:
        """Folder with train.npz and test.npz."""
        return self.folder / "x".join(map(str, self.work.shape))

    @property
    def result(self) -> Path:
        """Where the engine writes."""
        return self.scratch / "result.json"


# ---- data


def write_data(folder: Path, shape: tuple[int, int, int], seed: int) -> None:
    """Write images of noise over a pattern of their class; client k owns block k."""
    if (folder / "test.npz").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    patterns = random.integers(-48, 49, (CLASSES, *shape), dtype=np.int16)
    for split, number in (("test", 100), ("train", CLIENTS * SAMPLES)):
        y = random.integers(0, CLASSES, number)
        x = np.empty((number, *shape), np.uint8)
        for start in range(0, number, 5_000):
            rows = slice(start, start + 5_000)
            noise = random.integers(48, 208, x[rows].shape, dtype=np.int16)
            x[rows] = noise + patterns[y[rows]]
        owners = {"client": np.arange(number) // SAMPLES} if split == "train" else {}
        np.savez(folder / f"{split}.npz", x=x, y=y, **owners)


class Data:
    """All clients' samples as uint8; a client's are made floating when it is asked."""

    def __init__(self, job: Job) -> None:
        with np.load(job.data / "train.npz") as archive:
            self.x, self.y = torch.from_numpy(archive["x"]), torch.from_numpy(archive["y"])

    def client(self, index: int) -> tuple[Tensor, Tensor]:
        """Return normalized samples and classes."""
        rows = slice(index * SAMPLES, (index + 1) * SAMPLES)
        return self.x[rows].float().div_(255).sub_(MEAN).div_(STD), self.y[rows]


def cohort(job: Job, index: int) -> list[int]:
    """Draw the clients of a round."""
    random = np.random.default_rng([job.seed, index])
    return [int(k) for k in random.choice(CLIENTS, COHORT, replace=False)]


# ---- models


class Null(nn.Module):
    """Parameters and no work: as many tensors as the CNN, a head among them."""

    def __init__(self, shape: Sequence[int], parameters: int) -> None:
        super().__init__()
        self.head = nn.Linear(int(np.prod(shape)), CLASSES)
        rest = parameters - sum(p.numel() for p in self.head.parameters())
        cuts = [len(part) for part in np.array_split(np.arange(rest), NULL_TENSORS - 2)]
        self.rest = nn.ParameterList(nn.Parameter(torch.randn(cut)) for cut in cuts)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.head(x.flatten(1))
        return logits


def layers(cell: str) -> list[nn.Module]:
    """Return the layers of a cell that trains; the last one is the head."""
    if cell == "mlp":
        dense = [nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU()]
        return [nn.Flatten(), *dense, nn.Linear(200, CLASSES)]
    if cell == "cnn":
        convolutions = [nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU()]
        dense = [nn.Linear(12_544, 128), nn.ReLU()]
        return [*convolutions, nn.MaxPool2d(2), nn.Flatten(), *dense, nn.Linear(128, CLASSES)]
    first = [nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    dense = [nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()]
    return [*first, *second, *dense, nn.Linear(84, CLASSES)]


def model(job: Job) -> nn.Module:
    """Return the plain model with the weights that all engines start from."""
    work = job.work
    if work.trains:
        built: nn.Module = nn.Sequential(*layers(job.cell))
    else:
        built = Null(work.shape, work.parameters)
    with torch.no_grad():
        for parameter, value in zip(built.parameters(), initial(job), strict=True):
            parameter.copy_(torch.from_numpy(value))
    return built


def initial(job: Job) -> list[np.ndarray]:
    """Read the first weights, in the order of the plain model's parameters."""
    with np.load(job.folder / f"{job.cell}.npz") as archive:
        return [archive[f"{k}"] for k in range(len(archive.files))]


def train(net: nn.Module, parameters: list[Tensor], x: Tensor, y: Tensor) -> None:
    """Run the plain loop: one epoch of SGD in the given order, in place."""
    for start in range(0, len(y), BATCH):
        rows = slice(start, start + BATCH)
        loss = functional.cross_entropy(net(x[rows]), y[rows])
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            torch._foreach_add_(parameters, gradients, alpha=-LR)


# ---- what an engine writes


class Laps:
    """When rounds ended; made by an engine as soon as all is imported."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.imported = time.time() - float(os.environ[STARTED])
        self.first = math.nan
        self.rounds: list[float] = []

    def start(self) -> None:
        """Mark the beginning of the first round."""
        self._last = time.perf_counter()

    def lap(self) -> None:
        """Mark the end of a round; the first one counts from the start of the process."""
        now = time.perf_counter()
        if math.isnan(self.first):
            self.first = time.time() - float(os.environ[STARTED])
        else:
            self.rounds.append(now - self._last)
        self._last = now


def write(job: Job, laps: Laps, final: Sequence[Any], **more: Any) -> None:
    """Write times, the norm of the final parameters and how far they moved from the first."""
    last = [np.asarray(value, dtype=np.float64) for value in final]
    begun = [value.astype(np.float64) for value in initial(job)]
    if [v.shape for v in last] != [v.shape for v in begun]:
        raise ValueError(f"{job.engine} ended with shapes {[v.shape for v in last]}")
    moved = sum(float(((a - b) ** 2).sum()) for a, b in zip(last, begun, strict=True))
    after = laps.first - laps.imported
    facts = {
        "first": laps.first,
        "after_imports": after,
        "rounds": laps.rounds,
        "median": median(laps.rounds) if job.work.rounds else after,
        "norm": sum(float((value**2).sum()) for value in last) ** 0.5,
        "moved": moved**0.5,
        "torch": torch.__version__,
        **more,
    }
    job.result.write_text(json.dumps(facts))
