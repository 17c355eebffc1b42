"""What is called while a run goes on: the hooks, and those that come with the package."""

from fedlabels.run.callbacks.base import Callback, Closing, Measure, MeasuredRound

__all__ = ["Callback", "Closing", "Measure", "MeasuredRound"]
