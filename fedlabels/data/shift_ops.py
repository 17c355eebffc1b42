"""Transforms that make a synthetic domain of an image: colour, contrast, noise, blur, geometry.

All take images with values in [0, 1] and the channels last, shape (..., H, W, C), and return the
same shape and range. None draws anything. Contrast, noise, blur and their five severities are those
of the CIFAR-10-C scripts (Hendrycks and Dietterich, ICLR 2019, arXiv 1903.12261).
"""

import math

import numpy as np
from numpy.typing import NDArray

from fedlabels.errors import ConfigError

Images = NDArray[np.float64]

WARM, COOL = (1.25, 1.0, 0.7), (0.7, 1.0, 1.25)
LUMA = (0.299, 0.587, 0.114)
SEVERITIES = {
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    "noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "blur": (0.4, 0.6, 0.7, 0.8, 1.0),
}


def rot90(images: Images, turns: int) -> Images:
    """Turn counter-clockwise by quarter turns; images must be square for an odd number."""
    if turns % 2 and images.shape[-3] != images.shape[-2]:
        raise ConfigError(
            f"a quarter turn needs square images, got {images.shape[-3]} x {images.shape[-2]}"
        )
    turned: Images = np.rot90(images, turns, axes=(-3, -2)).copy()
    return turned


def channel_perm(images: Images) -> Images:
    """Reverse the channels."""
    return images[..., ::-1].copy()


def gain(images: Images, factors: tuple[float, float, float]) -> Images:
    """Multiply each channel, clipped."""
    scaled: Images = np.clip(images * np.asarray(factors), 0, 1)
    return scaled


def gray(images: Images) -> Images:
    """Put the luma on all three channels."""
    return np.repeat(luma(images)[..., None], 3, axis=-1)


def luma(images: Images) -> Images:
    """Return 0.299 R + 0.587 G + 0.114 B, or the only channel, shape (..., H, W)."""
    if images.shape[-1] == 1:
        return images[..., 0]
    weighted: Images = images @ np.asarray(LUMA)
    return weighted


def invert(images: Images) -> Images:
    """Return 1 - x."""
    return 1 - images


def contrast(images: Images, factor: float) -> Images:
    """Pull values to the mean of each image and channel; 1 changes nothing."""
    mean = images.mean(axis=(-3, -2), keepdims=True)
    changed: Images = np.clip((images - mean) * factor + mean, 0, 1)
    return changed


def gamma(images: Images, exponent: float) -> Images:
    """Return x ** exponent."""
    power: Images = images**exponent
    return power


def noise(images: Images, sigma: float, eps: Images) -> Images:
    """Add ``sigma`` times stored standard normal numbers, clipped."""
    return np.clip(images + sigma * eps, 0, 1)


def blur(images: Images, sigma: float) -> Images:
    """Blur by a separable Gaussian of radius ceil(3 sigma), borders mirrored without the edge."""
    radius = math.ceil(3 * sigma)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (-3, -2):
        images = _filtered(images, kernel, axis)
    return images


def edge(images: Images) -> Images:
    """Return 1 - the Sobel magnitude of the luma over its maximum, on all channels."""
    value = luma(images)[..., None]
    smooth, slope = np.array([1.0, 2.0, 1.0]), np.array([-1.0, 0.0, 1.0])
    across = _filtered(_filtered(value, slope, -2), smooth, -3)
    down = _filtered(_filtered(value, slope, -3), smooth, -2)
    size = np.hypot(across, down)
    largest = size.max(axis=(-3, -2, -1), keepdims=True)
    return np.repeat(1 - size / (largest + 1e-8), images.shape[-1], axis=-1)


def pixelate(images: Images, factor: int) -> Images:
    """Average squares of ``factor`` pixels; height and width must be multiples of it."""
    *lead, height, width, channels = images.shape
    if height % factor or width % factor:
        raise ConfigError(f"pixelate({factor}) does not divide images of {height} x {width}")
    cells = images.reshape(*lead, height // factor, factor, width // factor, factor, channels)
    small = cells.mean(axis=(-4, -2))
    large: Images = small.repeat(factor, axis=-3).repeat(factor, axis=-2)
    return large


def _filtered(images: Images, kernel: Images, axis: int) -> Images:
    """Correlate along one axis, borders mirrored without the edge."""
    radius = len(kernel) // 2
    widths = [(0, 0)] * images.ndim
    widths[axis] = (radius, radius)
    padded = np.pad(images, widths, mode="reflect")
    length = images.shape[axis]
    out = np.zeros_like(images)
    for place, weight in enumerate(kernel):
        out += weight * np.take(padded, range(place, place + length), axis=axis)
    return out


def noise_levels(clients: int, sigma_max: float) -> Images:
    """Return graded noise levels: 0 for the first client, ``sigma_max`` for the last.

    NIID-Bench's noise-based feature imbalance (Li et al., ICDE 2022, arXiv 2102.02079), its level
    used as a standard deviation, as in its code.

    Parameters
    ----------
    clients : int
        Number of clients N, >= 1.
    sigma_max : float
        Largest level, >= 0.

    Returns
    -------
    ndarray of float64, shape (N,)
        ``sigma_max * k / (N - 1)``; 0 for a single client.
    """
    return sigma_max * np.arange(clients) / max(clients - 1, 1)
