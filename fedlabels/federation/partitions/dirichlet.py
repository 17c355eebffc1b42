"""Label skew by cutting every class with Dirichlet shares; sizes differ, too.

Several rules of the literature go by the name "Dirichlet(alpha)". Class-wise with free sizes
(Yurochkin et al., PFNM, arXiv 1905.12022) is the default here; ``balance=True`` is that of
NIID-Bench (Li et al., arXiv 2102.02079); ``draw="client"`` is that of the published FedLabel code.
Equal sizes are ``client_dirichlet``.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fedlabels.effect import Only, only
from fedlabels.federation.cutting import draw_class_order, piece_owners, piece_sizes
from fedlabels.federation.partition import PARTITIONS, Partition
from fedlabels.federation.ragged import Indices
from fedlabels.federation.registry import check_choice, check_positive, register
from fedlabels.federation.samples import Samples


@register(PARTITIONS, "dirichlet")
@dataclass(frozen=True, kw_only=True)
class Dirichlet(Partition):
    """Give each client a Dirichlet share of every class.

    Parameters
    ----------
    alpha : float
        Concentration, > 0: at 0.1 a client holds about two of ten classes, at 100 about all.
    draw : {"class", "client"}
        ``"class"``: for every class the shares of the clients are Dirichlet(alpha). ``"client"``:
        for every client the shares of the classes are, and each class is then scaled to be used up.
    balance : bool
        Clients that hold their equal part already get nothing of the classes still to come. Classes
        late in the loop then gather on few clients: a bias that grows with the class's turn.
    class_order : {"permuted", "natural"}
        Turn of the classes in that loop: drawn by the seed, or by number as in the literature,
        where it confounds whatever is measured per class.
    """

    alpha: float
    draw: Literal["class", "client"] = "class"
    balance: bool = False
    class_order: Literal["permuted", "natural"] = "permuted"

    counts: ClassVar[tuple[Only, ...]] = (only("class_order", balance=True),)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("alpha", self.alpha)
        check_choice("draw", self.draw, ("class", "client"))
        check_choice("class_order", self.class_order, ("permuted", "natural"))

    def owners(self, samples: Samples, *, clients: int, random: np.random.Generator) -> Indices:
        """Name the owner of every sample; see :class:`Partition`.

        Samples of unknown class are dealt in equal parts: no skew can be made of them.
        """
        labels, num_classes = samples.labels, samples.num_classes
        order = draw_class_order(labels, num_classes, random)
        proportions = np.ones((clients, num_classes + 1))
        proportions[:, :-1] = self._shares(clients, num_classes, random)
        if self.balance:
            turns = np.arange(num_classes + 1)
            if self.class_order == "permuted":
                turns[:-1] = random.permutation(num_classes)
            proportions = _capped(proportions, [len(part) for part in order], turns)
        owners = np.empty(len(labels), dtype=np.int64)
        owners[np.concatenate(order)] = piece_owners(proportions, [len(part) for part in order])
        return owners

    def _shares(
        self, clients: int, num_classes: int, random: np.random.Generator
    ) -> NDArray[np.float64]:
        if self.draw == "class":
            return random.dirichlet(np.full(clients, self.alpha), size=num_classes).T
        return random.dirichlet(np.full(num_classes, self.alpha), size=clients)


def _capped(
    proportions: NDArray[np.float64], totals: list[int], turns: Indices
) -> NDArray[np.float64]:
    """Set the shares of clients that have their equal part to zero, class by class."""
    capped = proportions.copy()
    sizes = np.zeros(len(proportions), dtype=np.int64)
    cap = sum(totals) / len(proportions)
    for c in turns:
        below = sizes < cap
        capped[:, c] *= below
        if not capped[:, c].any():  # all shares of the others underflowed to 0
            capped[:, c] = below
        sizes += piece_sizes(capped[:, c], totals[c])
    return capped
