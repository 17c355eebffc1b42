"""Residual networks for small images (He et al., CVPR 2016, arXiv 1512.03385).

The stem is one 3x3 convolution without pooling, as in the paper's networks for CIFAR-10 (section
4.2). Where a block changes the shape, its shortcut is a 1x1 convolution (option B).
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedlabels.cohort.types import DataSpec
from fedlabels.errors import ConfigError
from fedlabels.models.base import Classifier, Norm, image_shape, make_norm
from fedlabels.models.layers import GlobalAverage

LEAST_SIDE = 8  # ResNet-18 halves the sides three times


class SkipInit(nn.Module):
    """A learnable factor at the end of a residual branch, 0 at the start.

    It makes a deep network trainable without normalization: every block starts as its shortcut
    (De and Smith, NeurIPS 2020, arXiv 2002.10444, section 3.2).
    """

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Scale a branch's output of any shape."""
        return x * self.factor


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: the basic block of He et al. (Fig. 2).

    Parameters
    ----------
    channels_in, channels_out : int
        Channels of input and output.
    stride : int
        Step of the first convolution; 2 halves the sides.
    norm : {"none", "batch", "group"}
        Normalization after each convolution. With ``"none"`` convolutions have biases and the
        branch ends in :class:`SkipInit`.
    """

    def __init__(self, channels_in: int, channels_out: int, *, stride: int, norm: Norm) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            _convolution(channels_in, channels_out, 3, stride=stride, norm=norm),
            make_norm(norm, channels_out),
            nn.ReLU(),
            _convolution(channels_out, channels_out, 3, norm=norm),
            SkipInit() if norm == "none" else make_norm(norm, channels_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                _convolution(channels_in, channels_out, 1, stride=stride, norm=norm),
                make_norm(norm, channels_out),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels_in, H, W) to (batch, channels_out, H / stride, W / stride)."""
        return functional.relu(self.branch(x) + self.shortcut(x))


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
    norm : {"none", "batch", "group"}
        Normalization after each convolution; see :class:`ResidualBlock` for ``"none"``.

    Raises
    ------
    ConfigError
        If the samples are not images or too small, or a setting is not allowed.
    """

    def __init__(
        self, spec: DataSpec, *, widths: Sequence[int], blocks: int, norm: Norm = "batch"
    ) -> None:
        super().__init__()
        channels, _, _ = image_shape(spec, model="resnet", least=LEAST_SIDE)
        if not widths or min(widths) < 1 or blocks < 1:
            raise ConfigError(
                "resnet needs at least one width, each >= 1, and blocks >= 1; "
                f"got widths={tuple(widths)}, blocks={blocks}"
            )
        layers = [_convolution(channels, widths[0], 3, norm=norm), make_norm(norm, widths[0])]
        layers.append(nn.ReLU())
        for stage, (width_in, width_out) in enumerate(pairwise((widths[0], *widths))):
            stride = 1 if stage == 0 else 2
            layers.append(ResidualBlock(width_in, width_out, stride=stride, norm=norm))
            layers += [
                ResidualBlock(width_out, width_out, stride=1, norm=norm) for _ in range(blocks - 1)
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
    norm : {"none", "batch", "group"}
        Normalization after each convolution.

    Raises
    ------
    ConfigError
        If the samples are not images or too small, or ``norm`` is unknown.
    """

    def __init__(self, spec: DataSpec, *, norm: Norm = "batch") -> None:
        super().__init__(spec, widths=(16, 32, 64), blocks=1, norm=norm)


class ResNet18(ResNet):
    """Four stages of 64, 128, 256 and 512 channels with two blocks each.

    11,173,962 parameters at 3x32x32 and 10 classes with batch normalization.

    Parameters
    ----------
    spec : DataSpec
        Images (channels, height, width) with sides >= 8.
    norm : {"none", "batch", "group"}
        Normalization after each convolution.

    Raises
    ------
    ConfigError
        If the samples are not images or too small, or ``norm`` is unknown.
    """

    def __init__(self, spec: DataSpec, *, norm: Norm = "batch") -> None:
        super().__init__(spec, widths=(64, 128, 256, 512), blocks=2, norm=norm)


def _convolution(
    channels_in: int, channels_out: int, kernel: int, *, stride: int = 1, norm: Norm
) -> nn.Conv2d:
    # A normalization has a shift of its own, which makes the bias superfluous.
    return nn.Conv2d(
        channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=norm == "none"
    )


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
