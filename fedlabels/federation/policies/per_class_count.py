"""The same number of labels for every class of every client."""

from dataclasses import dataclass

import numpy as np

from fedlabels.federation.labels import POLICIES, LabelPolicy, Mask, Shuffled
from fedlabels.federation.registry import check_count, register


@register(POLICIES, "per_class_count")
@dataclass(frozen=True, kw_only=True)
class PerClassCount(LabelPolicy):
    """Label ``count`` samples of each class on each client, or all where there are fewer.

    FedMatch (Jeong et al., ICLR 2021, arXiv 2006.12097) uses 5.

    Parameters
    ----------
    count : int
        Labels per class and client, >= 0.
    """

    count: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("count", self.count)

    def labeled(self, shuffled: Shuffled, random: np.random.Generator) -> Mask:
        """Mark the labeled entries; see :class:`LabelPolicy`."""
        return shuffled.first_of_class(np.minimum(shuffled.class_counts(), self.count))
