"""Residual networks for small images (He et al., CVPR 2016, arXiv 1512.03385).

The stem is one 3x3 convolution without pooling, as in the paper's networks for CIFAR-10 (section
4.2). Where a block changes the shape, its shortcut is a 1x1 convolution (option B). With
standardized weights the network is a normalizer-free one, see :mod:`fedlabels.models.nf`.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from fedlabels.cohort.types import DataSpec
from fedlabels.effect import Only, only
from fedlabels.errors import ConfigError
from fedlabels.models.base import Classifier, image_shape
from fedlabels.models.layers import GlobalAverage
from fedlabels.models.nf import ALPHA, NFBlock, SkipInit, nf_betas
from fedlabels.models.recipe import Norm, Recipe

LEAST_SIDE = 8  # ResNet-18 halves the sides three times

NFStyle = Literal["normalizer_free", "plain"]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: the basic block of He et al. (Fig. 2).

    Parameters
    ----------
    channels_in, channels_out : int
        Channels of input and output.
    stride : int
        Step of the first convolution; 2 halves the sides.
    norm : str or Recipe
        Normalization after each convolution, or standardized weights in them. With ``"none"`` and
        ``"ws"`` convolutions have biases; with ``"none"`` the branch ends in
        :class:`~fedlabels.models.nf.SkipInit`.
    """

    def __init__(
        self, channels_in: int, channels_out: int, *, stride: int, norm: Norm | Recipe
    ) -> None:
        super().__init__()
        recipe = Recipe.of(norm)
        self.branch = nn.Sequential(
            _convolution(recipe, channels_in, channels_out, 3, stride=stride),
            recipe.norm_of(channels_out),
            recipe.relu(),
            _convolution(recipe, channels_out, channels_out, 3),
            SkipInit() if recipe.norm == "none" else recipe.norm_of(channels_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                _convolution(recipe, channels_in, channels_out, 1, stride=stride),
                recipe.norm_of(channels_out),
            )
        self.activation = recipe.relu()

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels_in, H, W) to (batch, channels_out, H / stride, W / stride)."""
        out: Tensor = self.activation(self.branch(x) + self.shortcut(x))
        return out


class ResNet(Classifier):
    """Stages of residual blocks, global average pooling, one dense layer.

    Weights of convolutions start normal with variance 2 / fan-in (He et al., ICCV 2015), biases of
    convolutions at 0.

    Parameters
    ----------
    spec : DataSpec
        Images (channels, height, width) with sides >= 8; odd and oblong ones are fine.
    widths : sequence of int
        Channels of each stage; every stage but the first halves the sides.
    blocks : int
        Residual blocks of each stage, >= 1.
    norm : str or Recipe
        Normalization after each convolution, or standardized weights in them, by itself with
        ``nonlinearity_gain="relu_weight"``. See :class:`ResidualBlock` for ``"none"``.
    nf_style : {"normalizer_free", "plain"}
        What ``norm="ws"`` makes: the normalizer-free form (:mod:`fedlabels.models.nf`), or the same
        blocks as otherwise, without their normalization.
    skip_init : bool
        Let every normalizer-free block start as its shortcut.

    Raises
    ------
    ConfigError
        If the samples are not images or too small, or a setting is not allowed.
    """

    counts: ClassVar[tuple[Only, ...]] = (
        only("nf_style", "skip_init", norm="ws"),
        only("skip_init", nf_style="normalizer_free"),
    )

    def __init__(
        self,
        spec: DataSpec,
        *,
        widths: Sequence[int],
        blocks: int,
        norm: Norm | Recipe = "batch",
        nf_style: NFStyle = "normalizer_free",
        skip_init: bool = False,
    ) -> None:
        super().__init__()
        channels, _, _ = image_shape(spec, model="resnet", least=LEAST_SIDE)
        if not widths or min(widths) < 1 or blocks < 1:
            raise ConfigError(
                "resnet needs at least one width, each >= 1, and blocks >= 1; "
                f"got widths={tuple(widths)}, blocks={blocks}"
            )
        if nf_style not in ("normalizer_free", "plain"):
            raise ConfigError(f"nf_style must be one of normalizer_free, plain; got {nf_style!r}")
        recipe = Recipe.of(norm, "relu_weight")
        free = recipe.norm == "ws" and nf_style == "normalizer_free"
        stem = _convolution(recipe, channels, widths[0], 3, after_relu=False)
        if free:
            layers = [stem, *_free_blocks(recipe, widths, blocks, skip_init), recipe.relu()]
        else:
            layers = [stem, recipe.norm_of(widths[0]), recipe.relu()]
            layers += [
                ResidualBlock(width_in, width_out, stride=stride, norm=recipe)
                for width_in, width_out, stride in _shapes(widths, blocks)
            ]
        self.body = nn.Sequential(*layers, GlobalAverage())
        self.head = nn.Linear(widths[-1], spec.num_classes)
        self.apply(_initialize)


class ResNet8(ResNet):
    """Three stages of 16, 32 and 64 channels with one block each: 6n + 2 layers with n = 1.

    78,042 parameters at 3x32x32 and 10 classes with batch normalization.

    Parameters
    ----------
    spec : DataSpec
        Images (channels, height, width) with sides >= 8.
    norm, nf_style, skip_init
        See :class:`ResNet`.

    Raises
    ------
    ConfigError
        If the samples are not images or too small, or a setting is unknown.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        norm: Norm | Recipe = "batch",
        nf_style: NFStyle = "normalizer_free",
        skip_init: bool = False,
    ) -> None:
        super().__init__(
            spec, widths=(16, 32, 64), blocks=1, norm=norm, nf_style=nf_style, skip_init=skip_init
        )


class ResNet18(ResNet):
    """Four stages of 64, 128, 256 and 512 channels with two blocks each.

    11,173,962 parameters at 3x32x32 and 10 classes with batch normalization.

    Parameters
    ----------
    spec : DataSpec
        Images (channels, height, width) with sides >= 8.
    norm, nf_style, skip_init
        See :class:`ResNet`.

    Raises
    ------
    ConfigError
        If the samples are not images or too small, or a setting is unknown.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        norm: Norm | Recipe = "batch",
        nf_style: NFStyle = "normalizer_free",
        skip_init: bool = False,
    ) -> None:
        widths = (64, 128, 256, 512)
        super().__init__(
            spec, widths=widths, blocks=2, norm=norm, nf_style=nf_style, skip_init=skip_init
        )


def _shapes(widths: Sequence[int], blocks: int) -> list[tuple[int, int, int]]:
    """List channels in, channels out and stride of all blocks."""
    shapes = []
    for stage, (width_in, width_out) in enumerate(pairwise((widths[0], *widths))):
        shapes.append((width_in, width_out, 1 if stage == 0 else 2))
        shapes += [(width_out, width_out, 1)] * (blocks - 1)
    return shapes


def _free_blocks(
    recipe: Recipe, widths: Sequence[int], blocks: int, skip_init: bool
) -> list[nn.Module]:
    betas = nf_betas([blocks] * len(widths), ALPHA)
    return [
        NFBlock(width_in, width_out, stride=stride, recipe=recipe, beta=beta, skip_init=skip_init)
        for (width_in, width_out, stride), beta in zip(_shapes(widths, blocks), betas, strict=True)
    ]


def _convolution(
    recipe: Recipe, channels_in: int, channels_out: int, kernel: int, **options: Any
) -> nn.Conv2d:
    # A normalization has a shift of its own, which makes the bias superfluous.
    return recipe.convolution(
        channels_in, channels_out, kernel, padding=kernel // 2, bias=not recipe.normalized,
        **options,
    )  # fmt: skip


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
