"""From settings to objects: data, federation, population, backend, strategy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import clients
import strategies
from fedlabels.cohort import Client, DataSpec, Layout
from fedlabels.cohort.net import build_seeded
from fedlabels.data import ArrayDataset, DataSource, load
from fedlabels.federation import (
    PARTITIONS,
    POLICIES,
    Federation,
    LabelNoise,
    Layers,
    LongTail,
    Samples,
    TestShards,
    build,
    make,
)
from fedlabels.models import build as build_model
from fedlabels.run.folder import RunFolder
from fedlabels.simulation.backend import SimulationBackend
from fedlabels.simulation.population import Group, Population
from fedlabels.simulation.serial import SerialBackend
from fedlabels.simulation.state import StateStore
from fedlabels.simulation.worker import WorkerSpec
from strategies.base import ServerStrategy

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class World:
    """What is simulated, before anything runs."""

    source: DataSource
    federation: Federation
    population: Population
    client: Client
    strategy: ServerStrategy
    layout: Layout


def build_world(config: Settings) -> World:
    """Build everything that does not need a worker.

    Raises
    ------
    FedLabelsError
        If a setting is unknown or out of range, or data are missing.
    """
    client = clients.build(config["client"])
    rest = {k: v for k, v in config["strategy"].items() if k != "name"}
    strategy = strategies.build(config["strategy"]["name"], rest)
    dataset = config["dataset"]
    source = load(dataset["name"], root=dataset["root"], **dataset["options"])
    federation = build_federation(config, source)
    model = {k: v for k, v in config["model"].items() if k != "name"}
    group = Group(client, config["model"]["name"], model)
    population = Population.uniform(group, config["clients"])
    spec = DataSpec(source.train.shape, source.train.num_classes)
    name = config["model"]["name"]
    built = build_seeded(lambda: {"model": build_model(name, spec, **model)}, config["seed"])
    return World(source, federation, population, client, strategy, Layout(built["model"]))


def build_federation(config: Settings, source: DataSource) -> Federation:
    """Deal the training set as configured."""
    partition = dict(config["partition"])
    labels = dict(config["labels"])
    reuse, per_client = partition.pop("reuse"), partition.pop("samples_per_client")
    layers = Layers(
        long_tail=LongTail(**config["long_tail"]),
        keep=partition.pop("keep"),
        noise=LabelNoise(**config["label_noise"]),
        test_shards=TestShards(**config["test_shards"]),
    )
    return build(
        samples_of(source.train),
        clients=config["clients"],
        partition=make(PARTITIONS, partition.pop("name"), partition),
        policy=make(POLICIES, labels.pop("name"), labels),
        seed=config["seed"],
        reuse=reuse,
        samples_per_client=per_client,
        layers=layers,
        test=samples_of(source.test),
    )


def samples_of(dataset: ArrayDataset) -> Samples:
    """Return what partitioners and label policies may know of a data set."""
    return Samples(
        dataset.y,
        dataset.num_classes,
        dataset.domain,
        dataset.domain_names,
        dataset.owner,
        dataset.owner_names,
    )


def build_backend(
    config: Settings, world: World, folder: RunFolder, committed: int
) -> SimulationBackend:
    """Start workers.

    Parameters
    ----------
    committed : int
        Last round whose client states count.
    """
    settings = config["backend"]
    spec = WorkerSpec(
        train=world.source.train,
        test=world.source.test,
        federation=world.federation,
        population=world.population,
        views=config["dataset"]["views"],
        view_options=config["dataset"]["view_options"],
        seed=config["seed"],
        execution=settings["execution"],
        stack_size=settings["stack_size"],
        threads=settings["threads"],
        dtype=config["precision"],
    )
    states = StateStore(folder.state, committed)
    if settings["name"] == "serial":
        return SerialBackend(spec, states, settings["block_size"])
    from fedlabels.simulation.ray_backend import RayBackend, RaySettings

    chosen = RaySettings(
        settings["num_workers"], settings["gpus_per_worker"], settings["address"],
        settings["num_gpus"],
    )  # fmt: skip
    return RayBackend(spec, states, settings["block_size"], chosen)
