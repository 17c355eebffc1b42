"""A LeNet-like network for small images (LeCun et al. 1998, with ReLU and max-pooling)."""

from torch import nn

from fedlabels.cohort.types import DataSpec
from fedlabels.models.base import Classifier, image_shape
from fedlabels.models.recipe import Norm, Recipe

CHANNELS = (8, 16)
HIDDEN = 96
POOL_FROM = 8  # a shorter side is not halved: 8x8 digits keep a 4x4 map


class LeNet(Classifier):
    """Two 5x5 convolutions that keep the size, each with ReLU and pooling, and a dense layer.

    79,754 parameters at 1x28x28 and 10 classes without normalization.

    Parameters
    ----------
    spec : DataSpec
        Images (channels, height, width) with sides >= 4. A map is pooled only while its shorter
        side is at least 8, so that 8x8 images keep some detail.
    norm : str or Recipe
        Normalization after each convolution, or standardized weights in them; see
        :class:`~fedlabels.models.recipe.Recipe`. By itself without a gain for ReLUs.

    Raises
    ------
    ConfigError
        If the samples are not images or too small, or ``norm`` is unknown.
    """

    def __init__(self, spec: DataSpec, *, norm: Norm | Recipe = "none") -> None:
        super().__init__()
        channels, height, width = image_shape(spec, model="lenet", least=4)
        recipe, layers = Recipe.of(norm), list[nn.Module]()
        for place, channels_out in enumerate(CHANNELS):
            layers.append(
                recipe.convolution(channels, channels_out, 5, padding=2, after_relu=place > 0)
            )
            layers += [recipe.norm_of(channels_out), recipe.relu()]
            if min(height, width) >= POOL_FROM:
                layers.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
            channels = channels_out
        layers += [nn.Flatten(), recipe.linear(channels * height * width, HIDDEN), recipe.relu()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(HIDDEN, spec.num_classes)
