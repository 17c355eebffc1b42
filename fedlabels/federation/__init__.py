"""Who holds which samples with which labels: partitioners, label policies and the federation."""

from fedlabels.federation import partitions, policies
from fedlabels.federation.federation import Federation, build
from fedlabels.federation.labels import POLICIES, LabelMasks, LabelPolicy, LabelSplit, label_split
from fedlabels.federation.partition import (
    PARTITIONS,
    Partition,
    cut_by_proportions,
    draw_class_order,
)
from fedlabels.federation.ragged import Ragged
from fedlabels.federation.registry import make

__all__ = [
    "PARTITIONS",
    "POLICIES",
    "Federation",
    "LabelMasks",
    "LabelPolicy",
    "LabelSplit",
    "Partition",
    "Ragged",
    "build",
    "cut_by_proportions",
    "draw_class_order",
    "label_split",
    "make",
    "partitions",
    "policies",
]
