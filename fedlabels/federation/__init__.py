"""Who holds which samples with which labels: partitioners, label policies and the federation."""

from fedlabels.federation import partitions, policies
from fedlabels.federation.build import Layers, build
from fedlabels.federation.cutting import cut_by_proportions, draw_class_order
from fedlabels.federation.federation import Federation
from fedlabels.federation.labels import POLICIES, LabelMasks, LabelPolicy, LabelSplit, label_split
from fedlabels.federation.layers import (
    LabelNoise,
    LongTail,
    ModelGroups,
    TestShards,
    floored_counts,
    long_tail_counts,
    mirrored_counts,
)
from fedlabels.federation.partition import PARTITIONS, Partition
from fedlabels.federation.ragged import Ragged
from fedlabels.federation.registry import make
from fedlabels.federation.samples import Samples
from fedlabels.federation.suspicion import suspicions

__all__ = [
    "PARTITIONS",
    "POLICIES",
    "Federation",
    "LabelMasks",
    "LabelNoise",
    "LabelPolicy",
    "LabelSplit",
    "Layers",
    "LongTail",
    "ModelGroups",
    "Partition",
    "Ragged",
    "Samples",
    "TestShards",
    "build",
    "cut_by_proportions",
    "draw_class_order",
    "floored_counts",
    "label_split",
    "long_tail_counts",
    "make",
    "mirrored_counts",
    "partitions",
    "policies",
    "suspicions",
]
