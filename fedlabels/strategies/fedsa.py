"""FedSA: the server makes one anchor a class, and lets it drift to the clients' prototypes.

Zhou et al.: "FedSA: A Unified Representation Learning via Semantic Anchors for Prototype-based
Federated Learning", AAAI 2025, arXiv 2501.05496. S1, S8 and S9 of docs/methods/fedsa.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedlabels.aggregation import Prototypes, anchor_ema, remembered
from fedlabels.errors import CheckpointError, ConfigError
from fedlabels.rounds.job import Arrays
from fedlabels.strategies.base import Merged
from fedlabels.strategies.support import Collected, State
from fedlabels.strategies.support.anchors import AnchorSettings
from fedlabels.strategies.support.prototypes import (
    PRESENT,
    PROTOTYPES,
    VECTORS,
    PrototypeStrategy,
    gap_of,
    mean_prototypes,
    no_prototypes,
    spread_figures,
)

ANCHORS, FIRST = "anchors", "first"


@dataclass(frozen=True)
class FedSASettings(AnchorSettings):
    """Settings of FedSA's server.

    Parameters
    ----------
    anchor_init, anchor_file
        See `AnchorSettings`.
    alpha : float
        Share of the old anchor in the new one, in [0, 1]; 1 never moves them (S9).
    prototype_memory : bool
        Keep the last known prototype of a class that nobody sent in a round, for prediction;
        anchors follow the prototypes of the round alone.
    """

    alpha: float = 0.9999
    prototype_memory: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"alpha must be in [0, 1], got {self.alpha}")


class FedSA(PrototypeStrategy):
    """Anchors down, prototypes up; global prototypes go down for prediction alone.

    The global arrays are the anchors. Anchors, their start and the prototypes are kept in float64:
    an increment of 1e-4 is lost in a type with fewer digits.

    Parameters
    ----------
    settings : FedSASettings or None
        None takes the defaults.
    """

    Settings: ClassVar[type] = FedSASettings

    def __init__(self, settings: FedSASettings | None = None) -> None:
        super().__init__()
        self.settings = settings or FedSASettings()
        self.anchors: NDArray[np.float64] = np.zeros((0, 0))
        self._first = self.anchors
        self.prototypes = no_prototypes(0, 0)

    def initial(self, model: Arrays) -> Arrays:
        """Return the anchors; the models stay with the clients."""
        classes, width = self.prepare(model)
        self.anchors = self._first = self.settings.make(classes, width, self.server.seed)
        self.prototypes = no_prototypes(classes, width)
        return {ANCHORS: self.anchors.astype(self.dtype)}

    def shared(self, exchange: str, round_index: int) -> Mapping[str, Arrays]:
        """Send the global prototypes to clients that test themselves."""
        return {PROTOTYPES: self.table(self.prototypes)} if exchange == "evaluate" else {}

    def merge(self, round_index: int, collected: Collected, server: Arrays) -> Merged:
        """Rebuild the global prototypes and move the anchors; without any, all stays."""
        new = mean_prototypes(collected)
        if new is not None:
            memory = self.settings.prototype_memory
            self.prototypes = remembered(new, self.prototypes) if memory else new
            self.anchors = anchor_ema(self.anchors, new, self.settings.alpha)
        return Merged(None if new is None else {ANCHORS: self.anchors}, self._figures())

    def _figures(self) -> dict[str, float]:
        everywhere = np.ones(len(self.anchors), dtype=bool)
        present = self.prototypes.present
        moved = np.linalg.norm(self.anchors - self._first, axis=1)
        away = np.linalg.norm(self.prototypes.vectors - self.anchors, axis=1)[present]
        return {
            **spread_figures(self.prototypes),
            "gap_anchors": gap_of(Prototypes(self.anchors, everywhere)),
            "alignment": float(away.mean()) if len(away) else float("nan"),
            "drift": float(moved.mean()),
        }

    def state(self) -> State:
        """Return anchors, where they started, and the global prototypes."""
        return State(
            {
                ANCHORS: self.anchors,
                FIRST: self._first,
                VECTORS: self.prototypes.vectors,
                PRESENT: self.prototypes.present,
            }
        )

    def load_state(self, state: State) -> None:
        """Go on from stored anchors and prototypes."""
        missing = {ANCHORS, FIRST, VECTORS, PRESENT} - set(state.arrays)
        if missing:
            raise CheckpointError(
                f"the state of FedSA lacks {', '.join(sorted(missing))}: resume with the run's "
                "strategy"
            )
        self.anchors, self._first = state.arrays[ANCHORS], state.arrays[FIRST]
        self.prototypes = Prototypes(state.arrays[VECTORS], state.arrays[PRESENT].astype(bool))
