"""A few clients label all they have, the others nothing or little.

The setting of RSCFed (Liang et al., CVPR 2022, arXiv 2203.13993) and CBAFed (Li et al., CVPR 2023).
"""

from dataclasses import dataclass

from fedlabels.errors import ConfigError
from fedlabels.federation.labels import POLICIES
from fedlabels.federation.policies.uniform import Uniform
from fedlabels.federation.registry import check_range, register


@register(POLICIES, "fully_labeled_clients")
@dataclass(frozen=True, kw_only=True)
class FullyLabeledClients(Uniform):
    """Label all samples of a share of the clients; the others are as with ``uniform``.

    Any other policy does the same by its ``fully_labeled_share``.

    Parameters
    ----------
    share : float
        Share of fully labeled clients, in [0, 1]; the nearest whole number of clients, halves up.
    fraction : float
        Share of labeled samples of the others, in [0, 1].
    """

    share: float
    fraction: float | None = 0.0

    def __post_init__(self) -> None:
        check_range("share", self.share, 0.0, 1.0)
        super().__post_init__()
        if self.fully_labeled_share:
            raise ConfigError("with fully_labeled_clients set share, and leave fully_labeled_share")

    @property
    def full_share(self) -> float:
        """Share of clients whose samples are all labeled."""
        return self.share
