"""Networks with ``features`` and ``head``, and the layers that know which rows are real."""

from fedlabels.models.base import Classifier
from fedlabels.models.cnn1d import Cnn1d
from fedlabels.models.cnn_pfl import CnnPfl
from fedlabels.models.layers import BatchNorm, Dropout
from fedlabels.models.lenet import LeNet
from fedlabels.models.mlp import MLP
from fedlabels.models.registry import MODELS, build
from fedlabels.models.resnet import ResNet8, ResNet18

__all__ = [
    "MLP",
    "MODELS",
    "BatchNorm",
    "Classifier",
    "Cnn1d",
    "CnnPfl",
    "Dropout",
    "LeNet",
    "ResNet8",
    "ResNet18",
    "build",
]
