"""AlexNet as FedBN and FedWon use it (Krizhevsky et al. 2012; one column, no dropout)."""

from itertools import pairwise
from typing import Literal

from torch import nn

from fedlabels.cohort.types import DataSpec
from fedlabels.errors import ConfigError
from fedlabels.models.base import Classifier, image_shape
from fedlabels.models.recipe import Norm, Recipe

Stem = Literal["auto", "large", "small"]

LEAST = {"large": 63, "small": 16}  # sides at which a map is left behind the last pooling
LARGE_FROM = 128
POOLED = 6  # side of the map that the dense layers see at most


class AlexNet(Classifier):
    """Five convolutions, three of them pooled, and two hidden dense layers.

    57,063,498 parameters for colour images of 256 pixels and 10 classes with batch normalization
    (which follows the hidden dense layers, too), 57,045,962 with standardized convolutions.

    Parameters
    ----------
    spec : DataSpec
        Images (channels, height, width) with sides >= 63 for the large stem, >= 16 for the small.
    norm : str or Recipe
        Normalization after each hidden layer, or standardized weights in convolutions, by itself
        without a gain for ReLUs; see :class:`~fedlabels.models.recipe.Recipe`.
    stem : {"auto", "large", "small"}
        First convolution: 11x11 with step 4, or 5x5 with step 1 for small images. ``auto`` is
        ``large`` for sides of 128 and more.
    width : int
        Channels of the first convolution, >= 1; the others have 3, 6, 4 and 4 times as many.
    hidden : int
        Width of the two hidden dense layers, >= 1.

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
        stem: Stem = "auto",
        width: int = 64,
        hidden: int = 4096,
    ) -> None:
        super().__init__()
        if stem not in ("auto", *LEAST):
            raise ConfigError(f"stem must be one of auto, large, small; got {stem!r}")
        if min(width, hidden) < 1:
            raise ConfigError(f"width and hidden must be >= 1, got {width} and {hidden}")
        if stem == "auto":
            stem = "large" if min(spec.shape[1:], default=0) >= LARGE_FROM else "small"
        channels, height, width_in = image_shape(spec, model="alexnet", least=LEAST[stem])
        recipe = Recipe.of(norm)
        sides = [min(_side(n, stem), POOLED) for n in (height, width_in)]
        widths = (channels, width, 3 * width, 6 * width, 4 * width, 4 * width)
        kernels = ((11, 4, 2) if stem == "large" else (5, 1, 2), (5, 1, 2), *[(3, 1, 1)] * 3)
        layers: list[nn.Module] = []
        for place, (before, after) in enumerate(pairwise(widths)):
            kernel, stride, padding = kernels[place]
            layers.append(
                recipe.convolution(
                    before, after, kernel, stride=stride, padding=padding, after_relu=place > 0
                )
            )
            layers += [*recipe.norms_of(after), recipe.relu()]
            layers += [nn.MaxPool2d(3, 2)] if place in (0, 1, 4) else []
        layers += [nn.AdaptiveAvgPool2d((sides[0], sides[1])), nn.Flatten()]
        for before, after in pairwise((widths[-1] * sides[0] * sides[1], hidden, hidden)):
            layers += [recipe.linear(before, after), *recipe.norms_of(after), recipe.relu()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(hidden, spec.num_classes)


def _side(pixels: int, stem: str) -> int:
    """Return the side of the map behind the last pooling."""
    side = (pixels + 4 - 11) // 4 + 1 if stem == "large" else pixels
    for _ in range(3):
        side = (side - 3) // 2 + 1
    return side
