"""The model of a finished run in use: loaded, asked for predictions, exported."""

from fedlabels.use.load import RunModel, load_model

__all__ = ["RunModel", "load_model"]
