"""FedProto: the mean of the clients' prototypes goes down again.

Tan et al.: "FedProto: Federated Prototype Learning across Heterogeneous Clients", AAAI 2022, arXiv
2105.00243. P2 of docs/methods/fedproto.md.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedlabels.aggregation import Prototypes, remembered
from fedlabels.rounds.job import Arrays
from fedlabels.strategies.base import Merged
from fedlabels.strategies.support import Collected
from fedlabels.strategies.support.prototypes import (
    PRESENT,
    VECTORS,
    PrototypeStrategy,
    mean_prototypes,
    no_prototypes,
    spread_figures,
)


@dataclass(frozen=True)
class FedProtoSettings:
    """Settings of FedProto's server.

    Parameters
    ----------
    prototype_memory : bool
        Keep the last known prototype of a class that nobody sent in a round; the official code
        forgets it.
    """

    prototype_memory: bool = False


class FedProto(PrototypeStrategy):
    """Global prototypes are the mean over the clients of the round that sent the class (P2).

    The global arrays are the table ``vectors`` and the mask ``present``. How clients are weighed is
    the clients' setting ``proto_weighting``.

    Parameters
    ----------
    settings : FedProtoSettings or None
        None takes the defaults.
    """

    Settings: ClassVar[type] = FedProtoSettings

    def __init__(self, settings: FedProtoSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or FedProtoSettings()

    def initial(self, model: Arrays) -> Arrays:
        """Return a table without any prototype."""
        return self.table(no_prototypes(*self.prepare(model)))

    def merge(self, round_index: int, collected: Collected, server: Arrays) -> Merged:
        """Average the prototypes; when nobody sent any, the old ones stay."""
        old = Prototypes(server[VECTORS].astype(np.float64), server[PRESENT] > 0)
        new = mean_prototypes(collected)
        if new is None:
            return Merged(None, spread_figures(old))
        if self.settings.prototype_memory:
            new = remembered(new, old)
        return Merged(self.table(new), spread_figures(new))
