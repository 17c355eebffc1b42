"""The convolutional network of pfl-research's CIFAR-10 benchmark (Granqvist et al. 2024).

arXiv 2404.06430. Same layers, sizes and initialization, so that speeds and accuracies compare.
"""

from torch import nn

from fedlabels.cohort.types import DataSpec
from fedlabels.models.base import Classifier, image_shape
from fedlabels.models.layers import Dropout

HIDDEN = 128


class CnnPfl(Classifier):
    """Two 3x3 convolutions without padding, one pooling, one dense layer, dropout twice.

    1,626,442 parameters at 3x32x32 and 10 classes. Weights start Xavier-uniform, biases at 0.

    Parameters
    ----------
    spec : DataSpec
        Images (channels, height, width) with sides >= 6.
    dropout_features : float
        Dropout after pooling, in [0, 1).
    dropout_hidden : float
        Dropout after the dense layer, in [0, 1).

    Raises
    ------
    ConfigError
        If the samples are not images or too small.
    ValueError
        If a dropout is out of range.
    """

    def __init__(
        self, spec: DataSpec, *, dropout_features: float = 0.25, dropout_hidden: float = 0.5
    ) -> None:
        super().__init__()
        channels, height, width = image_shape(spec, model="cnn_pfl", least=6)
        pooled = ((height - 4) // 2) * ((width - 4) // 2)
        self.body = nn.Sequential(
            nn.Conv2d(channels, 32, kernel_size=3),
            nn.ReLU(),
            nn.Conv2d(32, 64, kernel_size=3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            Dropout(dropout_features),
            nn.Flatten(),
            nn.Linear(64 * pooled, HIDDEN),
            nn.ReLU(),
            Dropout(dropout_hidden),
        )
        self.head = nn.Linear(HIDDEN, spec.num_classes)
        self.apply(_initialize)


def _initialize(module: nn.Module) -> None:
    """Draw Xavier-uniform weights and zero the bias of a convolution or dense layer."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
