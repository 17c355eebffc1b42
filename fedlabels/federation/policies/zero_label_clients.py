"""Some clients have no label at all."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedlabels.federation.labels import POLICIES, LabelMasks
from fedlabels.federation.policies.uniform import Uniform
from fedlabels.federation.ragged import Indices, Ragged
from fedlabels.federation.registry import check_choice, check_range, register


@register(POLICIES, "zero_label_clients")
@dataclass(frozen=True, kw_only=True)
class ZeroLabelClients(Uniform):
    """Take the labels of a share of the clients away; the others are as with ``uniform``.

    Parameters
    ----------
    share : float
        Share of clients without labels, in [0, 1]; the nearest whole number of clients, halves up.
    choose : {"random", "smallest"}
        Which: drawn by the seed, or those with the fewest samples (ties by client number).

    Notes
    -----
    What would have been labeled joins the unlabeled pool of such a client; ``min_labels`` is for
    the others. The labels of a client do not depend on ``share`` unless it is chosen.
    """

    share: float
    choose: Literal["random", "smallest"] = "random"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("share", self.share, 0.0, 1.0)
        check_choice("choose", self.choose, ("random", "smallest"))

    def masks(
        self,
        shards: Ragged,
        labels: Indices,
        *,
        num_classes: int,
        random: np.random.Generator,
    ) -> LabelMasks:
        """Mark labeled and unlabeled entries; see :class:`LabelPolicy`."""
        given = super().masks(shards, labels, num_classes=num_classes, random=random)
        without = np.zeros(len(shards), dtype=bool)
        without[self._order(shards.sizes, random)[: int(self.share * len(shards) + 0.5)]] = True
        hidden = np.repeat(without, shards.sizes)
        return LabelMasks(given.labeled & ~hidden, given.unlabeled | (given.labeled & hidden))

    def _order(self, sizes: Indices, random: np.random.Generator) -> Indices:
        if self.choose == "smallest":
            return np.argsort(sizes, kind="stable")
        return random.permutation(len(sizes))
