"""FedProx: federated averaging that tells its clients how far they may drift.

Li et al.: "Federated Optimization in Heterogeneous Networks", MLSys 2020, arXiv 1812.06127.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from flwr.serverapp import strategy as flower

from fedlabels.effect import NULL, Only, only
from fedlabels.errors import ConfigError
from fedlabels.strategies.base import CohortStrategy


@dataclass(frozen=True)
class FedProxSettings:
    """Settings of FedProx.

    Parameters
    ----------
    proximal_mu : float
        Weight of the proximal term, >= 0; 0 is FedAvg. Goes to the clients as the setting
        ``proximal-mu``.
    """

    proximal_mu: float = 0.01

    counts: ClassVar[tuple[Only, ...]] = (only("proximal_mu", **{"client.mu": NULL}),)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.proximal_mu) and self.proximal_mu >= 0):
            raise ConfigError(f"proximal_mu must be >= 0, got {self.proximal_mu}")


class FedProx(CohortStrategy, flower.FedProx):
    """Flower's FedProx: sends mu to the clients, and averages as FedAvg does.

    Parameters
    ----------
    settings : FedProxSettings or None
        None takes the defaults.
    """

    Settings: ClassVar[type] = FedProxSettings

    def __init__(self, settings: FedProxSettings | None = None) -> None:
        super().__init__(proximal_mu=(settings or FedProxSettings()).proximal_mu)
