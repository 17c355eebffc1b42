"""Layers that know which rows are real and draw from the step's own numbers; pooling.

Padding a ragged batch changes plain BatchNorm's statistics, and torch's dropout draws from global
state; BatchNorm and Dropout here do neither. They behave like ``torch.nn``'s in everything else.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedlabels.cohort.context import CONTEXT
from fedlabels.cohort.tree import expand_like


class BatchNorm(nn.Module):
    """Batch normalization over axis 1 with statistics of real rows (Ioffe and Szegedy 2015).

    Parameters
    ----------
    num_features : int
        Channels C of an input of shape (batch, C, ...).
    eps : float
        Added to the variance.
    momentum : float
        Weight of the new statistics, in (0, 1].

    Notes
    -----
    A training call replaces the buffers and never writes into the old ones. A channel that sees
    one value is centred to 0 and leaves the running variance alone; a call without real rows
    leaves all statistics alone. `fedlabels.cohort.statistics` can fix the statistics in training
    calls, or have them averaged over all batches.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize ``x``, shape (batch, C, ...)."""
        if not self.training or CONTEXT.statistics == "fixed":
            return self._as_it_is(x)
        usual = CONTEXT.rows is None and CONTEXT.statistics == "running"
        if usual and x.numel() > self.num_features:
            return self._plain(x)
        return self._masked(x)

    def _as_it_is(self, x: Tensor) -> Tensor:
        # under vmap torch has no rule for inputs of lower precision than the statistics
        wide = x.to(self.weight.dtype)
        out = functional.batch_norm(
            wide, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )
        return out.to(x.dtype)

    def _plain(self, x: Tensor) -> Tensor:
        mean, var = self.running_mean.clone(), self.running_var.clone()
        out = functional.batch_norm(
            x, mean, var, self.weight, self.bias, True, self.momentum, self.eps
        )
        self._buffers["running_mean"], self._buffers["running_var"] = mean, var
        self._buffers["num_batches_tracked"] = self.num_batches_tracked + 1
        return out

    def _masked(self, low: Tensor) -> Tensor:
        x = low.to(self.weight.dtype)  # sums of lower precision would lose the statistics
        rows = CONTEXT.rows if CONTEXT.rows is not None else x.new_ones(x.shape[0])
        rows = expand_like(rows.to(x.dtype), x)  # (batch, 1, ...)
        axes = (0, *range(2, x.dim()))
        count = rows.sum() * x[:1, :1].numel() if x.shape[0] else rows.sum()
        shape = (1, self.num_features) + (1,) * (x.dim() - 2)
        mean = (x * rows).sum(axes) / count.clamp_min(1)
        centred = x - mean.view(shape)
        var = (centred * centred * rows).sum(axes) / count.clamp_min(1)
        self._track(mean.detach(), var.detach(), count)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return (centred * scale.view(shape) + self.bias.view(shape)).to(low.dtype)

    def _track(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        unbiased = var * count / (count - 1).clamp_min(1)
        momentum: float | Tensor = self.momentum
        if CONTEXT.statistics == "cumulative":
            momentum = 1 / (self.num_batches_tracked + 1).to(mean.dtype)
        step_mean = (count > 0).to(mean.dtype) * momentum
        step_var = (count > 1).to(mean.dtype) * momentum
        old_mean, old_var = self.running_mean, self.running_var
        self._buffers["running_mean"] = old_mean + step_mean * (mean - old_mean)
        self._buffers["running_var"] = old_var + step_var * (unbiased - old_var)
        self._buffers["num_batches_tracked"] = self.num_batches_tracked + (count > 0)


class Dropout(nn.Module):
    """Dropout whose mask is drawn from the step's counter hash.

    Parameters
    ----------
    p : float
        Share of entries set to 0, in [0, 1).

    Raises
    ------
    ValueError
        If ``p`` is outside [0, 1).
    RuntimeError
        If called in training mode without a batch to draw from.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout p must be in [0, 1), got {p}")
        self.p = p
        self.tag = 0  # set by Net: two Dropouts of one model must not share masks

    def forward(self, x: Tensor) -> Tensor:
        """Drop entries of ``x`` in training mode."""
        if not self.training or self.p == 0:
            return x
        if CONTEXT.draws is None:
            raise RuntimeError("Dropout in training mode needs net.at(tree, train=True, batch=...)")
        keep = CONTEXT.draws.fold(self.tag).uniform(*x.shape, dtype=x.dtype) >= self.p
        return x * keep / (1 - self.p)


class GlobalAverage(nn.Module):
    """The average over all places of a map."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, C, ...) to (batch, C)."""
        return x.flatten(2).mean(2)
