"""FedAdam: Adam on the server.

Reddi et al.: "Adaptive Federated Optimization", ICLR 2021, arXiv 2003.00295, Algorithm 2.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedlabels.errors import CheckpointError, ConfigError
from fedlabels.rounds.job import Arrays
from fedlabels.strategies.base import CohortStrategy, Merged, State
from fedlabels.strategies.support import Collected

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


class FedAdam(CohortStrategy):
    """FedAdam as its paper has it, with moments in float64 that a checkpoint keeps.

    The second moment starts at tau squared, and no bias is corrected. Flower's class, which
    ``strategy=stock`` runs, starts it at 0 and corrects the bias as if a round more were over.

    Parameters
    ----------
    settings : FedAdamSettings or None
        None takes the defaults.
    """

    Settings: ClassVar[type] = FedAdamSettings

    def __init__(self, settings: FedAdamSettings | None = None) -> None:
        super().__init__()
        settings = settings or FedAdamSettings()
        self.eta, self.tau = settings.eta, settings.tau
        self.beta_1, self.beta_2 = settings.beta_1, settings.beta_2
        self.m_t: Arrays | None = None
        self.v_t: Arrays | None = None

    def merge(self, round_index: int, collected: Collected, server: Arrays) -> Merged:
        """Take the mean change of the parameters for a gradient; buffers are averaged."""
        mean, figures = super().merge(round_index, collected, server)
        if mean is None:
            return Merged(None, figures)
        parameters = [
            name
            for name, old in server.items()
            if old.dtype.kind == "f" and name not in self.server.buffers
        ]
        model = {name: server[name].astype(np.float64) for name in parameters}
        if self.m_t is None or self.v_t is None:
            self.m_t = {name: np.zeros(old.shape) for name, old in model.items()}
            self.v_t = {name: np.full(old.shape, self.tau**2) for name, old in model.items()}
        change = {name: mean[name] - old for name, old in model.items()}
        self.m_t = {n: _decayed(self.beta_1, self.m_t[n], change[n]) for n in model}
        self.v_t = {n: _decayed(self.beta_2, self.v_t[n], change[n] ** 2) for n in model}
        steps = {n: self.eta * self.m_t[n] / (np.sqrt(self.v_t[n]) + self.tau) for n in model}
        new = {name: old + steps[name] for name, old in model.items()}
        return Merged({**mean, **new}, figures)

    def state(self) -> State:
        """Return both moments; before the first aggregation there are none."""
        arrays: Arrays = {}
        for moment in _MOMENTS:
            held: Arrays | None = getattr(self, moment)
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


def _decayed(beta: float, old: NDArray[Any], new: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(beta * old + (1 - beta) * new, dtype=np.float64)
