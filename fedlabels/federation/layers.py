"""What lies over every partition and label policy: long tail, label noise, test shards, groups."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedlabels.errors import ConfigError
from fedlabels.federation.cutting import draw_class_order
from fedlabels.federation.ragged import Indices, Ragged, stable_order
from fedlabels.federation.registry import check_choice, check_count, check_positive, check_range
from fedlabels.federation.remainders import largest_remainders
from fedlabels.federation.samples import Samples


@dataclass(frozen=True, kw_only=True)
class LongTail:
    """Thins out classes so that their sizes fall geometrically.

    Parameters
    ----------
    factor : float
        Size of the smallest class over that of the largest, in (0, 1]; 1 keeps all samples. Papers
        often give the inverse: an imbalance factor of 100 is 0.01 here.
    order : {"natural", "permuted"}
        Which class is large: the first ones, as in the literature, or drawn by the seed, so that
        what is hard about a class is not confounded with its size.

    Notes
    -----
    See :func:`long_tail_counts`; the largest class of the training set sets n_max. Samples of
    unknown class stay.
    """

    factor: float = 1.0
    order: Literal["natural", "permuted"] = "natural"

    def __post_init__(self) -> None:
        check_range("long_tail.factor", self.factor, 0.0, 1.0)
        if not self.factor:
            raise ConfigError("long_tail.factor must be above 0: smallest over largest class")
        check_choice("long_tail.order", self.order, ("natural", "permuted"))

    def keep(self, samples: Samples, random: np.random.Generator) -> Indices:
        """Return the positions of the samples that stay, ascending."""
        if self.factor == 1:
            return np.arange(len(samples))
        held = draw_class_order(samples.labels, samples.num_classes, random)
        counts = long_tail_counts(
            max(len(part) for part in held[:-1]), samples.num_classes, self.factor
        )
        if self.order == "permuted":
            counts = random.permutation(counts)
        parts = [part[:n] for part, n in zip(held[:-1], counts, strict=True)]
        return np.sort(np.concatenate([*parts, held[-1]]))


def long_tail_counts(n_max: int, num_classes: int, factor: float) -> Indices:
    """Return class sizes of a long tail.

    Parameters
    ----------
    n_max : int
        Largest class.
    num_classes : int
        Number of classes C.
    factor : float
        Smallest over largest class, in (0, 1].

    Returns
    -------
    ndarray of int64, shape (C,)
        ``int(n_max * factor ** (c / (C - 1)))`` (Cao et al., LDAM, arXiv 1906.07413).

    Examples
    --------
    >>> long_tail_counts(100, 3, 0.01).tolist()
    [100, 10, 1]
    """
    powers = [n_max * factor ** (c / (num_classes - 1.0)) for c in range(num_classes)]
    return np.array([int(value) for value in powers], dtype=np.int64)


def thin_out(shards: Ragged, samples: Samples, keep: float, random: np.random.Generator) -> Ragged:
    """Keep a share of every client's samples of each class.

    Parameters
    ----------
    shards : Ragged
        Samples of every client.
    samples : Samples
        The training set.
    keep : float
        Share in (0, 1]; what a smaller share keeps is a part of what a larger one keeps.
    random : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    Ragged
        Shards; of n samples of a class ``ceil(keep * n)`` stay.
    """
    if keep == 1:
        return shards
    classes = samples.num_classes + 1
    cell = shards.owners * classes + samples.labels[shards.index] % classes
    shuffled = random.permutation(len(cell))
    order = shuffled[stable_order(cell[shuffled], len(shards) * classes)]
    sizes = np.bincount(cell, minlength=len(shards) * classes)
    place = np.arange(len(cell)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    stay = np.zeros(len(cell), dtype=bool)
    stay[order] = place < np.repeat(np.ceil(keep * sizes - 1e-9), sizes)
    return shards.keep(stay)


@dataclass(frozen=True, kw_only=True)
class LabelNoise:
    """Turns labels of the clients wrong; the hidden truth stays.

    Parameters
    ----------
    kind : {"none", "symmetric", "pair"}
        A wrong label is any other class, or the next one (Han et al., Co-teaching, arXiv
        1804.06872).
    rate : float
        Mean share of wrong labels, in [0, 1].
    concentration : float or None
        Each client's rate is drawn from a Beta distribution with mean ``rate`` and this a + b, > 0.
        None gives every client the same rate.
    """

    kind: Literal["none", "symmetric", "pair"] = "none"
    rate: float = 0.0
    concentration: float | None = None

    def __post_init__(self) -> None:
        check_choice("label_noise.kind", self.kind, ("none", "symmetric", "pair"))
        check_range("label_noise.rate", self.rate, 0.0, 1.0)
        if self.concentration is not None:
            check_positive("label_noise.concentration", self.concentration)
        if self.kind == "none" and self.rate:
            raise ConfigError(
                f"label_noise.rate={self.rate} without a kind; set label_noise.kind to symmetric "
                "or pair"
            )

    def apply(self, labeled: Ragged, samples: Samples, random: np.random.Generator) -> Indices:
        """Return the labels as the clients see them, along ``labeled.index``.

        Raises
        ------
        ConfigError
            If labels are to be turned wrong where the data set has given labels already.
        """
        if samples.given is not None:
            if self.rate:
                given = samples.given >= 0
                count = int((samples.given != samples.labels)[given].sum())
                raise ConfigError(
                    f"label_noise.rate={self.rate}, but the data set has given labels beside the "
                    f"true ones, {count:,} of them wrong: set label_noise.rate=0, or read the data "
                    "without given labels"
                )
            return samples.given[labeled.index]
        truth = samples.labels[labeled.index]
        rates = np.repeat(self._rates(len(labeled), random), labeled.sizes)
        wrong = random.random(len(truth)) < rates
        shift = np.ones(len(truth), dtype=np.int64)
        if self.kind == "symmetric":
            shift = random.integers(1, samples.num_classes, size=len(truth))
        return np.where(wrong, (truth + shift) % samples.num_classes, truth)

    def _rates(self, clients: int, random: np.random.Generator) -> NDArray[np.float64]:
        if self.concentration is None or self.rate in (0.0, 1.0):
            return np.full(clients, self.rate)
        first = self.rate * self.concentration
        return random.beta(first, self.concentration - first, size=clients)


@dataclass(frozen=True, kw_only=True)
class TestShards:
    """Gives each client test samples of its own; those whose class nobody knows go to none.

    Parameters
    ----------
    share : float
        Size of all test shards together over that of the test set, >= 0; 0 is none. With
        ``int(share * T)`` of T test samples client k has a part like its part of the training
        samples, with their class mix, to the nearest whole numbers, or all there are; see
        :func:`mirrored_counts`. Shards of different clients may overlap.
    by : {"classes", "domain", "owner", "all"}
        ``"classes"`` is the rule above. ``"domain"`` gives each client all test samples of the
        domain that most of its training samples are of, whatever their class, if share is not 0;
        ``"owner"`` all of the person (writer, device) that most of them are of.
        ``"all"`` draws for each of N clients ``share / N`` of the test set, at most all of it,
        whatever its training samples are: only so can it be tested on classes that it lacks.
    """

    __test__ = False  # not a test class, whatever pytest makes of its name

    share: float = 0.0
    by: str = "classes"

    def __post_init__(self) -> None:
        check_range("test_shards.share", self.share, 0.0, 1e6)
        check_choice("test_shards.by", self.by, ("classes", "domain", "owner", "all"))

    def draw(
        self, shards: Ragged, samples: Samples, test: Samples | None, random: np.random.Generator
    ) -> Ragged:
        """Return indices into the test set, ascending for each client, of known class only."""
        if not self.share:
            return Ragged(np.zeros(0, dtype=np.int64), np.zeros(len(shards) + 1, dtype=np.int64))
        if test is None or not len(test):
            raise ConfigError("test_shards.share needs a test set; set it to 0")
        known = np.flatnonzero(test.labels >= 0)
        dealt = self._deal(shards, samples, test.take(known), random)
        return Ragged(known[dealt.index], dealt.offsets)

    def _deal(
        self, shards: Ragged, samples: Samples, test: Samples, random: np.random.Generator
    ) -> Ragged:
        if self.by == "domain":
            return _of_domain(shards, samples, test)
        if self.by == "owner":
            return _of_owner(shards, samples, test)
        if self.by == "all":
            return _of_all(len(shards), self.share, len(test), random)
        counts = mirrored_counts(
            _class_counts(shards, samples), int(self.share * len(test)), _held(test)
        )
        parts = draw_class_order(test.labels, test.num_classes, random)[:-1]
        clients = np.arange(len(shards))
        index, owner = [], []
        for c, part in enumerate(parts):
            if not len(part):
                continue
            # Each client reads the shuffled class from a place of its own, round and round.
            start = np.repeat(random.integers(0, len(part), size=len(shards)), counts[:, c])
            ends = np.cumsum(counts[:, c])
            step = np.arange(ends[-1]) - np.repeat(ends - counts[:, c], counts[:, c])
            index.append(part[(start + step) % len(part)])
            owner.append(np.repeat(clients, counts[:, c]))
        none = np.zeros(0, dtype=np.int64)
        joined, owners = np.concatenate([none, *index]), np.concatenate([none, *owner])
        order = np.lexsort((joined, owners))
        sizes = np.bincount(owners, minlength=len(shards))
        return Ragged(joined[order], np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))


def _of_all(clients: int, share: float, total: int, random: np.random.Generator) -> Ragged:
    """Draw for each client without replacement; their numbers differ by one at most."""
    sizes = np.minimum(
        total, largest_remainders(np.ones(clients, dtype=np.int64), int(share * total))
    )
    parts = [np.sort(random.permutation(total)[:size]) for size in sizes.tolist()]
    return Ragged.from_lists(parts)


def _of_domain(shards: Ragged, samples: Samples, test: Samples) -> Ragged:
    if samples.domain is None or test.domain is None:
        raise ConfigError(
            "test_shards.by=domain needs data with domains (shift.preset=sfs4, dataset=icons); "
            "use test_shards.by=classes"
        )
    return _of_origin(shards, samples.domain, test.domain, len(samples.domain_names))


def _of_owner(shards: Ragged, samples: Samples, test: Samples) -> Ragged:
    if samples.owner is None or test.owner is None:
        raise ConfigError(
            "test_shards.by=owner needs data that say whose the training and the test samples are "
            "(dataset=watch, or client in both splits); use test_shards.by=classes"
        )
    number = {name: place for place, name in enumerate(samples.owner_names)}
    if number.keys().isdisjoint(test.owner_names):
        raise ConfigError(
            "no test sample is of anybody who has training samples: the clients of the training "
            f"set are called {_some(samples.owner_names)}, those of the test set "
            f"{_some(test.owner_names)}. Call the same people alike in both, or, where the test "
            "is of other people, deal their samples by another rule: test_shards.share=1 "
            "test_shards.by=classes (domain, all)"
        )
    names = [number.get(name, -1) for name in test.owner_names]  # -1: nobody here trains as them
    owners = np.array([*names, -1], dtype=np.int64)[test.owner]
    return _of_origin(shards, samples.owner, owners, len(samples.owner_names))


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (" ..." if len(names) > 3 else "") or "nothing"


def _of_origin(shards: Ragged, train: Indices, test: Indices, count: int) -> Ragged:
    """Give each client the test samples of its most frequent origin, the first one on ties."""
    cells, held = np.unique(shards.owners * count + train[shards.index], return_counts=True)
    client, origin = np.divmod(cells, max(count, 1))
    order = np.lexsort((origin, -held, client))
    client, origin = client[order], origin[order]
    first = np.flatnonzero(np.diff(client, prepend=-1))
    own = Ragged.from_owners(test, count)
    parts = [np.zeros(0, dtype=np.int64)] * len(shards)
    for k, number in zip(client[first].tolist(), origin[first].tolist(), strict=True):
        parts[k] = own[number]
    return Ragged.from_lists(parts)


def mirrored_counts(train: Indices, total: int, available: Indices) -> Indices:
    """Return test samples per client and class that mirror the training samples.

    Parameters
    ----------
    train : ndarray of int64, shape (K, C)
        Training samples n_kc, N in all.
    total : int
        Test samples T of all clients together.
    available : ndarray of int64, shape (C,)
        Test samples of each class.

    Returns
    -------
    ndarray of int64, shape (K, C)
        Clients share T by their sizes, and each shares its part out over its classes, both by
        largest remainders: whoever is next to a further sample gets it, the first client on ties,
        among a client's classes the one that was given least so far. What a client cannot take for
        want of test samples others get. A cell is at most one above ``floor(n_kc / N * T)``, the
        rule of FedLoGe's code, and never above ``available_c``; where that leaves room enough the
        sum is T.
    """
    counts = floored_counts(train, total, available)
    if not train.any():
        return counts
    floors = counts.copy()
    every = int(train.sum())
    due = largest_remainders(train.sum(axis=1), total) - counts.sum(axis=1)
    surplus = np.zeros(train.shape[1], dtype=np.int64)  # above what is due to a class, times N
    for k in np.flatnonzero(train.any(axis=1)).tolist():
        exact = train[k] * total
        able = np.flatnonzero((train[k] > 0) & (counts[k] < available))
        rest = exact[able] - counts[k][able] * every
        order = able[np.lexsort((surplus[able], -rest))]
        counts[k, order[: int(due[k])]] += 1
        surplus += counts[k] * every - exact
    cells = np.flatnonzero((train > 0) & (counts == floors) & (counts < available))
    rest = (train * total - counts * every).reshape(-1)[cells]
    lost = max(total - int(counts.sum()), 0)
    counts.reshape(-1)[cells[np.argsort(-rest, kind="stable")[:lost]]] += 1
    return counts


def floored_counts(train: Indices, total: int, available: Indices) -> Indices:
    """Return ``min(floor(n_kc / N * T), available_c)``; arguments as of :func:`mirrored_counts`."""
    counts: Indices = np.minimum(train * total // max(int(train.sum()), 1), available)
    return counts


def _class_counts(shards: Ragged, samples: Samples) -> Indices:
    classes = samples.labels[shards.index]
    known = classes >= 0
    cells = shards.owners[known] * samples.num_classes + classes[known]
    counts = np.bincount(cells, minlength=len(shards) * samples.num_classes)
    return counts.reshape(len(shards), samples.num_classes)


def _held(samples: Samples) -> Indices:
    return np.bincount(samples.labels[samples.labels >= 0], minlength=samples.num_classes)


@dataclass(frozen=True, kw_only=True)
class ModelGroups:
    """Says which client has which architecture.

    Parameters
    ----------
    count : int
        Number of groups, >= 1.
    assign : {"cyclic", "random"}
        Client k is in group k mod ``count``, or groups of the same sizes are drawn by the seed.
    """

    count: int = 1
    assign: Literal["cyclic", "random"] = "cyclic"

    def __post_init__(self) -> None:
        check_count("the number of model groups", self.count, low=1)
        check_choice("architectures.assign", self.assign, ("cyclic", "random"))

    def assign_groups(self, clients: int, random: np.random.Generator) -> Indices:
        """Return the group of every client, shape (clients,)."""
        groups = np.arange(clients) % self.count
        return groups if self.assign == "cyclic" else random.permutation(groups)
