"""Models by name."""

import inspect
from typing import Any

from fedlabels.cohort.types import DataSpec
from fedlabels.errors import ConfigError
from fedlabels.models.base import Classifier
from fedlabels.models.cnn1d import Cnn1d
from fedlabels.models.cnn_pfl import CnnPfl
from fedlabels.models.lenet import LeNet
from fedlabels.models.mlp import MLP
from fedlabels.models.resnet import ResNet8, ResNet18

MODELS: dict[str, type[Classifier]] = {
    "cnn1d": Cnn1d,
    "cnn_pfl": CnnPfl,
    "lenet": LeNet,
    "mlp": MLP,
    "resnet18": ResNet18,
    "resnet8": ResNet8,
}
"""Name -> class, called as ``Model(spec, **settings)``."""


def build(name: str, spec: DataSpec, **settings: Any) -> Classifier:
    """Build a model with freshly drawn weights.

    Parameters
    ----------
    name : str
        A key of `MODELS`.
    spec : DataSpec
        Shape of a sample and number of classes.
    **settings
        The keyword arguments of the model's class.

    Returns
    -------
    Classifier
        Weights are drawn from torch's global generator; the caller forks and seeds it.

    Raises
    ------
    ConfigError
        If the name or a setting is unknown, or a setting is out of range.

    Examples
    --------
    >>> build("mlp", DataSpec((1, 8, 8), 10), hidden=(32,)).head
    Linear(in_features=32, out_features=10, bias=True)
    """
    if name not in MODELS:
        raise ConfigError(f"unknown model {name!r}; known: {', '.join(sorted(MODELS))}")
    known = [p for p in inspect.signature(MODELS[name]).parameters if p != "spec"]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ConfigError(
            f"model {name} has no setting {', '.join(unknown)}; known: {', '.join(known) or 'none'}"
        )
    return MODELS[name](spec, **settings)
