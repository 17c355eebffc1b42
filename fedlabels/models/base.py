"""What every classifier offers: features, a head, and logits as the head of the features."""

from math import prod
from typing import Literal

from torch import Tensor, nn

from fedlabels.cohort.types import DataSpec
from fedlabels.errors import ConfigError
from fedlabels.models.layers import BatchNorm

Norm = Literal["none", "batch", "group"]
NORMS: tuple[Norm, ...] = ("none", "batch", "group")

GROUP_SIZE = 4  # channels that share statistics in group normalization


class Classifier(nn.Module):
    """A network that returns logits.

    Attributes
    ----------
    body : torch.nn.Module
        Maps a sample to its features.
    head : torch.nn.Linear
        Maps features, shape (batch, width), to logits, shape (batch, classes).
    """

    body: nn.Module
    head: nn.Linear

    def features(self, x: Tensor) -> Tensor:
        """Embed samples.

        Parameters
        ----------
        x : Tensor, shape (batch, *sample)

        Returns
        -------
        Tensor, shape (batch, width)
        """
        embedding: Tensor = self.body(x)
        return embedding

    def forward(self, x: Tensor) -> Tensor:
        """Classify samples.

        Parameters
        ----------
        x : Tensor, shape (batch, *sample)

        Returns
        -------
        Tensor, shape (batch, classes)
            Logits.
        """
        logits: Tensor = self.head(self.features(x))
        return logits


def make_norm(norm: Norm, channels: int) -> nn.Module:
    """Make the normalization that follows a layer, for inputs (batch, channels, ...).

    Parameters
    ----------
    norm : {"none", "batch", "group"}
        ``group`` shares statistics among four channels of one sample and depends on no other
        sample, which suits small batches.
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
    if norm == "none":
        return nn.Identity()
    if norm == "batch":
        return BatchNorm(channels)
    if norm == "group":
        if channels % GROUP_SIZE:
            raise ConfigError(
                f"norm=group needs channels in multiples of {GROUP_SIZE}, got {channels}; change "
                "the width, or use norm=batch or norm=none"
            )
        return nn.GroupNorm(channels // GROUP_SIZE, channels)
    raise ConfigError(f"norm must be one of {', '.join(NORMS)}; got {norm!r}")


def image_shape(spec: DataSpec, *, model: str, least: int) -> tuple[int, int, int]:
    """Check that samples are images that the model can take.

    Parameters
    ----------
    spec : DataSpec
    model : str
        Name of the model, for the message.
    least : int
        Least height and width in pixels.

    Returns
    -------
    tuple of int
        Channels, height, width.

    Raises
    ------
    ConfigError
        If the samples are not images or too small.
    """
    if len(spec.shape) != 3 or min(spec.shape[1:]) < least:
        raise ConfigError(
            f"model {model} needs samples of shape (channels, height, width) with sides >= {least}"
            f", got {spec.shape}"
        )
    channels, height, width = spec.shape
    return channels, height, width


def series_shape(spec: DataSpec, *, model: str, least: int) -> tuple[int, int]:
    """Check that samples are time series that the model can take.

    Parameters
    ----------
    spec : DataSpec
    model : str
        Name of the model, for the message.
    least : int
        Least number of time steps.

    Returns
    -------
    tuple of int
        Channels, time steps.

    Raises
    ------
    ConfigError
        If the samples are not series or too short.
    """
    if len(spec.shape) != 2 or spec.shape[1] < least:
        raise ConfigError(
            f"model {model} needs samples of shape (channels, time) with time >= {least}, "
            f"got {spec.shape}"
        )
    channels, time = spec.shape
    return channels, time


def flat_size(spec: DataSpec) -> int:
    """Count the numbers in one sample.

    Parameters
    ----------
    spec : DataSpec

    Returns
    -------
    int
    """
    return prod(spec.shape)
