"""Image files to arrays of pixels, through Pillow."""

import re
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.options import library
from fedlabels.data.progress import counted
from fedlabels.errors import DataError

SUFFIXES = (
    ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff",
    ".webp",
)  # fmt: skip
UNREAD = (
    ".arw", ".avif", ".cr2", ".dcm", ".dng", ".heic", ".heif", ".jp2", ".jxl", ".nef", ".psd",
    ".svg", ".tga",
)  # fmt: skip
"""Endings of pictures that are not read: such a file is refused by name, not left out."""
MAX_SIDE = 4096
_DEEP = re.compile(r";(16|24|32)")


class Image(NamedTuple):
    """One file, with the names of its class and domain as far as it has them."""

    path: Path
    label: str | None
    domain: str | None


def is_image(path: Path) -> bool:
    """Say whether a file's name is that of an image; hidden files are none."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def is_unread(path: Path) -> bool:
    """Say whether a file's name is that of a picture of a kind that is not read."""
    return path.suffix.lower() in UNREAD and not path.name.startswith(".")


def read_pixels(
    file: Path | BinaryIO, *, reader: str, where: str, size: int | None = None
) -> NDArray[np.uint8]:
    """Read one image file as colours.

    Parameters
    ----------
    file : Path or binary file
        What to read.
    reader, where : str
        Data set and image, for messages.
    size : int or None
        Side in pixels to which the image is scaled (bicubic, the shape is not kept), >= 1; None
        leaves it as it is.

    Returns
    -------
    ndarray of uint8, shape (3, H, W)
        Red, green and blue, turned as the file's EXIF orientation says; what is transparent is
        laid over white.

    Raises
    ------
    DataError
        If the file is damaged, has more than 8 bits a colour, or Pillow is not installed.
    """
    pillow = library("PIL.Image", reader=reader, install="pillow")
    try:
        with pillow.open(file) as image:
            return to_pixels(image, reader=reader, where=where, size=size)
    except DataError:
        raise
    # Pillow has no common class for what a damaged file can raise.
    except Exception as error:
        raise DataError(
            f"{where} cannot be read as an image ({error}); repair or remove it"
        ) from error


def to_pixels(
    image: Any, *, reader: str, where: str, size: int | None = None, keep_grey: bool = False
) -> NDArray[np.uint8]:
    """Make an array of an image that Pillow has open; see :func:`read_pixels`.

    Parameters
    ----------
    image : PIL.Image.Image
        The image.
    keep_grey : bool
        Whether an image in black and white or grey gives one channel instead of three.

    Returns
    -------
    ndarray of uint8, shape (3, H, W) or (1, H, W)
        The pixels.
    """
    if image.mode.startswith(("I", "F")) or _is_deep(image):
        raise DataError(
            f"{where} has more than 8 bits a pixel (mode {image.mode}); convert it to 8 bits, or "
            "store your arrays for dataset=npz"
        )
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # of phones: a small copy
        raise DataError(
            f"{where} holds {image.n_frames} pictures, and one a file is read; store each in a "
            "file of its own"
        )
    turn = library("PIL.ImageOps", reader=reader, install="pillow").exif_transpose
    image = turn(image)
    if keep_grey and image.mode in ("1", "L"):
        flat = image.convert("L")
    else:
        flat = _over_white(image, reader)
    if size is not None and flat.size != (size, size):
        flat = flat.resize(
            (size, size), library("PIL.Image", reader=reader, install="pillow").BICUBIC
        )
    pixels = np.asarray(flat, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _is_deep(image: Any) -> bool:
    """Say whether a file has more bits than its mode: Pillow cuts 16 bits of RGB to 8."""
    for tile in getattr(image, "tile", None) or ():
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if any(isinstance(value, str) and _DEEP.search(value) for value in arguments):
            return True
        if tile[0].startswith("ppm") and any(isinstance(v, int) and v > 255 for v in arguments):
            return True
    return False


def _over_white(image: Any, reader: str) -> Any:
    if not image.has_transparency_data:
        return image.convert("RGB")
    pillow = library("PIL.Image", reader=reader, install="pillow")
    layer = image.convert("RGBA")
    ground = pillow.new("RGBA", layer.size, (255, 255, 255, 255))
    return pillow.alpha_composite(ground, layer).convert("RGB")


def decode(images: list[Image], size: int | None) -> NDArray[np.uint8]:
    """Read images as pixels, shape (N, 3, H, W), scaled to a side of ``size`` unless it is None.

    Raises
    ------
    DataError
        If one is damaged, or they have different shapes.
    """
    first = _pixels(images[0], size)
    arrays = np.empty((len(images), *first.shape), dtype=np.uint8)
    for row, image in enumerate(counted(images, "images")):
        pixels = _pixels(image, size)
        if pixels.shape != first.shape:
            raise DataError(
                f"{image.path} has {pixels.shape[2]} x {pixels.shape[1]} pixels, "
                f"{images[0].path} has {first.shape[2]} x {first.shape[1]}; give the side to scale "
                "all images to, for instance dataset.options.size=32"
            )
        arrays[row] = pixels
    return arrays


def _pixels(image: Image, size: int | None) -> NDArray[np.uint8]:
    return read_pixels(image.path, reader="image_folder", where=str(image.path), size=size)
