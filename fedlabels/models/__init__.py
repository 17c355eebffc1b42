"""Networks with ``features`` and ``head``, and the layers that know which rows are real."""

from fedlabels.models.base import Classifier
from fedlabels.models.cnn_pfl import CnnPfl
from fedlabels.models.layers import BatchNorm, Dropout
from fedlabels.models.lenet import LeNet
from fedlabels.models.mlp import MLP
from fedlabels.models.registry import MODELS, build

__all__ = ["MLP", "MODELS", "BatchNorm", "Classifier", "CnnPfl", "Dropout", "LeNet", "build"]
