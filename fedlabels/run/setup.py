"""From settings to objects: data, federation, population, backend, strategy."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

from torch.nn import Module

from fedlabels import clients, plugins, strategies
from fedlabels.cohort import Client, DataSpec, Layout
from fedlabels.cohort.net import build_seeded
from fedlabels.errors import ConfigError, unknown
from fedlabels.machine.blas import one_blas_thread
from fedlabels.models import MODELS
from fedlabels.models import build as build_model
from fedlabels.models.base import Classifier
from fedlabels.rounds.job import Arrays
from fedlabels.run.agreement import check_agreement
from fedlabels.run.callbacks.profile import profile_of
from fedlabels.run.data import Dealt, dealt_data
from fedlabels.run.folder import RunFolder
from fedlabels.run.kernels import check_portable
from fedlabels.run.placement import execution_of
from fedlabels.run.world import World
from fedlabels.simulation.backend import SimulationBackend
from fedlabels.simulation.process_backend import ProcessBackend
from fedlabels.simulation.serial import SerialBackend
from fedlabels.strategies.base import ServerStrategy
from fedlabels.worker.population import Group, Population
from fedlabels.worker.state import StateStore, Version
from fedlabels.worker.worker import WorkerSpec

Settings = Mapping[str, Any]


@one_blas_thread()
def build_world(config: Settings, deal: Callable[[Settings], Dealt] = dealt_data) -> World:
    """Build everything that does not need a worker.

    Parameters
    ----------
    config : mapping
        Resolved settings.
    deal : callable
        Gives the data and who holds what; the default deals them to simulated clients.

    Raises
    ------
    FedLabelsError
        If a setting is unknown or out of range, or data are missing.
    """
    plugins.activate(config.get(plugins.KEY))
    client = clients.build(clients.settings_of(config))
    rest = {k: v for k, v in config["strategy"].items() if k != "name"}
    strategy = strategies.build(config["strategy"]["name"], rest)
    source, federation, view_options = deal(config)
    population = Population(_groups(config, client, strategy), federation.groups)
    groups = population.groups if strategy.same_features else population.groups[:1]
    spec = DataSpec(source.train.shape, source.train.num_classes)
    built = build_seeded(
        lambda: {str(k): _built(k, group, spec) for k, group in enumerate(groups)},
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
    world = World(
        source, federation, population, client, strategy, Layout(models[0]), widths[0], view_options
    )
    check_agreement(config, world, _first_arrays(models[0]))
    return world


def _built(number: int, group: Group, spec: DataSpec) -> Classifier:
    """Build the model of a group; errors of the further ones name architectures."""
    try:
        return build_model(group.model, spec, **group.settings)
    except ConfigError as error:
        if not number:
            raise
        raise ConfigError(f"architectures.models[{number - 1}]: {error}") from error


def _first_arrays(model: Module) -> Arrays:
    """Return a fresh model's tensors by name."""
    return {name: value.detach().numpy() for name, value in model.state_dict().items()}


def _groups(config: Settings, client: Client, strategy: ServerStrategy) -> tuple[Group, ...]:
    """Return one group a model: ``model`` and those of ``architectures.models``."""
    model = {key: value for key, value in config["model"].items() if key != "start"}
    models = [model, *config["architectures"]["models"]]
    if len(models) > 1 and not strategy.any_architecture:
        raise ConfigError(
            f"strategy {config['strategy']['name']} averages weights, so all clients need one "
            "architecture; empty architectures.models, or choose a strategy that exchanges "
            "something else"
        )
    groups = list[Group]()
    # one feature space for all: who exchanges features needs one width, so it is said once
    width = {k: v for k, v in config["model"].items() if k == "feature_dim" and v is not None}
    for entry in models:
        name = entry["name"] if isinstance(entry, Mapping) else entry
        rest = {**width, **(entry if isinstance(entry, Mapping) else {})}
        rest.pop("name", None)
        if groups and name not in MODELS:
            raise unknown(name, sorted(MODELS), "architectures.models")
        groups.append(Group(client, name, rest))
    return tuple(groups)


def build_backend(
    config: Settings,
    world: World,
    folder: RunFolder,
    committed: int,
    versions: Mapping[int, Version] | None = None,
) -> SimulationBackend:
    """Start workers.

    Parameters
    ----------
    committed : int
        Last round whose client states count.
    versions : mapping of int to Version or None
        Those states, as the round's checkpoint has them; None takes what is there.
    """
    settings = config["backend"]
    check_portable(settings)
    spec = replace(
        _server_spec(config, world),
        execution=execution_of(settings),
        stack_size=settings["stack_size"],
        profile=profile_of(config) is not None,
        tf32=settings["tf32"],
        lanes=settings["lanes"],
        mods=tuple(config["deploy"]["mods"]),
    )
    states = StateStore(folder.state, committed, versions)
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


def build_server_backend(
    config: Settings, world: World, folder: RunFolder, committed: int
) -> SimulationBackend:
    """Start what makes the first model and tests on the server, where clients are devices.

    Parameters
    ----------
    committed : int
        Last round that is done.
    """
    return SerialBackend(
        _server_spec(config, world), StateStore(folder.state / "server", committed)
    )


def _server_spec(config: Settings, world: World) -> WorkerSpec:
    """Return what every worker of a run holds, simulating clients or not."""
    return WorkerSpec(
        train=world.source.train,
        test=world.source.test,
        federation=world.federation,
        population=world.population,
        views=config["dataset"]["views"],
        view_options=world.view_options,
        seed=config["seed"],
        threads=config["backend"]["threads"],
        dtype=config["precision"],
        device=config["backend"]["device"],
        plugins=plugins.used(type(world.client)),
        start=None if world.start is None else world.start.arrays,
    )
