"""The network of FedBN for digits (Li et al., ICLR 2021, arXiv 2102.07623, appendix)."""

from itertools import pairwise

from torch import nn

from fedlabels.cohort.types import DataSpec
from fedlabels.errors import ConfigError
from fedlabels.models.base import Classifier, image_shape
from fedlabels.models.recipe import Norm, Recipe


class DigitsCnn(Classifier):
    """Three 5x5 convolutions, two of them pooled, and two hidden dense layers.

    14,219,210 parameters at 3x28x28 and 10 classes with batch normalization (which follows the
    hidden dense layers, too), 14,213,834 with standardized convolutions.

    Parameters
    ----------
    spec : DataSpec
        Images (channels, height, width) with sides >= 4.
    norm : str or Recipe
        Normalization after each hidden layer, or standardized weights in convolutions, by itself
        without a gain for ReLUs; see :class:`~fedlabels.models.recipe.Recipe`.
    width : int
        Channels of the first two convolutions; the third has twice as many. >= 1.
    hidden : sequence of int
        Widths of the hidden dense layers, each >= 1.

    Raises
    ------
    ConfigError
        If the samples are not images or too small, or a setting is not allowed.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        norm: Norm | Recipe = "batch",
        width: int = 64,
        hidden: tuple[int, ...] = (2048, 512),
    ) -> None:
        super().__init__()
        channels, height, width_in = image_shape(spec, model="digits_cnn", least=4)
        if min((width, *hidden)) < 1:
            raise ConfigError(f"width and hidden must be >= 1, got {width} and {tuple(hidden)}")
        recipe, layers = Recipe.of(norm), list[nn.Module]()
        widths = (width, width, 2 * width)
        for place, (before, after) in enumerate(pairwise((channels, *widths))):
            layers.append(recipe.convolution(before, after, 5, padding=2, after_relu=place > 0))
            layers += [*recipe.norms_of(after), recipe.relu()]
            layers += [nn.MaxPool2d(2)] if place < 2 else []
        layers.append(nn.Flatten())
        flat = widths[-1] * (height // 4) * (width_in // 4)
        for before, after in pairwise((flat, *hidden)):
            layers += [recipe.linear(before, after), *recipe.norms_of(after), recipe.relu()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear((flat, *hidden)[-1], spec.num_classes)
