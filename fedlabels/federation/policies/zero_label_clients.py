"""Some clients have no label at all."""

from dataclasses import dataclass

from fedlabels.errors import ConfigError
from fedlabels.federation.labels import POLICIES
from fedlabels.federation.policies.uniform import Uniform, check_share
from fedlabels.federation.registry import register


@register(POLICIES, "zero_label_clients")
@dataclass(frozen=True, kw_only=True)
class ZeroLabelClients(Uniform):
    """Take the labels of a share of the clients away; the others are as with ``uniform``.

    Any other policy does the same by its ``zero_label_share``.

    Parameters
    ----------
    share : float or None
        Share of clients without labels, in [0, 1]; the nearest whole number of clients, halves up.
    clients : list of int or None
        The clients that have labels, in place of ``share``.
    """

    share: float | None = None

    def __post_init__(self) -> None:
        check_share(self.share, self.clients)
        super().__post_init__()
        if self.zero_label_share:
            raise ConfigError("with zero_label_clients set share, and leave zero_label_share")

    @property
    def silent_share(self) -> float:
        """Share of clients without labels."""
        return self.share or 0.0
