"""Networks with ``features`` and ``head``, and the layers that know which rows are real."""

from fedlabels.models.alexnet import AlexNet
from fedlabels.models.base import Classifier
from fedlabels.models.cnn1d import Cnn1d
from fedlabels.models.cnn_pfl import CnnPfl
from fedlabels.models.convert import fold, to_wsconv, warn_of_norms
from fedlabels.models.digits_cnn import DigitsCnn
from fedlabels.models.layers import BatchNorm, Dropout
from fedlabels.models.lenet import LeNet
from fedlabels.models.mlp import MLP
from fedlabels.models.mobilenet import MobileNet
from fedlabels.models.nf import nf_betas
from fedlabels.models.registry import MODELS, build
from fedlabels.models.resnet import ResNet8, ResNet18
from fedlabels.models.wsconv import WSConv1d, WSConv2d, WSLinear, relu_gain, standardize_weight

__all__ = [
    "MLP",
    "MODELS",
    "AlexNet",
    "BatchNorm",
    "Classifier",
    "Cnn1d",
    "CnnPfl",
    "DigitsCnn",
    "Dropout",
    "LeNet",
    "MobileNet",
    "ResNet8",
    "ResNet18",
    "WSConv1d",
    "WSConv2d",
    "WSLinear",
    "build",
    "fold",
    "nf_betas",
    "relu_gain",
    "standardize_weight",
    "to_wsconv",
    "warn_of_norms",
]
