"""Experiment trackers: TensorBoard, Weights & Biases, MLflow, each an extra; see docs/trackers.md.

Every tracker is a mirror of ``rounds.csv``. Its library is imported when a run uses it.
"""

from fedlabels.run.trackers.base import Rounds, Subject, Tracker
from fedlabels.run.trackers.callback import NAMES, Tracking, tracking_of

__all__ = ["NAMES", "Rounds", "Subject", "Tracker", "Tracking", "tracking_of"]
