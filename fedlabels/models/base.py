"""What every classifier offers: features, a head, and logits as the head of the features."""

from math import prod

import torch
from torch import Tensor, nn

from fedlabels.cohort.types import DataSpec
from fedlabels.errors import ConfigError


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


class FeaturePool(nn.Module):
    """Averages neighbouring features to a given width, as adaptive average pooling does.

    Parameters
    ----------
    width_in, width_out : int
        Entries of a feature before and after; a width that stays leaves features as they are.
    """

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        share = torch.zeros(width_in, width_out)
        for place in range(width_out):
            first, last = place * width_in // width_out, -(-(place + 1) * width_in // width_out)
            share[first:last, place] = 1 / (last - first)
        self.register_buffer("share", share, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, width_in) to (batch, width_out)."""
        return x @ self.share.to(x.dtype)  # type: ignore[operator]


def with_feature_dim(model: Classifier, width: int) -> Classifier:
    """Pool a model's features to a width and give it a head for them.

    Parameters
    ----------
    model : Classifier
        Changed in place; its head is drawn anew from torch's global generator.
    width : int
        Entries of a feature, >= 1.

    Raises
    ------
    ConfigError
        If the width is < 1.
    """
    if width < 1:
        raise ConfigError(f"model.feature_dim must be >= 1, got {width}")
    head = model.head
    if width != head.in_features:
        model.body = nn.Sequential(model.body, FeaturePool(head.in_features, width))
        model.head = nn.Linear(width, head.out_features)
    return model


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
            f", got {spec.shape}; model=mlp takes any shape"
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
            f"got {spec.shape}; model=mlp takes any shape"
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
