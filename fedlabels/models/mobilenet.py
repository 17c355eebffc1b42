"""MobileNetV2 for small images (Sandler et al., CVPR 2018, arXiv 1801.04381).

The stem and the second stage keep the size, so that images of 32 pixels end in maps of 4.
"""

import math

from torch import Tensor, nn

from fedlabels.cohort.types import DataSpec
from fedlabels.errors import ConfigError
from fedlabels.models.base import Classifier, image_shape
from fedlabels.models.layers import GlobalAverage
from fedlabels.models.nf import ALPHA, SkipInit
from fedlabels.models.recipe import Norm, Recipe

# Table 2 of the paper: expansion, channels, blocks, stride of the first block (there 2 for 24)
STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # fmt: skip
STEM, LAST = 32, 1280
LEAST_SIDE = 8
HIGHEST = 6.0  # of ReLU6


class InvertedResidual(nn.Module):
    """Expand, convolve each channel by itself, project; added to the input where shapes agree.

    Parameters
    ----------
    channels_in, channels_out : int
        Channels of input and output.
    stride : int
        Step of the depthwise convolution.
    expansion : int
        Channels inside over ``channels_in``; 1 leaves the first convolution out.
    recipe : Recipe
        Makes the layers. With ``norm="ws"`` an added branch counts 0.2, as in normalizer-free
        residual networks; with ``"none"`` it ends in :class:`~fedlabels.models.nf.SkipInit`.
    """

    def __init__(
        self, channels_in: int, channels_out: int, *, stride: int, expansion: int, recipe: Recipe
    ) -> None:
        super().__init__()
        inside, bias = expansion * channels_in, not recipe.normalized
        layers: list[nn.Module] = []
        if expansion != 1:  # its input was projected without a ReLU
            layers.append(recipe.convolution(channels_in, inside, 1, bias=bias, after_relu=False))
            layers += [*recipe.norms_of(inside), recipe.relu(HIGHEST)]
        layers.append(
            recipe.convolution(
                inside, inside, 3, stride=stride, padding=1, groups=inside, bias=bias
            )
        )
        layers += [*recipe.norms_of(inside), recipe.relu(HIGHEST)]
        layers.append(recipe.convolution(inside, channels_out, 1, bias=bias))
        self.residual = stride == 1 and channels_in == channels_out
        if recipe.norm == "none" and self.residual:
            layers.append(SkipInit())
        self.branch = nn.Sequential(*layers, *recipe.norms_of(channels_out))
        self.alpha = ALPHA if recipe.norm == "ws" else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels_in, H, W) to (batch, channels_out, H / stride, W / stride)."""
        out: Tensor = self.branch(x)
        return x + self.alpha * out if self.residual else out


class MobileNet(Classifier):
    """MobileNetV2; 2,236,682 parameters at 3x32x32 and 10 classes with batch normalization.

    Weights of convolutions start normal with variance 2 / fan-in, biases at 0.

    Parameters
    ----------
    spec : DataSpec
        Images (channels, height, width) with sides >= 8.
    norm : str or Recipe
        Normalization after each convolution, or standardized weights in them, by itself with
        ``nonlinearity_gain="relu_weight"``; see :class:`~fedlabels.models.recipe.Recipe`.
    width : float
        Multiplies all channels, which are rounded to multiples of 8; > 0.

    Raises
    ------
    ConfigError
        If the samples are not images or too small, or a setting is not allowed.
    """

    def __init__(
        self, spec: DataSpec, *, norm: Norm | Recipe = "batch", width: float = 1.0
    ) -> None:
        super().__init__()
        channels, _, _ = image_shape(spec, model="mobilenet", least=LEAST_SIDE)
        if not 0 < width < math.inf:
            raise ConfigError(f"width must be > 0, got {width}")
        recipe = Recipe.of(norm, "relu_weight")
        bias, before = not recipe.normalized, _rounded(STEM * width)
        layers: list[nn.Module] = [
            recipe.convolution(channels, before, 3, padding=1, bias=bias, after_relu=False),
            *recipe.norms_of(before),
            recipe.relu(HIGHEST),
        ]
        for expansion, plain, blocks, first in STAGES:
            after = _rounded(plain * width)
            for block in range(blocks):
                stride = first if block == 0 else 1
                layers.append(
                    InvertedResidual(
                        before, after, stride=stride, expansion=expansion, recipe=recipe
                    )
                )
                before = after
        last = _rounded(LAST * max(width, 1.0))
        layers.append(recipe.convolution(before, last, 1, bias=bias, after_relu=False))
        layers += [*recipe.norms_of(last), recipe.relu(HIGHEST)]
        self.body = nn.Sequential(*layers, GlobalAverage())
        self.head = nn.Linear(last, spec.num_classes)
        self.apply(_initialize)


def _rounded(channels: float) -> int:
    return max(8, int(channels + 4) // 8 * 8)


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
