"""Pure maths of server rules: numpy arrays in, float64 arrays out."""

from fedlabels.aggregation.fedlabel import (
    client_weights_paper,
    flute_weights,
    merge_flute,
    merge_paper,
)
from fedlabels.aggregation.mean import client_weights, shares, weighted_mean

__all__ = [
    "client_weights",
    "client_weights_paper",
    "flute_weights",
    "merge_flute",
    "merge_paper",
    "shares",
    "weighted_mean",
]
