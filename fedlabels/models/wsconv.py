"""Scaled weight standardization: layers that need no normalization after them.

Brock, De, Smith, Simonyan: "High-Performance Large-Scale Image Recognition Without Normalization",
ICML 2021, arXiv 2102.06171; for federated learning Zhuang and Lyu: "FedWon", ICLR 2024, arXiv
2306.05879. W1 as in docs/methods/fedwon.md.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedlabels.models.convolution import Conv2d

EPS = 1e-4  # of the paper's listing, inside the maximum
_LOW = (torch.float16, torch.bfloat16)


def relu_gain() -> float:
    """Return the factor that keeps the variance behind a ReLU: ``sqrt(2 / (1 - 1/pi))``.

    Units whose weights have mean 0 and norm 1 see of a ReLU of standard normal numbers only its
    variance, ``(1 - 1/pi) / 2``.
    """
    return math.sqrt(2 / (1 - 1 / math.pi))


def standardize_weight(
    weight: Tensor,
    gain: Tensor | None = None,
    *,
    gamma: float = 1.0,
    eps: float = EPS,
    unbiased: bool = False,
) -> Tensor:
    """Give every output unit weights of mean 0 and norm ``gamma * gain`` (W1).

    Parameters
    ----------
    weight : Tensor, shape (outputs, ...)
        Raw weight; behind the first axis lie the N inputs of a unit.
    gain : Tensor or None, shape (outputs,)
        Learnable factor of each unit; None is 1.
    gamma : float
        Constant factor.
    eps : float
        Least value of ``N * variance``, > 0. A unit below it is not scaled up to norm 1, and gets
        no gradient through its variance.
    unbiased : bool
        Divide the variance by N - 1 (N >= 2) instead of N.

    Returns
    -------
    Tensor, shape and dtype of ``weight``
        ``gamma * gain * (W - mean) / sqrt(max(N * var, eps))``, computed in float32 at least.
    """
    wide = weight.float() if weight.dtype in _LOW else weight
    axes = tuple(range(1, weight.dim()))  # not flattened: a channels-last weight stays one
    centred = wide - wide.mean(axes, keepdim=True)
    square = (centred * centred).sum(axes, keepdim=True)
    if unbiased:
        fan_in = math.prod(weight.shape[1:])
        square = square * (fan_in / (fan_in - 1))
    scale = gamma * square.clamp_min(eps).rsqrt()
    if gain is not None:
        scale = scale * gain.to(wide.dtype).reshape(-1, *[1] * len(axes))
    return (centred * scale).to(weight.dtype)


class Standardized(nn.Module):
    """What standardized layers share: gain, constants, the standardized weight.

    Parameters
    ----------
    *shape, **options
        Arguments of the plain layer, such as :class:`torch.nn.Conv2d`.
    gamma : float
        Constant factor, such as :func:`relu_gain`.
    eps : float
        See :func:`standardize_weight`.
    unbiased : bool
        See :func:`standardize_weight`.

    Attributes
    ----------
    weight : torch.nn.Parameter
        Raw weight, Xavier-normal at the start; this is what clients send and servers average.
    gain : torch.nn.Parameter, shape (outputs,)
        1 at the start.
    bias : torch.nn.Parameter or None, shape (outputs,)
        0 at the start.

    Raises
    ------
    ValueError
        If a unit has one input only: its weight minus its mean is 0.
    """

    weight: Tensor
    bias: Any  # torch types it differently from layer to layer

    def __init__(
        self,
        *shape: Any,
        gamma: float = 1.0,
        eps: float = EPS,
        unbiased: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(*shape, **options)
        if math.prod(self.weight.shape[1:]) < 2:
            raise ValueError(
                "a unit with one input cannot be standardized, its weight minus its mean is 0; use "
                "a plain layer"
            )
        self.gamma, self.eps, self.unbiased = gamma, eps, unbiased
        self.gain = nn.Parameter(torch.ones(self.weight.shape[0]).to(self.weight))
        nn.init.xavier_normal_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def standardized(self) -> Tensor:
        """Return the weight that the layer works with, shape of ``weight``."""
        return standardize_weight(
            self.weight, self.gain, gamma=self.gamma, eps=self.eps, unbiased=self.unbiased
        )


class WSConv2d(Standardized, Conv2d):
    """A 2-d convolution with scaled weight standardization (W1); see :class:`Standardized`."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (batch, channels, H, W) with the standardized weight."""
        out: Tensor = self._conv_forward(x, self.standardized(), self.bias)
        return out


class WSConv1d(Standardized, nn.Conv1d):
    """A 1-d convolution with scaled weight standardization (W1); see :class:`Standardized`."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (batch, channels, time) with the standardized weight."""
        out: Tensor = self._conv_forward(x, self.standardized(), self.bias)
        return out


class WSLinear(Standardized, nn.Linear):
    """A dense layer with scaled weight standardization (W1); see :class:`Standardized`.

    FedWon leaves dense layers plain; this one is an option.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., inputs) by the standardized weight."""
        return functional.linear(x, self.standardized(), self.bias)


class ScaledReLU(nn.Module):
    """A ReLU times a constant, or one that is cut off.

    Parameters
    ----------
    gamma : float
        Factor, such as :func:`relu_gain`.
    highest : float
        Cut-off before scaling; 6 is the ReLU6 of mobile networks.
    """

    def __init__(self, gamma: float, highest: float = math.inf) -> None:
        super().__init__()
        self.gamma, self.highest = gamma, highest

    def forward(self, x: Tensor) -> Tensor:
        """Map values of any shape."""
        return self.gamma * x.clamp(0.0, self.highest)  # torch exports no mixture of types
