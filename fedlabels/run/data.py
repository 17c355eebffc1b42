"""From settings to data: read, shifted and dealt. A device that holds a partition needs it, too."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedlabels import clients
from fedlabels.cohort import Client
from fedlabels.data import ArrayDataset, DataSource, load
from fedlabels.data.content import content_hash
from fedlabels.data.ground import views_for
from fedlabels.data.layout import described
from fedlabels.data.shift import Shift, shift_clients, shift_domains
from fedlabels.errors import ConfigError, DataError, named_below
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
from fedlabels.federation.index_files import content_sha256
from fedlabels.federation.suspicion import wanted_labels
from fedlabels.run.start import weights_sha256
from fedlabels.settings.hashing import FILES

Settings = Mapping[str, Any]


def read_data(config: Settings) -> DataSource:
    """Read the data as they are, before any shift.

    Raises
    ------
    FedLabelsError
        If a setting is unknown or data are missing.
    """
    dataset = config["dataset"]
    return load(dataset["name"], root=dataset["root"], **dataset["options"])


def read_content(config: Settings) -> str:
    """Return the hash of the content of what :func:`read_data` reads."""
    return content_hash(read_data(config))


def sample_of(dataset: ArrayDataset) -> str:
    """Say how the shape of a sample was understood, and what was cut or left out to get there."""
    shape = described(dataset.shape, pixels=dataset.x.dtype == np.uint8)
    return f"{shape}; {dataset.reading}" if dataset.reading else shape


def input_of(dataset: ArrayDataset) -> dict[str, Any]:
    """Return shape and type of a raw sample, and the constants that normalize it."""
    return {
        "shape": list(dataset.shape),
        "dtype": str(dataset.x.dtype),
        "mean": list(dataset.mean),
        "std": list(dataset.std),
    }


def views_of(config: Settings, source: DataSource) -> dict[str, Any]:
    """Return the options of the views with the ground of the data; refuse views that do not fit.

    Parameters
    ----------
    source : DataSource
        As :func:`read_data` gives it.
    """
    dataset = config["dataset"]
    options = dataset["view_options"]
    with named_below("dataset.view_options", options):
        return views_for(dataset["views"], options, source.train)


class Dealt(NamedTuple):
    """The data of a run, and who holds what of them.

    Parameters
    ----------
    source : DataSource
        Shifted, where the settings say so.
    federation : Federation
        Of as many clients as are dealt samples here.
    view_options : dict
        Of the views, see :func:`views_of`.
    """

    source: DataSource
    federation: Federation
    view_options: dict[str, Any]


def dealt_data(config: Settings) -> Dealt:
    """Read and shift the data of a simulation, and deal them.

    Raises
    ------
    FedLabelsError
        If a setting is unknown or out of range, or data are missing.
    """
    plain = read_data(config)
    view_options = views_of(config, plain)
    return Dealt(*build_data(config, plain), view_options)


def build_data(
    config: Settings, source: DataSource | None = None, *, rendered: bool = True
) -> tuple[DataSource, Federation]:
    """Read and shift the data, and deal them.

    Parameters
    ----------
    source : DataSource or None
        What :func:`read_data` gave; None reads it.
    rendered : bool
        False leaves the pixels as they are: quick, for a look at who holds what.

    Raises
    ------
    FedLabelsError
        If a setting is unknown or out of range, or data are missing.
    """
    shift = Shift(**config["shift"])
    source = read_data(config) if source is None else source
    content = content_hash(source) if rendered else ""
    source = shift_domains(source, shift, config["seed"], rendered=rendered)
    federation = build_federation(config, source)
    owner = _single_owner(federation, shift)
    if not rendered:
        return source, federation
    source = shift_clients(source, shift, owner, len(federation), config["seed"])
    return replace(source, content=content), federation


def contents_of(config: Settings, dataset: str, start: str | None = None) -> dict[str, str]:
    """Return hashes of the content of all that settings name by a path.

    Parameters
    ----------
    config : mapping
        Resolved settings.
    dataset : str
        Hash of the data set; empty where it is not known.
    start : str or None
        Hash of what ``model.start`` names, where it is known; None reads it.

    Returns
    -------
    dict of str to str
        ``dataset`` and the keys of files that are set -> SHA-256.

    Raises
    ------
    DataError
        If a file cannot be read.
    """
    found = {"dataset": dataset} if dataset else {}
    for key in FILES:
        group, _, name = key.partition(".")
        path = config[group].get(name)
        if path is not None:
            try:
                is_start = key == "model.start"
                found[key] = (
                    (start or weights_sha256(path)) if is_start else content_sha256(Path(path))
                )
            except OSError as error:
                raise DataError(f"{key}={path} cannot be read ({error})") from error
    return found


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


def build_federation(config: Settings, source: DataSource) -> Federation:
    """Deal the training set as configured."""
    partition = dict(config["partition"])
    labels = dict(config["labels"])
    reuse, per_client = partition.pop("reuse"), partition.pop("samples_per_client")
    shards = dict(config["test_shards"])
    by = "classes"
    client = clients.build(clients.settings_of(config))
    if not shards["share"] and evaluates_clients(config, client):
        # whoever tests clients wants test samples for them: of their domain, or of their classes
        by = "classes" if source.test.domain is None else "domain"
        shards = {"share": 1.0, "by": None}
    if shards["by"] is None:
        by_owner = partition["name"] == "natural" and source.test.owner is not None
        shards["by"] = "owner" if by_owner else by
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
    federation = build(
        samples_of(source.train),
        clients=config["clients"],
        partition=make(PARTITIONS, partition.pop("name"), partition, group="partition"),
        policy=make(POLICIES, labels.pop("name"), labels, group="labels"),
        seed=config["seed"],
        reuse=reuse,
        samples_per_client=per_client,
        layers=layers,
        test=samples_of(source.test),
    )
    wanted = wanted_labels(federation)
    if wanted and not client.sees_all_labels and not len(federation.labeled.index):
        raise ConfigError(
            f"labels.fraction={config['labels']['fraction']:g} leaves no label: a share is cut "
            "down to whole samples on every client, and none of "
            f"{config['clients']:,} holds enough for one; give labels.total={wanted}, which is "
            "exact, or a larger share"
        )
    return federation


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
        dataset.given,
    )
