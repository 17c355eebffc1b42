"""Residual blocks without normalization that keep the variance of signals by construction.

Brock, De, Smith: "Characterizing Signal Propagation to Close the Performance Gap in Unnormalized
ResNets", ICLR 2021, arXiv 2101.08692, section 3. Convolutions are standardized (W1 of
docs/methods/fedwon.md).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedlabels.models.recipe import Recipe

ALPHA = 0.2  # share of a branch in the sum; the paper's value


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


def nf_betas(stage_depths: Sequence[int], alpha: float = ALPHA) -> list[float]:
    """Return the input scale of every residual block.

    Parameters
    ----------
    stage_depths : sequence of int
        Blocks of each stage, each >= 1.
    alpha : float
        Share of a branch in the sum.

    Returns
    -------
    list of float
        1 over the standard deviation expected of each block's input. The variance grows by
        ``alpha**2`` a block and starts from 1 again behind the first block of a stage, whose
        shortcut takes the scaled input.
    """
    betas, variance = [], 1.0
    for depth in stage_depths:
        for block in range(depth):
            betas.append(1 / math.sqrt(variance))
            variance = (1.0 if block == 0 else variance) + alpha**2
    return betas


class NFBlock(nn.Module):
    """A pre-activation block: ``shortcut + alpha * branch(beta * relu(x))``.

    Parameters
    ----------
    channels_in, channels_out : int
        Channels of input and output.
    stride : int
        Step of the first convolution; 2 halves the sides.
    recipe : Recipe
        Makes standardized convolutions and ReLUs.
    beta : float
        Scale of the input, see :func:`nf_betas`.
    alpha : float
        Share of the branch.
    skip_init : bool
        Whether the branch ends in :class:`SkipInit`.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        stride: int,
        recipe: Recipe,
        beta: float,
        alpha: float = ALPHA,
        skip_init: bool = False,
    ) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta
        self.activation = recipe.relu()
        self.branch = nn.Sequential(
            recipe.convolution(channels_in, channels_out, 3, stride=stride, padding=1),
            recipe.relu(),
            recipe.convolution(channels_out, channels_out, 3, padding=1),
            *([SkipInit()] if skip_init else []),
        )
        self.shortcut: nn.Module | None = None
        if stride != 1 or channels_in != channels_out:
            self.shortcut = recipe.convolution(channels_in, channels_out, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels_in, H, W) to (batch, channels_out, H / stride, W / stride)."""
        scaled: Tensor = self.beta * self.activation(x)
        shortcut: Tensor = x if self.shortcut is None else self.shortcut(scaled)
        out: Tensor = shortcut + self.alpha * self.branch(scaled)
        return out
