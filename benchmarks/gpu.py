"""Speed on one GPU; writes benchmarks/results/gpu.json and .svg. Needs torch and numpy only.

    python benchmarks/gpu.py [--parts pfl blazefl cohorts fedlabel]
        [--executions graphed stacked looped] [--dtype float32|bfloat16] [--device auto|cpu|cuda]
        [--rounds N] [--tiny] [--out FILE]

Times are of what trains: sampling, local training, weighted average and evaluation, all on the
device. Strategies, tables and checkpoints of a whole run come on top. The pictures are made up:
noise over a pattern of their class, in the shape of CIFAR-10. ``--tiny`` only shows that everything
runs: its times mean nothing. The work is that of other simulators' own benchmarks:

- ``pfl``: 1,500 rounds of 50 of 1,000 clients x 50 samples, batch 10, one epoch, the CNN of
  pfl-research with dropout; 10,000 test pictures every 10 rounds.
- ``blazefl``: 5 rounds of 100 clients x 500 samples, batch 50, five epochs, LeNet of 62,006
  parameters; 10,000 test pictures every round.
- ``cohorts``: a round of ``pfl`` with other numbers of clients.
- ``fedlabel``: a round of FedLabel beside one of FedAvg: 30 labeled steps, and 10 unlabeled ones
  with strong views; 50 clients x 100 samples, 20 of them labeled, batch 64.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a copy, not installed

import gpu_chart
import numpy as np
import torch
from torch import Tensor, nn

from fedlabels.clients.fedavg import FedAvg
from fedlabels.clients.fedlabel import FedLabel
from fedlabels.cohort import Client, DataSpec, FitRequest, Nets, Shard, TensorSource
from fedlabels.cohort.device import choose_device, scope, tune
from fedlabels.cohort.engine import Engine, Made, Member
from fedlabels.cohort.probe import CudaMemory, OutOfMemory, StackSize, wait
from fedlabels.cohort.recorders import Lane, TapeRecorder, make_lanes
from fedlabels.data.views import make_views
from fedlabels.models.base import Classifier
from fedlabels.models.cnn_pfl import CnnPfl
from fedlabels.models.convolution import Conv2d

RESULTS = Path(__file__).resolve().parent / "results" / "gpu.json"
SHAPE, CLASSES, TEST, SEED = (3, 32, 32), 10, 10_000, 0
SPEC = DataSpec(SHAPE, CLASSES)
COHORTS = (10, 20, 50, 100, 200, 500, 1_000)
TIMED = 10  # rounds where only the cost of a round counts
SLOW_ROUNDS = 20  # of looped execution, which is there to compare with

Model = Callable[[], nn.Module]


class LeNet62006(Classifier):
    """The LeNet of BlazeFL's benchmark."""

    def __init__(self) -> None:
        super().__init__()
        first = [Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2)]
        second = [Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
        dense = [nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()]
        self.body, self.head = nn.Sequential(*first, *second, *dense), nn.Linear(84, CLASSES)


@dataclass(frozen=True)
class Job:
    """What is trained, and how often.

    Parameters
    ----------
    client : Client
    model : callable
        Makes the model.
    clients, cohort : int
        In all, and of a round.
    samples, labeled : int
        Of a client, and how many of them have labels.
    rounds, every : int
        Rounds, and how many of them to an evaluation; 0 never evaluates.
    views : str or None
        Preset of the weak and strong views.
    """

    client: Client
    model: Model
    clients: int
    cohort: int
    samples: int
    labeled: int
    rounds: int
    every: int = 0
    views: str | None = None

    def tiny(self) -> "Job":
        """Return the same with next to no work."""
        names = {entry.name for entry in fields(self.client)}
        short = {"steps": 2, "tau": 2, "steps_unlabeled": 2}
        if getattr(self.client, "epochs", None):
            short.pop("steps")
        client = replace(self.client, **{k: v for k, v in short.items() if k in names})
        return replace(
            self, client=client, clients=4, cohort=min(self.cohort // 5, 3), samples=12,
            labeled=min(self.labeled, 8), rounds=2,
        )  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where and how: device, execution, type of products."""

    device: torch.device
    execution: str
    low: torch.dtype | None = None
    lanes: int = 4


def jobs(part: str) -> Iterator[tuple[dict[str, Any], Job]]:
    """Yield what tells the rows of a part apart, and their work."""
    pfl = Job(FedAvg(lr=0.1, batch_size=10, steps=None, epochs=1),
              lambda: CnnPfl(SPEC), 1_000, 50, 50, 50, 1_500, 10)  # fmt: skip
    if part == "pfl":
        yield {}, pfl
    if part == "blazefl":
        client = FedAvg(lr=0.1, batch_size=50, steps=None, epochs=5)
        yield {}, Job(client, LeNet62006, 100, 100, 500, 500, 5, 1)
    if part == "cohorts":
        for cohort in COHORTS:
            yield {"cohort": cohort}, replace(pfl, cohort=cohort, rounds=TIMED, every=0)
    if part == "fedlabel":
        plain = FedAvg(lr=0.03, batch_size=64, steps=30)
        same = replace(pfl, samples=100, labeled=20, rounds=TIMED, every=0, views="natural")
        yield {"client": "FedAvg"}, replace(same, client=plain)
        yield {"client": "FedLabel"}, replace(same, client=FedLabel())


# ---- data


def pictures(number: int, device: torch.device) -> tuple[Tensor, np.ndarray]:
    """Make pictures in [0, 1] on the device, and their classes."""
    random = np.random.default_rng(SEED)
    patterns = random.integers(-48, 49, (CLASSES, *SHAPE), dtype=np.int16)
    y = random.integers(0, CLASSES, number)
    x = torch.empty((number, *SHAPE), device=device)
    for start in range(0, number, 5_000):
        classes = y[start : start + 5_000]
        noise = random.integers(48, 208, (len(classes), *SHAPE), dtype=np.int16)
        made = torch.from_numpy((noise + patterns[classes]).astype(np.uint8))
        x[start : start + len(classes)] = made.to(device).float() / 255
    return x, y


def source_of(x: Tensor, views: str | None) -> TensorSource:
    """Return resident data."""
    half = torch.tensor(0.5, device=x.device)
    if views is None:
        return TensorSource(x, half, half / 2, same=("weak", "strong"))
    return TensorSource(x, half, half / 2, make_views(views))


# ---- a simulation


@dataclass
class Rounds:
    """Rounds of one job in one place."""

    job: Job
    place: Place
    test: int = TEST
    seconds: list[float] = field(default_factory=list)
    accuracy: float | None = None

    def __post_init__(self) -> None:
        job, device = self.job, self.place.device
        count = job.clients * job.samples
        x, y = pictures(count + self.test, device)
        self.nets = Nets(
            lambda: job.client.nets(job.model(), SPEC), SEED, torch.float32, self.place.low, device
        )
        self.engine = Engine(
            job.client, self.nets, source_of(x[:count], job.views), SPEC, SEED, self.place.lanes,
            make=lanes_of,
        )  # fmt: skip
        self.members = []
        for k, rows in enumerate(np.split(np.arange(count), job.clients)):
            known = rows[: job.labeled]
            self.members.append(Member(Shard(k, known, y[known], rows[job.labeled :])))
        self.x, self.y = source_of(x[count:], None), torch.from_numpy(y[count:]).to(device)
        memory = CudaMemory(device) if device.type == "cuda" else None
        self.size = StackSize(None, memory)
        formats = {4: torch.channels_last}
        self.model = {
            k: v.contiguous(memory_format=formats.get(v.dim(), torch.contiguous_format))
            for k, v in self.nets["model"].init.items()
        }
        self.random = np.random.default_rng(SEED)

    def run(self) -> None:
        """Run all rounds; the first one warms up and is timed for itself."""
        for index in range(1, self.job.rounds + 1):
            begin = time.perf_counter()
            self.train(index)
            if self.job.every and index % self.job.every == 0:
                self.accuracy = self.evaluate()
            wait(self.place.device)
            self.seconds.append(time.perf_counter() - begin)

    def train(self, index: int) -> None:
        """Run one round: a weighted average in float64."""
        chosen = self.random.choice(self.job.clients, self.job.cohort, replace=False)
        request = FitRequest("train", index, self.job.rounds, {}, {"model": self.model})
        floats = [k for k, v in self.model.items() if v.is_floating_point()]
        total = [torch.zeros_like(self.model[k], dtype=torch.float64) for k in floats]
        weight = torch.zeros((), dtype=torch.float64, device=self.place.device)
        self.engine.begin()
        for made in self.results(request, [self.members[k] for k in chosen]):
            term = made.result.terms["model"]
            each = made.take(term.weight).double()
            values = [made.take(term.value[k]).double() for k in floats]
            torch._foreach_add_(total, torch._foreach_mul(values, each))
            weight = weight + each
        mean = torch._foreach_div(total, weight)
        new = {k: v.to(self.model[k].dtype) for k, v in zip(floats, mean, strict=True)}
        self.model = {**self.model, **new}

    def results(self, request: FitRequest, members: Sequence[Member]) -> Iterator[Made]:
        """Run clients in this place's execution."""
        at = 0
        while at < len(members):
            if self.place.execution == "graphed":
                part = members[at : at + self.engine.window]
                found: list[Any] = self.engine.graphed(request, part)
            elif self.place.execution == "stacked":
                part = members[at : at + self.size.clients]
                found = self.stack(request, part)
            else:
                part = members[at : at + 1]
                found = [self.engine.looped(request, part[0])]
            for made in found:
                if isinstance(made, Exception):
                    raise made
                yield made
            at += len(found)

    def stack(self, request: FitRequest, members: Sequence[Member]) -> list[Made]:
        """Run a stack; a shorter one if it does not fit."""
        try:
            self.size.watch()
            made = self.engine.stacked(request, members)
            self.size.learn(len(members))
            return made
        except OutOfMemory:
            if len(members) == 1:
                raise
        self.size.halve(len(members))
        return self.stack(request, members[: self.size.clients])

    def evaluate(self, rows: int = 2_000) -> float:
        """Return the accuracy on the test pictures."""
        net, hits = self.nets["model"], torch.zeros((), device=self.place.device)
        cohort = self.engine.cohort()
        with scope(self.place.device):
            for index in torch.arange(self.test).split(rows):
                x = self.x.rows(index, "plain", torch.empty(len(index), 0))
                logits = cohort.map(lambda x: net.at(self.model)(x), x)
                hits = hits + (logits.argmax(1) == self.y[index]).sum()
        return float(hits) / self.test


def lanes_of(device: torch.device, count: int) -> list[Lane]:
    """Make lanes; on a CPU such that only show that it runs."""
    if device.type == "cpu":
        return [Lane(TapeRecorder()) for _ in range(count)]
    return make_lanes(device, count)


# ---- what is written


def measure(job: Job, place: Place, test: int) -> dict[str, Any]:
    """Run a job; return its times, or why there are none."""
    cuda = place.device.type == "cuda"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    run, problem = None, None
    try:
        run = Rounds(job, place, test)
        run.run()
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"[:300]
    if run is None or problem is not None:
        return {"error": problem}
    later = run.seconds[1:] or run.seconds
    facts = {
        "rounds": job.rounds,
        "total": sum(run.seconds),
        "first": run.seconds[0],
        "round": median(later),
        "slowest": max(later),
        "samples_a_second": job.cohort * job.samples / median(later),
        "accuracy": run.accuracy,
    }
    if place.execution == "stacked":
        facts["stack"] = run.size.clients
    if cuda:
        facts["peak_mib"] = round(torch.cuda.max_memory_allocated() / 2**20)
    return facts


def run_part(part: str, options: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """Measure a part in every execution."""
    low = torch.bfloat16 if options.dtype == "bfloat16" else None
    rows = []
    for facts, full in jobs(part):
        if options.tiny and facts.get("cohort", 0) > COHORTS[1]:
            continue
        job = full.tiny() if options.tiny else full
        for execution in options.executions:
            rounds = options.rounds or job.rounds
            if execution == "looped":
                rounds = min(rounds, SLOW_ROUNDS)
            place = Place(device, execution, low, options.lanes)
            made = measure(replace(job, rounds=rounds), place, 20 if options.tiny else TEST)
            rows.append({**facts, "execution": execution, **made})
            shown = made.get("error") or f"{made['round']:.4f} s a round, {made['total']:.1f} s"
            told = " ".join(map(str, [part, *facts.values(), execution]))
            sys.stdout.write(f"{told}: {shown}\n")
            sys.stdout.flush()
    return rows


def hardware(device: torch.device) -> dict[str, Any]:
    """Return what it ran on."""
    facts: dict[str, Any] = {"machine": platform.machine(), "device": str(device)}
    if device.type == "cuda":
        of = torch.cuda.get_device_properties(device)
        facts |= {"gpu": of.name, "memory_gib": round(of.total_memory / 2**30, 1)}
        facts |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return {**facts, "torch": torch.__version__, "python": platform.python_version()}


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parts, ways = ["pfl", "blazefl", "cohorts", "fedlabel"], ["graphed", "stacked", "looped"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=parts, choices=parts)
    parser.add_argument("--executions", nargs="+", default=ways, choices=ways)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--no-tf32", action="store_true", help="products of full float32")
    parser.add_argument("--lanes", type=int, default=4, help="clients in flight of graphed")
    parser.add_argument("--rounds", type=int, help="instead of a part's own number")
    parser.add_argument("--tiny", action="store_true", help="next to no work; not saved by itself")
    parser.add_argument("--out", type=Path, help="instead of benchmarks/results/gpu.json")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Measure the parts and write them."""
    options = options_of(arguments)
    device = choose_device(options.device)
    if device.type == "cpu" and not options.tiny:
        sys.exit("there is no GPU here; --tiny shows that everything runs")
    torch.set_num_threads(1 if device.type == "cpu" else torch.get_num_threads())
    tune(device, tf32=not options.no_tf32)
    out = options.out or (None if options.tiny else RESULTS)
    facts: dict[str, Any] = {
        "measured": time.strftime("%Y-%m-%d %H:%M"),
        "dtype": options.dtype,
        "tf32": not options.no_tf32,
        "lanes": options.lanes,
        "tiny": options.tiny,
        "hardware": hardware(device),
        "parts": {},
    }
    for part in options.parts:
        facts["parts"][part] = run_part(part, options, device)
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(facts, indent=1) + "\n")
            out.with_suffix(".svg").write_text(gpu_chart.draw(facts))


if __name__ == "__main__":
    main()
