"""Settings of anchors and how they are made; FedSA's server, and whoever else sends anchors."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedlabels.aggregation import draw_anchors, equidistant_anchors
from fedlabels.errors import ConfigError, DataError
from fedlabels.seeds import generator

AnchorInit = Literal["paper", "etf", "file"]


@dataclass(frozen=True)
class AnchorSettings:
    """How anchors are made.

    Parameters
    ----------
    anchor_init : {"paper", "etf", "file"}
        Random centers through a random network, as in the official code (S1); non-negative vectors
        of equal norm and equal distances; or a file.
    anchor_file : str or None
        A ``.npy`` file of shape (classes, width), for ``file``.
    """

    anchor_init: str = "paper"
    anchor_file: str | None = None

    def __post_init__(self) -> None:
        if self.anchor_init not in get_args(AnchorInit):
            raise ConfigError(
                f"anchor_init must be one of {', '.join(get_args(AnchorInit))}, got "
                f"{self.anchor_init!r}"
            )
        if (self.anchor_init == "file") != (self.anchor_file is not None):
            raise ConfigError(
                f"anchor_file and anchor_init=file go together, got {self.anchor_file!r} and "
                f"{self.anchor_init!r}"
            )

    def make(self, classes: int, width: int, seed: int) -> NDArray[np.float64]:
        """Make the anchors of a run, float64 of shape (classes, width).

        Raises
        ------
        ConfigError
            If there are fewer coordinates than classes for ``etf``.
        DataError
            If the file cannot be read, or does not fit.
        """
        if self.anchor_file is not None:
            return read_anchors(self.anchor_file, classes, width)
        random = generator(seed, "anchors")
        if self.anchor_init == "paper":
            return draw_anchors(classes, width, random)
        try:
            return equidistant_anchors(classes, width, random)
        except ValueError as error:
            raise ConfigError(f"anchor_init=etf: {error}; set model.feature_dim") from error


def read_anchors(file: str, classes: int, width: int) -> NDArray[np.float64]:
    """Read anchors from a ``.npy`` file.

    Raises
    ------
    DataError
        If the file cannot be read, or holds anything but finite numbers of shape (classes, width).
    """
    try:
        anchors = np.load(Path(file), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"anchor_file {file} cannot be read as .npy: {error}") from error
    shape = (classes, width)
    if getattr(anchors, "shape", None) != shape or anchors.dtype.kind not in "fiu":
        raise DataError(
            f"anchor_file {file} must hold numbers of shape {shape}, got "
            f"{getattr(anchors, 'shape', type(anchors).__name__)}"
        )
    values: NDArray[np.float64] = anchors.astype(np.float64)
    if not math.isfinite(float(values.sum())):
        raise DataError(f"anchor_file {file} has entries that are not finite")
    return values
