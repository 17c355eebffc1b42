"""Experiment trackers: TensorBoard, Weights & Biases, MLflow, each an extra; see docs/trackers.md.

Every tracker is a mirror of ``rounds.csv``. Its library is imported when a run uses it.
"""

from fedlabels.run.callbacks.trackers.base import Rounds, Subject, Tracker
from fedlabels.run.callbacks.trackers.callback import Tracking, tracking_of

__all__ = ["Rounds", "Subject", "Tracker", "Tracking", "tracking_of"]
