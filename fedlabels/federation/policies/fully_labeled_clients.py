"""A few clients label all they have, the others nothing or little.

The setting of RSCFed (Liang et al., CVPR 2022, arXiv 2203.13993) and CBAFed (Li et al., CVPR 2023).
"""

from dataclasses import dataclass

import numpy as np

from fedlabels.errors import ConfigError
from fedlabels.federation.labels import POLICIES, Mask
from fedlabels.federation.policies.uniform import Uniform, check_share
from fedlabels.federation.registry import register
from fedlabels.federation.totals import not_of_full


@register(POLICIES, "fully_labeled_clients")
@dataclass(frozen=True, kw_only=True)
class FullyLabeledClients(Uniform):
    """Label all samples of a share of the clients; the others are as with ``uniform``.

    Any other policy does the same by its ``fully_labeled_share``.

    Parameters
    ----------
    share : float or None
        Share of fully labeled clients, in [0, 1]; the nearest whole number of clients, halves up.
    clients : list of int or None
        The fully labeled clients, in place of ``share``.
    fraction : float
        Share of labeled samples of the others, in [0, 1].
    """

    share: float | None = None
    fraction: float | None = 0.0

    def __post_init__(self) -> None:
        check_share(self.share, self.clients)
        if self.total is not None:
            raise not_of_full(self.total)
        super().__post_init__()
        if self.fully_labeled_share:
            raise ConfigError("with fully_labeled_clients set share, and leave fully_labeled_share")

    @property
    def full_share(self) -> float:
        """Share of clients whose samples are all labeled."""
        return self.share or 0.0

    def _of_given(self, chosen: Mask) -> tuple[Mask, Mask]:
        return np.zeros_like(chosen), chosen
