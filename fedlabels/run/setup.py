"""From settings to objects: data, federation, population, backend, strategy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

import clients
import strategies
from fedlabels.cohort import Client, DataSpec, Layout
from fedlabels.cohort.net import build_seeded
from fedlabels.data import ArrayDataset, DataSource, load
from fedlabels.data.shift import Shift, shift_clients, shift_domains
from fedlabels.errors import ConfigError
from fedlabels.federation import (
    PARTITIONS,
    POLICIES,
    Federation,
    LabelNoise,
    Layers,
    LongTail,
    ModelGroups,
    Samples,
    TestShards,
    build,
    make,
)
from fedlabels.models import build as build_model
from fedlabels.models.base import Classifier
from fedlabels.run.folder import RunFolder
from fedlabels.run.placement import execution_of
from fedlabels.run.profile import profile_of
from fedlabels.simulation.backend import SimulationBackend
from fedlabels.simulation.population import Group, Population
from fedlabels.simulation.process_backend import ProcessBackend
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
    feature_dim: int


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
    source, federation = build_data(config)
    population = Population(_groups(config, client, strategy), federation.groups)
    groups = population.groups if strategy.same_features else population.groups[:1]
    spec = DataSpec(source.train.shape, source.train.num_classes)
    built = build_seeded(
        lambda: {str(k): build_model(g.model, spec, **g.settings) for k, g in enumerate(groups)},
        config["seed"],
    )
    models = [cast(Classifier, model) for model in built.values()]
    widths = [model.head.in_features for model in models]
    if len(set(widths)) > 1:
        names = ", ".join(f"{g.model} {w}" for g, w in zip(groups, widths, strict=True))
        raise ConfigError(
            f"strategy {config['strategy']['name']} needs features of one width, got {names}; set "
            "model.feature_dim, which counts for all of architectures.models"
        )
    return World(source, federation, population, client, strategy, Layout(models[0]), widths[0])


def build_data(config: Settings, *, rendered: bool = True) -> tuple[DataSource, Federation]:
    """Read and shift the data, and deal them.

    Parameters
    ----------
    rendered : bool
        False leaves the pixels as they are: quick, for a look at who holds what.

    Raises
    ------
    FedLabelsError
        If a setting is unknown or out of range, or data are missing.
    """
    dataset, shift = config["dataset"], Shift(**config["shift"])
    source = load(dataset["name"], root=dataset["root"], **dataset["options"])
    source = shift_domains(source, shift, config["seed"], rendered=rendered)
    federation = build_federation(config, source)
    owner = _single_owner(federation, shift)
    if not rendered:
        return source, federation
    return shift_clients(source, shift, owner, len(federation), config["seed"]), federation


def _single_owner(federation: Federation, shift: Shift) -> NDArray[np.int64]:
    """Return the client of every sample, -1 for nobody."""
    parts = federation.labeled, federation.unlabeled
    index = np.concatenate([part.index for part in parts])
    owners = np.concatenate([part.owners for part in parts])
    owner = np.full(len(federation.labels), -1, dtype=np.int64)
    owner[index] = owners
    if shift.preset in ("noise", "corruptions") and (owner[index] != owners).any():
        raise ConfigError(
            f"shift.preset={shift.preset} gives each client pictures of its own, but with "
            "partition.reuse=true clients share them; use a preset of domains (sfs4)"
        )
    return owner


def _groups(config: Settings, client: Client, strategy: ServerStrategy) -> tuple[Group, ...]:
    """Return one group a model: ``model`` and those of ``architectures.models``."""
    models = [config["model"], *config["architectures"]["models"]]
    if len(models) > 1 and not strategy.any_architecture:
        raise ConfigError(
            f"strategy {config['strategy']['name']} averages weights, so all clients need one "
            "architecture; empty architectures.models, or choose a strategy that exchanges "
            "something else"
        )
    groups = []
    # one feature space for all: who exchanges features needs one width, so it is said once
    width = {k: v for k, v in config["model"].items() if k == "feature_dim" and v is not None}
    for entry in models:
        name = entry["name"] if isinstance(entry, Mapping) else entry
        rest = {**width, **(entry if isinstance(entry, Mapping) else {})}
        rest.pop("name", None)
        groups.append(Group(client, name, rest))
    return tuple(groups)


def build_federation(config: Settings, source: DataSource) -> Federation:
    """Deal the training set as configured."""
    partition = dict(config["partition"])
    labels = dict(config["labels"])
    reuse, per_client = partition.pop("reuse"), partition.pop("samples_per_client")
    shards = dict(config["test_shards"])
    if not shards["share"] and evaluates_clients(config, clients.build(config["client"])):
        # whoever tests clients wants test samples for them: of their domain, or of their classes
        by = "classes" if source.test.domain is None else "domain"
        shards = {"share": 1.0, "by": by}
    layers = Layers(
        long_tail=LongTail(**config["long_tail"]),
        keep=partition.pop("keep"),
        noise=LabelNoise(**config["label_noise"]),
        test_shards=TestShards(**shards),
        groups=ModelGroups(
            count=1 + len(config["architectures"]["models"]),
            assign=config["architectures"]["assign"],
        ),
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


def evaluates_clients(config: Settings, client: Client) -> bool:
    """Return whether clients test models of their own: if asked to, or if they have some."""
    wanted = config["evaluate_clients"]
    return client.personal if wanted is None else bool(wanted)


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
        execution=execution_of(settings),
        stack_size=settings["stack_size"],
        threads=settings["threads"],
        dtype=config["precision"],
        profile=profile_of(config) is not None,
        device=settings["device"],
        tf32=settings["tf32"],
        lanes=settings["lanes"],
    )
    states = StateStore(folder.state, committed)
    if settings["name"] == "serial":
        return SerialBackend(spec, states, settings["block_size"])
    if settings["name"] == "processes":
        return ProcessBackend(spec, states, settings["block_size"], settings["num_workers"])
    from fedlabels.simulation.ray_backend import RayBackend, RaySettings

    chosen = RaySettings(
        settings["num_workers"], settings["gpus_per_worker"], settings["address"],
        settings["num_gpus"],
    )  # fmt: skip
    return RayBackend(spec, states, settings["block_size"], chosen)
