"""From a training set and settings to a federation."""

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from fedlabels.errors import ConfigError, named_below
from fedlabels.federation.federation import Federation
from fedlabels.federation.labels import POLICIES, LabelPolicy, Mask
from fedlabels.federation.layers import LabelNoise, LongTail, ModelGroups, TestShards, thin_out
from fedlabels.federation.partition import PARTITIONS, Partition
from fedlabels.federation.ragged import Indices, Ragged
from fedlabels.federation.registry import check_count, check_range, name_of
from fedlabels.federation.samples import Samples
from fedlabels.seeds import generator


@dataclass(frozen=True, kw_only=True)
class Layers:
    """What lies over a partition and a label policy; each is off by default.

    Parameters
    ----------
    long_tail : LongTail
        Thins out the classes of the training set before it is dealt.
    keep : float
        Share of every client's samples of each class that is kept, in (0, 1]. A smaller share is a
        part of a larger one; a class that a client holds keeps at least one sample.
    noise : LabelNoise
        Turns some of the clients' labels wrong.
    test_shards : TestShards
        Gives every client a test set with the class mix of its training samples.
    groups : ModelGroups
        Says which client has which architecture.
    """

    long_tail: LongTail = field(default_factory=LongTail)
    keep: float = 1.0
    noise: LabelNoise = field(default_factory=LabelNoise)
    test_shards: TestShards = field(default_factory=TestShards)
    groups: ModelGroups = field(default_factory=ModelGroups)

    def __post_init__(self) -> None:
        check_range("partition.keep", self.keep, 0.0, 1.0)
        if not self.keep:
            raise ConfigError("partition.keep must be above 0: a share of the samples, up to 1")


def build(
    samples: Samples,
    *,
    clients: int,
    partition: Partition,
    policy: LabelPolicy,
    seed: int,
    reuse: bool = False,
    samples_per_client: int | None = None,
    layers: Layers | None = None,
    test: Samples | None = None,
) -> Federation:
    """Deal a training set to clients and choose the labeled samples.

    Parameters
    ----------
    samples : Samples
        The training set, N samples; those whose label is -1 are unlabeled wherever they land.
    clients : int
        Number of clients, >= 1.
    partition, policy : Partition, LabelPolicy
        Who gets which sample, and which of them are labeled.
    seed : int
        The run's seed, >= 0.
    reuse : bool
        Make artificial users: the clients draw ``samples_per_client`` samples each out of a pool in
        which the training set is repeated as often as needed, so that a sample has many owners.
        Counted over all clients, no sample is used twice before all others are used once.
    samples_per_client : int or None
        Mean size of a shard under ``reuse``, >= 1; None is ``max(min_size, N // clients)``.
    layers : Layers or None
        Long tail, label noise and so on; None is none of them.
    test : Samples or None
        The test set, for ``layers.test_shards``.

    Returns
    -------
    Federation
        The same for the same arguments, on every machine.

    Raises
    ------
    ConfigError
        If there are more clients than samples without ``reuse``, or a setting is not allowed.
    """
    layers = layers or Layers()
    _check_request(samples, clients, seed, reuse, samples_per_client)
    pool = layers.long_tail.keep(samples, generator(seed, "long_tail"))
    _check_enough(len(pool), clients, reuse)
    if reuse and partition.as_it_lies:
        raise ConfigError(
            f"partition.reuse=true makes artificial users, but partition="
            f"{name_of(PARTITIONS, partition)} says who holds what; leave it"
        )
    if reuse:
        size = samples_per_client or max(partition.min_size, len(pool) // clients, 1)
        pool = _repeat(pool, clients * size, seed)
    with named_below("partition", {entry.name for entry in fields(partition)}):
        if partition.as_it_lies:
            shards = partition.deal(samples, clients=clients, seed=seed)
            names = partition.names_of(shards, samples)
            shards = shards.keep(np.isin(shards.index, pool))
        else:
            dealt = partition.deal(samples.take(pool), clients=clients, seed=seed)
            shards = Ragged(pool[dealt.index], dealt.offsets)
            names = partition.names_of(shards, samples)
    shards = thin_out(shards, samples, layers.keep, generator(seed, "keep"))
    labeled, unlabeled, server = _label(shards, samples, policy, seed, reuse)
    return Federation(
        labeled,
        unlabeled,
        samples.labels,
        samples.num_classes,
        _settings(samples, clients, seed, reuse, samples_per_client, partition, policy, layers),
        layers.noise.apply(labeled, samples, generator(seed, "label_noise")),
        server,
        layers.test_shards.draw(shards, samples, test, generator(seed, "test_shards")),
        layers.groups.assign_groups(clients, generator(seed, "groups")),
        names,
    )


def _settings(
    samples: Samples,
    clients: int,
    seed: int,
    reuse: bool,
    samples_per_client: int | None,
    partition: Partition,
    policy: LabelPolicy,
    layers: Layers,
) -> dict[str, Any]:
    settings = {
        "samples": len(samples),
        "clients": clients,
        "seed": seed,
        "reuse": reuse,
        "samples_per_client": samples_per_client,
        "partition": {"name": name_of(PARTITIONS, partition), **asdict(partition)},
        "labels": {"name": name_of(POLICIES, policy), **asdict(policy)},
        "layers": asdict(layers),
    }
    as_in_a_file: dict[str, Any] = json.loads(json.dumps(settings))
    return as_in_a_file


def _check_request(
    samples: Samples, clients: int, seed: int, reuse: bool, samples_per_client: int | None
) -> None:
    check_count("clients", clients, low=1)
    check_count("num_classes", samples.num_classes, low=2)
    check_count("seed", seed)
    if samples_per_client is not None:
        check_count("samples_per_client", samples_per_client, low=1)
        if not reuse:
            raise ConfigError(
                "samples_per_client is for artificial users; set partition.reuse=true or leave it"
            )
    if not len(samples):
        raise ConfigError("the training set is empty; there is nothing to deal")


def _check_enough(samples: int, clients: int, reuse: bool) -> None:
    if clients > samples and not reuse:
        raise ConfigError(
            f"{clients} clients but only {samples} samples; lower clients, or set "
            "partition.reuse=true to let clients share samples"
        )


def _repeat(pool: Indices, total: int, seed: int) -> Indices:
    """Repeat the training set, shuffled anew each time, up to a total."""
    random = generator(seed, "reuse")
    rounds = [random.permutation(pool) for _ in range(-(-total // len(pool)))]
    return np.concatenate(rounds)[:total]


def _label(
    shards: Ragged, samples: Samples, policy: LabelPolicy, seed: int, reuse: bool
) -> tuple[Ragged, Ragged, Indices]:
    known = samples.visible[shards.index] >= 0
    visible = shards if known.all() else shards.keep(known)
    masks = policy.masks(visible, samples, random=generator(seed, "labels"))
    labeled, unlabeled = np.zeros(len(known), dtype=bool), ~known
    labeled[known] = masks.labeled
    unlabeled[known] = masks.unlabeled
    server = np.unique(visible.index[masks.server])
    if len(server):  # under reuse other clients may hold copies
        elsewhere = np.isin(shards.index, server)
        labeled, unlabeled = labeled & ~elsewhere, unlabeled & ~elsewhere
    if reuse and not policy.unlabeled_includes_labeled:
        _drop_copies(shards, len(samples), labeled, unlabeled)
    return _ascending(shards.keep(labeled)), _ascending(shards.keep(unlabeled)), server


def _drop_copies(shards: Ragged, samples: int, labeled: Mask, unlabeled: Mask) -> None:
    """Under reuse a client may hold a sample twice: take the copies of labeled ones out."""
    key = shards.owners * samples + shards.index
    ordered = np.sort(key)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    concerned = np.zeros(len(shards), dtype=bool)
    concerned[twice // samples] = True
    alone = np.flatnonzero(np.repeat(concerned, shards.sizes) & unlabeled & ~labeled)
    copies = np.isin(key[alone], key[labeled & np.repeat(concerned, shards.sizes)])
    unlabeled[alone[copies]] = False


def _ascending(shards: Ragged) -> Ragged:
    bound = int(shards.index.max(initial=0)) + 1
    return Ragged(np.sort(shards.owners * bound + shards.index) % bound, shards.offsets)
