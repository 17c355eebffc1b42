"""A few classes on every client, each class in equal parts: "pathological" label skew.

As in FedRep (Collins et al., ICML 2021, arXiv 2102.07078) and others, where the number of classes
of a client is given. Any two classes have the same number of holders, or one more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedlabels.errors import ConfigError
from fedlabels.federation.cutting import draw_class_order
from fedlabels.federation.partition import PARTITIONS, Partition
from fedlabels.federation.partitions.dealing import like_cards
from fedlabels.federation.ragged import Indices, Ragged, stable_order
from fedlabels.federation.registry import check_count, register
from fedlabels.federation.samples import Samples


@register(PARTITIONS, "classes_per_client")
@dataclass(frozen=True, kw_only=True)
class ClassesPerClient(Partition):
    """Give each client samples of exactly ``number`` classes.

    Parameters
    ----------
    number : int or list of lists of int
        Classes of each client, from 1 to the number of classes that have samples; over all clients
        there must be room for each of them. Each class is cut in equal parts over its holders. A
        class with fewer samples than holders leaves some of them without. Or the classes
        themselves, a list a client (``[[0,1,2],[2,7]]``): samples of classes that nobody holds stay
        unused, and none is moved to meet ``min_size``.

    Notes
    -----
    Samples of unknown class are dealt in equal parts. Where ``min_size`` takes samples of others,
    they are of any class.
    """

    number: int | Sequence[Sequence[int]]

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.number, str) or not isinstance(self.number, Sequence):
            check_count("number", self.number, low=1)
            return
        object.__setattr__(self, "number", tuple(map(_classes, self.number)))

    def owners(self, samples: Samples, *, clients: int, random: np.random.Generator) -> Indices:
        """Name the owner of every sample; see :class:`Partition`."""
        *known, unknown = draw_class_order(samples.labels, samples.num_classes, random)
        if isinstance(self.number, int):
            present = [part for part in known if len(part)]
            check_room(clients, self.number, len(present))
            drawn = draw_classes(clients, self.number, len(present), random)
            hands = Ragged(drawn.ravel(), np.arange(clients + 1) * self.number)
        else:
            hands = self._given(clients, np.array([len(part) for part in known]))
            present = [known[c] for c in np.unique(hands.index)]
        holders = group_by_class(hands, random)
        stock = np.array([len(part) for part in present])
        owners = np.full(len(samples), -1, dtype=np.int64)
        owners[np.concatenate(present)] = np.repeat(
            holders.index, self.pieces(stock, holders.sizes, random)
        )
        owners[unknown] = like_cards(len(unknown), clients, random)
        return owners

    def repair(
        self, owners: Indices, samples: Samples, *, clients: int, random: np.random.Generator
    ) -> Indices:
        """Move no sample where classes are given; see :class:`Partition`."""
        if isinstance(self.number, int):
            return super().repair(owners, samples, clients=clients, random=random)
        sizes = np.bincount(owners[owners >= 0], minlength=clients)
        small = np.flatnonzero(sizes < self.min_size)
        if len(small):
            raise ConfigError(
                f"client {small[0]} with the classes {list(self.number[small[0]])} gets "
                f"{sizes[small[0]]} samples, fewer than partition.min_size={self.min_size}; lower "
                "it, or give the classes to fewer clients"
            )
        return owners

    def _given(self, clients: int, stock: Indices) -> Ragged:
        """Check the classes that are given, and return those of each client."""
        assert not isinstance(self.number, int)  # whoever asks knows
        if len(self.number) != clients:
            raise ConfigError(
                f"partition.number lists the classes of {len(self.number)} clients, but clients="
                f"{clients}; give a list a client, or set clients={len(self.number)}"
            )
        for k, classes in enumerate(self.number):
            wrong = [c for c in classes if c >= len(stock) or not stock[c]]
            if wrong:
                raise ConfigError(
                    f"partition.number gives client {k} class {wrong[0]}, which has no samples; "
                    f"there are classes {', '.join(map(str, np.flatnonzero(stock)))}"
                )
        return Ragged.from_lists(self.number)

    def pieces(self, stock: Indices, holders: Indices, random: np.random.Generator) -> Indices:
        """Cut every class.

        Parameters
        ----------
        stock, holders : ndarray of int64, shape (C,)
            Samples and holders of each class, >= 1.
        random : numpy.random.Generator
            Source of the draws.

        Returns
        -------
        ndarray of int64, shape (holders.sum(),)
            Samples that each holder gets, class after class.
        """
        first = np.repeat(np.cumsum(holders) - holders, holders)
        place = np.arange(len(first)) - first
        total, parts = np.repeat(stock, holders), np.repeat(holders, holders)
        return total * (place + 1) // parts - total * place // parts


def _classes(classes: Sequence[int]) -> tuple[int, ...]:
    """Check the classes of one client as they are given."""
    if isinstance(classes, str) or not isinstance(classes, Sequence) or not len(classes):
        raise ConfigError(
            "number must be a whole number, or a list of classes for each client, each with one "
            f"class at least; got {classes!r} for a client"
        )
    for c in classes:
        check_count("number of a class in partition.number", c)
    if len(set(classes)) < len(classes):
        raise ConfigError(f"number gives a client a class twice: {list(classes)}")
    return tuple(classes)


def check_room(clients: int, number: int, classes: int) -> None:
    """Check that each client finds enough classes and each class a client.

    Parameters
    ----------
    clients, number, classes : int
        Clients, classes of each client, classes that have samples.

    Raises
    ------
    ConfigError
        If not.
    """
    if number > classes:
        raise ConfigError(
            f"number={number} classes per client, but {classes} classes have samples; lower number"
        )
    if clients * number < classes:
        raise ConfigError(
            f"{clients} clients with number={number} classes each have room for "
            f"{clients * number} of {classes} classes; raise number to at least "
            f"{-(-classes // clients)}, or clients"
        )


def draw_classes(clients: int, number: int, classes: int, random: np.random.Generator) -> Indices:
    """Draw the classes of every client.

    Parameters
    ----------
    clients : int
        Number of clients K.
    number : int
        Classes of each client, from 1 to ``classes``.
    classes : int
        Number of classes C.
    random : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    ndarray of int64, shape (K, number)
        Different classes in each row. Over all rows any two classes differ by one at most in how
        often they occur.

    Notes
    -----
    Shuffled decks of all classes lie one after the other and each client takes the next ``number``
    cards. Where a hand runs over the end of a deck, the next deck is shuffled so that it does not
    start with what the hand holds. A block is as many decks as end together with a hand; blocks do
    not depend on each other and are drawn side by side.
    """
    decks = number // int(np.gcd(number, classes))
    blocks = -(-clients * number // (decks * classes))
    cards = np.empty((blocks, decks, classes), dtype=np.int64)
    for i in range(decks):
        held = i * classes % number
        cards[:, i] = _decks(cards[:, i - 1, classes - held :], number - held, classes, random)
    return random.permutation(cards.reshape(-1, number)[:clients])


def _decks(held: Indices, start: int, classes: int, random: np.random.Generator) -> Indices:
    """Shuffle one deck a row; the first ``start`` cards are none of those in ``held``."""
    turn = random.random((len(held), classes))
    np.put_along_axis(turn, held, 2.0, axis=1)
    deck = np.argsort(turn, axis=1, kind="stable")  # ties: the cards that are held
    deck[:, start:] = random.permuted(deck[:, start:], axis=1)
    return deck


def group_by_class(hands: Ragged, random: np.random.Generator) -> Ragged:
    """List the holders of every class.

    Parameters
    ----------
    hands : Ragged
        Classes of every client.
    random : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    Ragged
        Clients that hold each class that somebody holds, in random order: who comes first does not
        follow the number.
    """
    classes = hands.index
    shuffled = random.permutation(len(classes))
    order = shuffled[stable_order(classes[shuffled], int(classes.max()) + 1)]
    held = np.bincount(classes)
    ends = np.cumsum(held[held > 0])
    return Ragged(hands.owners[order], np.concatenate([[0], ends]).astype(np.int64))
