"""What every view is, and the checks that views of all kinds share."""

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from fedlabels.errors import ConfigError


class View(Protocol):
    """A batched random change of samples.

    Attributes
    ----------
    columns : int
        Uniform numbers needed per sample.
    """

    @property
    def columns(self) -> int:
        """Uniform numbers needed per sample."""
        ...

    def __call__(self, x: Tensor, u: Tensor) -> Tensor:
        """Change each sample by its own numbers.

        Parameters
        ----------
        x : Tensor, shape (N, C, H, W) or (N, C, T)
            Images in [0, 1], or time series of any range.
        u : Tensor, shape (N, columns)
            Uniform numbers in [0, 1), any float type.

        Returns
        -------
        Tensor
            Same shape and type as ``x``; images in [0, 1].
        """
        ...


@dataclass(frozen=True)
class IdentityView:
    """Samples as they are, of any shape."""

    columns: int = field(default=0, init=False)

    def __call__(self, x: Tensor, u: Tensor) -> Tensor:
        """Return ``x``."""
        return x


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Check a setting of a view.

    Parameters
    ----------
    name : str
        The setting, for the message.
    value : float
        What was given.
    low, high : float
        Least and greatest value allowed.

    Raises
    ------
    ConfigError
        If the value is outside, or not a number.
    """
    if isinstance(value, str) or not low <= value <= high:
        raise ConfigError(f"{name} must be in [{low:g}, {high:g}], got {value}")


def check_numbers(u: Tensor, rows: int, columns: int) -> None:
    """Check the shape of the uniform numbers.

    Parameters
    ----------
    u : Tensor
        What was given.
    rows, columns : int
        What is needed.

    Raises
    ------
    ConfigError
        If the shape differs.
    """
    if tuple(u.shape) != (rows, columns):
        raise ConfigError(f"u must have shape {(rows, columns)}, got {tuple(u.shape)}")


def whole(u: Tensor, count: int) -> Tensor:
    """Map [0, 1) to 0 .. count - 1; the clamp is for u just below 1, whose product rounds up.

    Parameters
    ----------
    u : Tensor, any shape
        Uniform numbers in [0, 1).
    count : int
        How many numbers, >= 1.

    Returns
    -------
    Tensor of int64
    """
    return (u * count).long().clamp(max=count - 1)
