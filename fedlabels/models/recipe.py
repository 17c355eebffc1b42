"""How a network makes its layers: what normalizes them, or how their weights are standardized."""

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from torch import nn

from fedlabels.errors import ConfigError
from fedlabels.models.convolution import Conv2d
from fedlabels.models.layers import BatchNorm
from fedlabels.models.wsconv import ScaledReLU, WSConv1d, WSConv2d, WSLinear, relu_gain

Norm = Literal["none", "batch", "group", "layer", "ws", "ws_group"]
NORMS: tuple[Norm, ...] = get_args(Norm)
Gain = Literal["none", "relu_weight", "relu_activation"]
GAINS: tuple[Gain, ...] = get_args(Gain)

GROUP_SIZE = 4  # least channels that share statistics in group normalization
MOST_GROUPS = 32


def make_norm(norm: Norm, channels: int) -> nn.Module:
    """Make the normalization that follows a layer, for inputs (batch, channels, ...).

    Parameters
    ----------
    norm : str
        ``group`` shares statistics among neighbouring channels of one sample and depends on no
        other sample, which suits small batches: groups of four channels, or larger ones where that
        would make more than 32. ``layer`` shares them among all channels. ``ws`` and ``none`` have
        none, ``ws_group`` has that of ``group``.
    channels : int
        A multiple of 4 for ``group``.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    ConfigError
        If the word is unknown, or the channels cannot be grouped.
    """
    if norm in ("none", "ws"):
        return nn.Identity()
    if norm == "batch":
        return BatchNorm(channels)
    if norm == "layer":
        return nn.GroupNorm(1, channels)
    if norm in ("group", "ws_group"):
        if channels % GROUP_SIZE:
            raise ConfigError(
                f"norm={norm} needs channels in multiples of {GROUP_SIZE}, got {channels}; change "
                "the width, or use norm=layer, norm=batch or norm=none"
            )
        most = min(MOST_GROUPS, channels // GROUP_SIZE)
        return nn.GroupNorm(max(g for g in range(1, most + 1) if channels % g == 0), channels)
    raise ConfigError(f"norm must be one of {', '.join(NORMS)}; got {norm!r}")


@dataclass(frozen=True)
class Recipe:
    """Makes the layers of a network.

    Parameters
    ----------
    norm : {"none", "batch", "group", "layer", "ws", "ws_group"}
        What follows a layer, see :func:`make_norm`. With ``ws`` and ``ws_group`` convolutions are
        standardized, see :mod:`fedlabels.models.wsconv`.
    nonlinearity_gain : {"none", "relu_weight", "relu_activation"} or None
        Where the factor :func:`~fedlabels.models.wsconv.relu_gain` is applied, which keeps signals
        of deep standardized networks from dying out: nowhere, in layers that follow a ReLU, or in
        the ReLUs. None is the network's own choice.
    ws_unbiased : bool
        Standardize by the unbiased variance.
    ws_linear : bool
        Standardize hidden dense layers, too.

    Raises
    ------
    ConfigError
        If a word is unknown, or a setting of standardized layers is given where there are none.
    """

    norm: Norm = "none"
    nonlinearity_gain: Gain | None = None
    ws_unbiased: bool = False
    ws_linear: bool = False

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ConfigError(f"norm must be one of {', '.join(NORMS)}; got {self.norm!r}")
        if self.nonlinearity_gain not in (None, *GAINS):
            raise ConfigError(
                f"nonlinearity_gain must be one of {', '.join(GAINS)} or null; "
                f"got {self.nonlinearity_gain!r}"
            )
        given = self.nonlinearity_gain or self.ws_unbiased or self.ws_linear
        if given and not self.standardized:
            raise ConfigError(
                "nonlinearity_gain, ws_unbiased and ws_linear are settings of norm=ws and "
                f"norm=ws_group; got norm={self.norm}"
            )

    @staticmethod
    def of(norm: "Norm | Recipe", gain: Gain = "none") -> "Recipe":
        """Complete what a network was given by its own choice of the gain."""
        recipe = norm if isinstance(norm, Recipe) else Recipe(norm)
        if recipe.standardized and recipe.nonlinearity_gain is None:
            recipe = replace(recipe, nonlinearity_gain=gain)
        return recipe

    @property
    def standardized(self) -> bool:
        """Whether weights of convolutions are standardized."""
        return self.norm in ("ws", "ws_group")

    @property
    def normalized(self) -> bool:
        """Whether layers are followed by a normalization."""
        return self.norm not in ("none", "ws")

    def norm_of(self, channels: int) -> nn.Module:
        """Make what follows a layer; an identity where nothing does."""
        return make_norm(self.norm, channels)

    def norms_of(self, channels: int) -> list[nn.Module]:
        """Make what follows a layer; nothing where nothing does."""
        return [self.norm_of(channels)] if self.normalized else []

    def convolution(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        bias: bool = True,
        after_relu: bool = True,
    ) -> nn.Conv2d:
        """Make a 2-d convolution.

        Parameters
        ----------
        channels_in, channels_out, kernel, stride, padding, groups, bias
            As of :class:`torch.nn.Conv2d`.
        after_relu : bool
            Whether its inputs went through a ReLU.
        """
        shape = (channels_in, channels_out, kernel, stride, padding, 1, groups, bias)
        if self.standardized and channels_in // groups * kernel * kernel > 1:
            gamma = self._gamma(after_relu)
            return WSConv2d(*shape, gamma=gamma, unbiased=self.ws_unbiased)
        return Conv2d(*shape)

    def convolution_1d(
        self, channels_in: int, channels_out: int, kernel: int, *, after_relu: bool = True
    ) -> nn.Conv1d:
        """Make a 1-d convolution that keeps the length, for an odd kernel."""
        if self.standardized and channels_in * kernel > 1:
            gamma = self._gamma(after_relu)
            return WSConv1d(
                channels_in, channels_out, kernel, padding=kernel // 2, gamma=gamma,
                unbiased=self.ws_unbiased,
            )  # fmt: skip
        return nn.Conv1d(channels_in, channels_out, kernel, padding=kernel // 2)

    def linear(self, width_in: int, width_out: int, *, after_relu: bool = True) -> nn.Linear:
        """Make a hidden dense layer."""
        if self.standardized and self.ws_linear and width_in > 1:
            gamma = self._gamma(after_relu)
            return WSLinear(width_in, width_out, gamma=gamma, unbiased=self.ws_unbiased)
        return nn.Linear(width_in, width_out)

    def relu(self, highest: float = math.inf) -> nn.Module:
        """Make a ReLU, cut off at ``highest``."""
        gamma = relu_gain() if self.nonlinearity_gain == "relu_activation" else 1.0
        return nn.ReLU() if gamma == 1 and math.isinf(highest) else ScaledReLU(gamma, highest)

    def _gamma(self, after_relu: bool) -> float:
        return relu_gain() if after_relu and self.nonlinearity_gain == "relu_weight" else 1.0
