"""What a run writes of its model with the weights, so that they can be used without it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fedlabels import __version__
from fedlabels.data import ArrayDataset
from fedlabels.machine.files import write_atomic
from fedlabels.machine.tensors import tensors_sha256
from fedlabels.models.description import FILE, HEADER, Architecture, Description, Samples
from fedlabels.rounds.job import Arrays
from fedlabels.run.folder import RunFolder
from fedlabels.run.folder.checkpoint import write_model
from fedlabels.run.world import World

Settings = Mapping[str, Any]


def describe(config: Settings, world: World) -> Description:
    """Describe the model of a run, before its first round.

    Parameters
    ----------
    config : mapping
        Resolved settings.
    world : World
        Data, population, client, strategy.
    """
    train, groups = world.source.train, world.population.groups
    return Description(
        architectures=tuple(Architecture(g.model, dict(g.settings)) for g in groups),
        samples=samples_of(train, config["dataset"]["options"]),
        class_names=train.class_names,
        client=config["client"]["name"],
        strategy=config["strategy"]["name"],
        round=0,
        sha256="",
        has_model=world.strategy.has_model,
        private=tuple(sorted(world.client.private(world.layout))),
        precision=config["precision"],
        version=__version__,
    )


def samples_of(dataset: ArrayDataset, options: Settings) -> Samples:
    """Describe raw samples of a data set that was read with some options."""
    pixels = dataset.x.dtype == np.uint8
    bounds = (0.0, 255.0) if pixels else None
    if not pixels and len(dataset):
        bounds = float(dataset.x.min()), float(dataset.x.max())
    return Samples(
        dataset.shape, pixels, dataset.mean, dataset.std, bounds,
        options.get("layout"), options.get("size"),
    )  # fmt: skip


def at_round(description: Description, index: int, arrays: Arrays) -> Description:
    """Return the description of the weights after a round."""
    return replace(description, round=index, sha256=tensors_sha256(arrays))


def header_of(description: Description) -> dict[str, str]:
    """Return what the header of a file of weights says of them."""
    return {HEADER: description.dumps()}


def write_described(folder: RunFolder, arrays: Arrays, description: Description) -> None:
    """Write a run's newest model, and what it takes to use it: in its header, and beside it.

    Parameters
    ----------
    folder : RunFolder
        Of the run.
    arrays : dict of str to ndarray
        The global model, or what the server has in its place.
    description : Description
        Of these arrays.
    """
    write_model(folder.model, arrays, header_of(description))
    write_atomic(folder.path / FILE, description.dumps())
