"""The convolutional network of pfl-research's CIFAR-10 benchmark (Granqvist et al. 2024).

arXiv 2404.06430. Same layers, sizes and initialization, so that speeds and accuracies compare.
"""

from torch import nn

from fedlabels.cohort.types import DataSpec
from fedlabels.errors import ConfigError
from fedlabels.models.base import Classifier, image_shape
from fedlabels.models.layers import Dropout
from fedlabels.models.recipe import Norm, Recipe

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
    norm : str or Recipe
        Normalization after each convolution, or standardized weights in them; see
        :class:`~fedlabels.models.recipe.Recipe`. The benchmark has none.

    Raises
    ------
    ConfigError
        If the samples are not images or too small, or a dropout is out of range.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        dropout_features: float = 0.25,
        dropout_hidden: float = 0.5,
        norm: Norm | Recipe = "none",
    ) -> None:
        super().__init__()
        for name, share in (
            ("dropout_features", dropout_features),
            ("dropout_hidden", dropout_hidden),
        ):
            if not 0 <= share < 1:
                raise ConfigError(f"{name} must be in [0, 1), got {share}")
        channels, height, width = image_shape(spec, model="cnn_pfl", least=6)
        pooled = ((height - 4) // 2) * ((width - 4) // 2)
        recipe = Recipe.of(norm)
        self.body = nn.Sequential(
            recipe.convolution(channels, 32, 3, after_relu=False),
            *recipe.norms_of(32),
            recipe.relu(),
            recipe.convolution(32, 64, 3),
            *recipe.norms_of(64),
            recipe.relu(),
            nn.MaxPool2d(2),
            Dropout(dropout_features),
            nn.Flatten(),
            recipe.linear(64 * pooled, HIDDEN),
            recipe.relu(),
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
