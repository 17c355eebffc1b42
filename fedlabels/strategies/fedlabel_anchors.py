"""FedLabel whose clients are held to anchors in their labeled phase.

FedLabel is F11a and F11b of docs/methods/fedlabel.md, the anchors are S1 of docs/methods/fedsa.md.
Putting the two together is this toolkit's own; the anchors stay as they are.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from fedlabels.errors import ConfigError
from fedlabels.losses import gap
from fedlabels.rounds.job import Arrays
from fedlabels.strategies.fedlabel import FedLabel, FedLabelSettings
from fedlabels.strategies.support import Server
from fedlabels.strategies.support.anchors import AnchorSettings

_COEFFICIENTS = ("lambda_reg", "mu_mcl", "nu_cc")


@dataclass(frozen=True)
class FedLabelAnchorsSettings(AnchorSettings):
    """Settings of FedLabel's server and of the anchors.

    Parameters
    ----------
    anchor_init, anchor_file
        See `AnchorSettings`.
    variant : {"paper", "flute"}
        See `FedLabelSettings`; ``joint`` has no labeled phase.
    lambda_reg, mu_mcl, nu_cc : float
        Coefficients of FedSA's terms in the labeled phase, >= 0.
    """

    variant: str = "paper"
    lambda_reg: float = 10.0
    mu_mcl: float = 1.0
    nu_cc: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if FedLabelSettings(self.variant).variant == "joint":
            raise ConfigError(
                "variant=joint has no labeled phase that anchors could hold: use paper or flute"
            )
        for name in _COEFFICIENTS:
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} must be >= 0, got {value}")


class FedLabelAnchors(FedLabel):
    """FedLabel's server, which sends anchors and their coefficients beside the model.

    Parameters
    ----------
    settings : FedLabelAnchorsSettings or None
        None takes the defaults.
    """

    Settings: ClassVar[type] = FedLabelAnchorsSettings

    def __init__(self, settings: FedLabelAnchorsSettings | None = None) -> None:
        self.settings = settings or FedLabelAnchorsSettings()
        super().__init__(FedLabelSettings(self.settings.variant))
        self._sent: Arrays = {}

    def bind(self, server: Server) -> None:
        """Send the coefficients with every exchange."""
        values = {name: float(getattr(self.settings, name)) for name in _COEFFICIENTS}
        named = {f"anchor-{name.replace('_', '-')}": value for name, value in values.items()}
        super().bind(replace(server, settings={**server.settings, **named}))

    def initial(self, model: Arrays) -> Arrays:
        """Make the anchors; the global arrays are the model."""
        server = self.server
        anchors = self.settings.make(server.num_classes, server.feature_dim, server.seed)
        dtype = next(v.dtype for v in model.values() if v.dtype.kind == "f")
        margin = np.asarray(gap(torch.from_numpy(anchors)).item())
        self._sent = {"vectors": anchors.astype(dtype), "margin": margin.astype(dtype)}
        return super().initial(model)

    def shared(self, exchange: str, round_index: int) -> Mapping[str, Arrays]:
        """Send the anchors to clients that train."""
        return {"anchors": self._sent} if exchange == "train" else {}
