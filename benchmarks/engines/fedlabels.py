"""Our own engine, through its entry: composed settings and ``fedlabels.run.main.execute``.

Variants: ``fedlabels-serial``, ``fedlabels-processes``, ``fedlabels-ray``, each also with
``-stacked`` or ``-bf16``.
"""

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any
from unittest import mock

import numpy as np
from safetensors.numpy import load_file
from torch import nn

from engines import work
from engines.work import BATCH, CLIENTS, COHORT, LR, MEAN, STD, Job, Laps
from fedlabels.clients.fedavg import FedAvg
from fedlabels.cohort import Cohort, FitRequest, FitResult, Term
from fedlabels.cohort.net import build_seeded
from fedlabels.cohort.types import DataSpec
from fedlabels.models import build as build_model
from fedlabels.models.base import Classifier
from fedlabels.models.registry import MODELS
from fedlabels.run import main as entry
from fedlabels.run.folder import RunFolder
from fedlabels.run.world import World
from fedlabels.settings.config import check
from fedlabels.worker.population import Group, Population

NEVER = 10**9
MODEL = {
    "cnn": {"name": "cnn_pfl", "dropout_features": 0.0, "dropout_hidden": 0.0},
    "mlp": {"name": "mlp"},
    "lenet": {"name": "lenet_62006"},
    "start": {"name": "lenet_62006"},
}


class LeNet62006(Classifier):
    """The LeNet of the speed comparisons, which the package does not have."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        *body, head = work.layers("lenet")
        self.body, self.head = nn.Sequential(*body), head


class NullModel(Classifier):
    """Parameters and no work.

    Parameters
    ----------
    spec : DataSpec
        Samples of any shape.
    parameters : int
        How many in all.
    """

    def __init__(self, spec: DataSpec, *, parameters: int) -> None:
        super().__init__()
        null = work.Null(spec.shape, parameters)
        self.body, self.head, self.rest = nn.Flatten(), null.head, null.rest


MODELS["lenet_62006"], MODELS["null"] = LeNet62006, NullModel


@dataclasses.dataclass(frozen=True)
class Plain(FedAvg):
    """FedAvg's client, unchanged: unpickled in a worker, it imports this file and its models."""


@dataclasses.dataclass(frozen=True)
class Echo(FedAvg):
    """Hands back what it got, with weight 1."""

    def fit(self, cohort: Cohort, request: FitRequest) -> FitResult:
        """Return a copy of the received model."""
        one = cohort.map(lambda n: 0 * n + 1, cohort.samples("labeled").count)
        return FitResult({"model": Term(cohort.start(request.shared["model"]), one)})


def settings_of(job: Job) -> dict[str, Any]:
    """Return the model's settings."""
    if job.work.trains:
        return dict(MODEL[job.cell])
    return {"name": "null", "parameters": job.work.parameters}


def first_weights(job: Job) -> list[np.ndarray]:
    """Draw the weights that every engine starts from, in the order of the plain models."""
    values = settings_of(job)
    name = values.pop("name")
    spec = DataSpec(job.work.shape, work.CLASSES)
    built = build_seeded(lambda: {"model": build_model(name, spec, **values)}, job.seed)
    return [p.detach().numpy() for p in built["model"].parameters()]


def overrides(job: Job) -> list[str]:
    """Return what is set on the command line of such a run."""
    _, backend, *rest = job.engine.split("-")
    channels = job.work.shape[0]
    model = {"cnn": "cnn_pfl"}.get(job.cell, "mlp")  # the nets of this file have no YAML
    chosen = [f"model.{k}={v}" for k, v in settings_of(job).items() if job.cell == "cnn"]
    ray = [f"backend.num_workers={job.workers}"] if backend != "serial" else []
    return [
        "dataset=npz", f"dataset.root={job.data}",
        f"dataset.options={{mean: {[MEAN] * channels}, std: {[STD] * channels}}}",
        "partition=natural", "labels=uniform", "labels.fraction=1.0", "method=fedavg",
        f"clients={CLIENTS}", f"per_round={COHORT}", f"rounds={job.rounds + 2}", f"seed={job.seed}",
        f"training.batch_size={BATCH}", f"training.lr={LR}", "training.steps=null",
        "training.epochs=1", f"evaluate_every={NEVER}", f"checkpoint_every={NEVER}",
        f"backend={backend}", f"backend.execution={'stacked' if 'stacked' in rest else 'looped'}",
        f"precision={'bfloat16' if 'bf16' in rest else 'float32'}", f"model={model}", *chosen, *ray,
    ]  # fmt: skip


@dataclasses.dataclass
class Timer:
    """Callback: marks rounds, and stops before the last one, which would be evaluated."""

    laps: Laps
    rounds: int

    def on_run_start(self, *, folder: RunFolder, config: Mapping[str, Any]) -> None:
        """Mark the beginning."""
        self.laps.start()

    def on_round_end(self, *, record: Mapping[str, Any]) -> bool:
        """Mark the end of a round, tables and all."""
        self.laps.lap()
        return record["round"] > self.rounds

    def on_run_end(self, *, folder: RunFolder) -> None:
        """Do nothing."""


def changed(job: Job, world: World) -> World:
    """Put the client of this file into a world."""
    group = world.population.groups[0]
    fields = dataclasses.asdict(world.client)
    client = (Plain if job.work.trains else Echo)(**fields)
    groups = (Group(client, group.model, group.settings),)
    population = Population(groups, world.population.members)
    return dataclasses.replace(world, client=client, population=population)


def run(job: Job) -> None:
    """Compose the settings, run them, read the model that the run wrote."""
    if "-ray" in job.engine:
        importlib.import_module("fedlabels.simulation.ray_backend")  # others import at once, too
    laps = Laps()
    config = entry.compose_settings(overrides(job)) | {"model": settings_of(job)}
    check(config)
    entry.quiet()
    folder = job.scratch / "run"
    build = entry.build_world
    with mock.patch.object(entry, "build_world", lambda c: changed(job, build(c))):
        entry.execute(config, folder, callbacks=[Timer(laps, job.rounds)])
    final = load_file(folder / "model.safetensors")
    work.write(job, laps, [final[name] for name in names_of(job)])


def names_of(job: Job) -> list[str]:
    """Return parameter names in the order of the plain models."""
    values = settings_of(job)
    built = build_model(values.pop("name"), DataSpec(job.work.shape, work.CLASSES), **values)
    return [name for name, _ in built.named_parameters()]
