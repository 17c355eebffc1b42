"""Pure maths of server rules: numpy arrays in, float64 arrays out."""

from fedlabels.aggregation.decomposition import LossTerms, decompose, decompose_by
from fedlabels.aggregation.fedlabel import (
    client_weights_paper,
    flute_weights,
    merge_flute,
    merge_paper,
)
from fedlabels.aggregation.mean import client_weights, shares, weighted_mean
from fedlabels.aggregation.principal_gradient import (
    PrincipalRule,
    Recombination,
    advanced_history,
    aggregate_tensor,
    combined,
    gram_matrix,
    is_open,
    principal_figures,
    recombine,
)
from fedlabels.aggregation.prototypes import (
    Projection,
    Prototypes,
    anchor_ema,
    draw_anchors,
    equidistant_anchors,
    mean_of_sums,
    prototype_mean,
    remembered,
    semantic_anchors,
)

__all__ = [
    "LossTerms",
    "PrincipalRule",
    "Projection",
    "Prototypes",
    "Recombination",
    "advanced_history",
    "aggregate_tensor",
    "anchor_ema",
    "client_weights",
    "client_weights_paper",
    "combined",
    "decompose",
    "decompose_by",
    "draw_anchors",
    "equidistant_anchors",
    "flute_weights",
    "gram_matrix",
    "is_open",
    "mean_of_sums",
    "merge_flute",
    "merge_paper",
    "principal_figures",
    "prototype_mean",
    "recombine",
    "remembered",
    "semantic_anchors",
    "shares",
    "weighted_mean",
]
