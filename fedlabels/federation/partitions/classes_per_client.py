"""A few classes on every client, each class in equal parts: "pathological" label skew.

As in FedRep (Collins et al., ICML 2021, arXiv 2102.07078) and others, where the number of classes
of a client is given. Any two classes have the same number of holders, or one more.
"""

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
    number : int
        Classes of each client, from 1 to the number of classes that have samples; over all clients
        there must be room for each of them. Each class is cut in equal parts over its holders. A
        class with fewer samples than holders leaves some of them without.

    Notes
    -----
    Samples of unknown class are dealt in equal parts. Where ``min_size`` takes samples of others,
    they are of any class.
    """

    number: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("number", self.number, low=1)

    def owners(self, samples: Samples, *, clients: int, random: np.random.Generator) -> Indices:
        """Name the owner of every sample; see :class:`Partition`."""
        *known, unknown = draw_class_order(samples.labels, samples.num_classes, random)
        present = [part for part in known if len(part)]
        check_room(clients, self.number, len(present))
        holders = group_by_class(draw_classes(clients, self.number, len(present), random), random)
        stock = np.array([len(part) for part in present])
        owners = np.empty(len(samples), dtype=np.int64)
        owners[np.concatenate(present)] = np.repeat(
            holders.index, self.pieces(stock, holders.sizes, random)
        )
        owners[unknown] = like_cards(len(unknown), clients, random)
        return owners

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


def group_by_class(hands: Indices, random: np.random.Generator) -> Ragged:
    """List the holders of every class.

    Parameters
    ----------
    hands : ndarray of int64, shape (K, number)
        Classes of every client.
    random : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    Ragged
        Clients that hold class c, in random order: who comes first does not follow the number.
    """
    classes = hands.ravel()
    shuffled = random.permutation(len(classes))
    order = shuffled[stable_order(classes[shuffled], int(classes.max()) + 1)]
    ends = np.cumsum(np.bincount(classes))
    return Ragged(order // hands.shape[1], np.concatenate([[0], ends]).astype(np.int64))
