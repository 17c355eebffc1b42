"""FedAdam: Adam on the server.

Reddi et al.: "Adaptive Federated Optimization", ICLR 2021, arXiv 2003.00295, Algorithm 2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from flwr.serverapp import strategy as flower
from numpy.typing import NDArray

from fedlabels.errors import CheckpointError, ConfigError
from fedlabels.simulation.job import Arrays
from strategies.base import CohortStrategy, State

_MOMENTS = ("m_t", "v_t")


@dataclass(frozen=True)
class FedAdamSettings:
    """Settings of FedAdam.

    Parameters
    ----------
    eta : float
        The server's learning rate, > 0.
    beta_1, beta_2 : float
        Decay of the first and second moment, in [0, 1).
    tau : float
        Added to the root of the second moment, > 0; larger is less adaptive.
    """

    eta: float = 0.1
    beta_1: float = 0.9
    beta_2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        for name in ("eta", "tau"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be > 0, got {getattr(self, name)}")
        for name in ("beta_1", "beta_2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} must be in [0, 1), got {getattr(self, name)}")


class FedAdam(CohortStrategy, flower.FedAdam):
    """Flower's FedAdam, with moments in float64 that a checkpoint keeps.

    Flower's class returns a float64 model for a float32 one; here it gets its dtypes back.

    Parameters
    ----------
    settings : FedAdamSettings or None
        None takes the defaults.
    """

    Settings: ClassVar[type] = FedAdamSettings

    def __init__(self, settings: FedAdamSettings | None = None) -> None:
        chosen = settings or FedAdamSettings()
        super().__init__(eta=chosen.eta, beta_1=chosen.beta_1, beta_2=chosen.beta_2, tau=chosen.tau)

    def state(self) -> State:
        """Return both moments; before the first aggregation there are none."""
        arrays: Arrays = {}
        for moment in _MOMENTS:
            held: Mapping[str, NDArray[Any]] | None = getattr(self, moment)
            # Flower computes new arrays each round and never writes to these.
            arrays.update({f"{moment}/{name}": value for name, value in (held or {}).items()})
        return State(arrays, {"moments": self.m_t is not None})

    def load_state(self, state: State) -> None:
        """Go on with stored moments."""
        if set(state.values) != {"moments"}:
            raise CheckpointError("the state is not one of FedAdam: resume with the run's strategy")
        for moment in _MOMENTS:
            start = f"{moment}/"
            held = {
                k.removeprefix(start): v for k, v in state.arrays.items() if k.startswith(start)
            }
            setattr(self, moment, held if state.values["moments"] else None)
