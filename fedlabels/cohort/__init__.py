"""The client contract: what a method writes once and what runs it looped, stacked or on a device.

Needs torch and numpy only.
"""

from fedlabels.cohort.batches import Batch, Batches
from fedlabels.cohort.client import Client, score
from fedlabels.cohort.cohort import Cohort, Nets
from fedlabels.cohort.context import statistics
from fedlabels.cohort.data import Samples, Shard, Source, TensorSource
from fedlabels.cohort.draws import Draws
from fedlabels.cohort.layout import Entry, Layout
from fedlabels.cohort.looped import LoopedCohort, ScriptedCohort
from fedlabels.cohort.net import Net, View, parameters_of
from fedlabels.cohort.optimizers import SGD, Adam, Optimizer
from fedlabels.cohort.stacked import StackedCohort
from fedlabels.cohort.sums import Sums
from fedlabels.cohort.training import Training, UnlabeledTraining
from fedlabels.cohort.tree import difference, select, square_norm, tree_map
from fedlabels.cohort.types import (
    DataSpec,
    FitRequest,
    FitResult,
    PseudoLabels,
    Ratio,
    Reads,
    Scalar,
    Term,
    Tree,
)

__all__ = [
    "SGD",
    "Adam",
    "Batch",
    "Batches",
    "Client",
    "Cohort",
    "DataSpec",
    "Draws",
    "Entry",
    "FitRequest",
    "FitResult",
    "Layout",
    "LoopedCohort",
    "Net",
    "Nets",
    "Optimizer",
    "PseudoLabels",
    "Ratio",
    "Reads",
    "Samples",
    "Scalar",
    "ScriptedCohort",
    "Shard",
    "Source",
    "StackedCohort",
    "Sums",
    "TensorSource",
    "Term",
    "Training",
    "Tree",
    "UnlabeledTraining",
    "View",
    "difference",
    "parameters_of",
    "score",
    "select",
    "square_norm",
    "statistics",
    "tree_map",
]
