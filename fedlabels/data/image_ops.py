"""Operations on batches of images, each row by itself: the alphabet of the strong view.

Convention
----------
- Images are (R, C, H, W) with values in [0, 1]; every result is in [0, 1] and of the same type.
- The strength is a number per row. A *signed* operation takes [-1, 1), an *unsigned* one [0, 1).
  Strength 0 changes nothing (up to interpolation) where an operation has a strength at all.
- Lengths are shares of the image's side, so that a small image is moved as far as a large one.
- Row i depends on nothing but row i, to the last bit: sums run over integers and angles go by
  rational functions, because both a float sum and a vectorised sine depend on the position.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_TRANSLATION = 0.3  # share of the side; FixMatch's range
MAX_SHEAR = 0.3  # pixels across per pixel along; FixMatch's range
MAX_ROTATION = 30.0  # degrees; FixMatch's range
MAX_ENHANCEMENT = 0.9  # factors 0.1 .. 1.9; torchvision's RandAugment
LEVELS = 255
_POSTERIZE_LEVELS = 5  # 8, 7, 6, 5 or 4 bits are kept
_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601

PixelOp = Callable[[Tensor, Tensor], Tensor]
"""(x (R, C, H, W), strength (R,)) -> (R, C, H, W)."""
GeometricOp = Callable[[Tensor], Tensor]
"""Strength (R,) -> (R, 2, 3): output position -> input position, from the centre, in half sides."""


def brightness(x: Tensor, strength: Tensor) -> Tensor:
    """Scale the values by a factor 0.1 to 1.9 (signed)."""
    return _blend(torch.zeros_like(x), x, strength)


def contrast(x: Tensor, strength: Tensor) -> Tensor:
    """Scale the distance from the image's mean grey by a factor 0.1 to 1.9 (signed)."""
    levels = (_grey(x) * LEVELS).round()
    mean = levels.sum(dim=(1, 2, 3), keepdim=True, dtype=torch.float64)  # integers: exact
    pixels = x.shape[-2] * x.shape[-1]
    return _blend((mean / (pixels * LEVELS)).to(x.dtype), x, strength)


def color(x: Tensor, strength: Tensor) -> Tensor:
    """Scale the distance from grey by a factor 0.1 to 1.9 (signed); leaves one channel as it is."""
    return _blend(_grey(x), x, strength)


def sharpness(x: Tensor, strength: Tensor) -> Tensor:
    """Scale the distance from a 3 x 3 smoothed copy by a factor 0.1 to 1.9 (signed).

    The border of one pixel stays as it is, as with PIL.
    """
    if min(x.shape[-2:]) < 3:
        return x
    rows = x[..., :-2, :] + x[..., 1:-1, :] + x[..., 2:, :]
    box = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    center = x[..., 1:-1, 1:-1]
    smooth = x.clone()
    smooth[..., 1:-1, 1:-1] = (box + 4 * center) / 13  # PIL's kernel: ones around a five
    return _blend(smooth, x, strength)


def autocontrast(x: Tensor, _strength: Tensor) -> Tensor:
    """Stretch every channel to [0, 1]; a constant channel stays."""
    low, high = x.amin(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
    span = high - low
    stretched = (x - low) / torch.where(span > 0, span, torch.ones_like(span))
    return torch.where(span > 0, stretched, x).clamp(0, 1)


def equalize(x: Tensor, _strength: Tensor) -> Tensor:
    """Flatten the histogram of every channel over 256 levels, as PIL does."""
    levels = (x * LEVELS).round().long().flatten(2).flatten(0, 1)  # (R*C, H*W)
    counts = torch.zeros(len(levels), LEVELS + 1, dtype=torch.long, device=x.device)
    counts.scatter_add_(1, levels, torch.ones_like(levels))
    last = counts.gather(1, levels.amax(dim=1, keepdim=True))
    step = (levels.shape[1] - last) // LEVELS  # (R*C, 1); 0 where a histogram cannot be flattened
    below = counts.cumsum(dim=1) - counts
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=LEVELS)
    flat = table.gather(1, levels).to(x.dtype) / LEVELS
    return torch.where((step > 0).expand_as(flat), flat, x.flatten(2).flatten(0, 1)).view_as(x)


def posterize(x: Tensor, strength: Tensor) -> Tensor:
    """Keep the 8 to 4 highest bits of every value (unsigned)."""
    dropped = (strength * _POSTERIZE_LEVELS).long().clamp(0, _POSTERIZE_LEVELS - 1)
    shift = dropped.view(-1, 1, 1, 1)
    kept = ((x * LEVELS).round().long() >> shift) << shift
    return torch.where(shift > 0, kept.to(x.dtype) / LEVELS, x)


def solarize(x: Tensor, strength: Tensor) -> Tensor:
    """Invert the values above ``1 - strength`` (unsigned)."""
    return torch.where(x > 1 - _column(strength), 1 - x, x)


def invert(x: Tensor, _strength: Tensor) -> Tensor:
    """Invert all values."""
    return 1 - x


def identity(x: Tensor, _strength: Tensor) -> Tensor:
    """Return the images as they are."""
    return x


def translate_x(strength: Tensor) -> Tensor:
    """Move along the width by up to 0.3 of it (signed)."""
    return _matrix(strength, shift_x=strength * (2 * MAX_TRANSLATION))


def translate_y(strength: Tensor) -> Tensor:
    """Move along the height by up to 0.3 of it (signed)."""
    return _matrix(strength, shift_y=strength * (2 * MAX_TRANSLATION))


def shear_x(strength: Tensor) -> Tensor:
    """Move each line along the width by up to 0.3 of its distance from the centre (signed)."""
    return _matrix(strength, xy=strength * MAX_SHEAR)


def shear_y(strength: Tensor) -> Tensor:
    """Move each column along the height by up to 0.3 of its distance from the centre (signed)."""
    return _matrix(strength, yx=strength * MAX_SHEAR)


def rotate(strength: Tensor) -> Tensor:
    """Turn about the centre by up to 30 degrees (signed).

    The tangent of the half angle is uniform; up to 30 degrees the angle is so, too, within 3%.
    """
    half = strength * math.tan(math.radians(MAX_ROTATION) / 2)
    scale = 1 + half * half
    cosine, sine = (1 - half * half) / scale, 2 * half / scale
    return _matrix(strength, xx=cosine, xy=-sine, yx=sine, yy=cosine)


PIXEL_OPS: dict[str, PixelOp] = {
    "identity": identity,
    "autocontrast": autocontrast,
    "brightness": brightness,
    "color": color,
    "contrast": contrast,
    "equalize": equalize,
    "invert": invert,
    "posterize": posterize,
    "sharpness": sharpness,
    "solarize": solarize,
}
GEOMETRIC_OPS: dict[str, GeometricOp] = {
    "rotate": rotate,
    "shear_x": shear_x,
    "shear_y": shear_y,
    "translate_x": translate_x,
    "translate_y": translate_y,
}
UNSIGNED = frozenset({"posterize", "solarize"})


def warp(x: Tensor, matrix: Tensor, *, fill: float) -> Tensor:
    """Resample images through one affine map each, bilinearly.

    Parameters
    ----------
    x : Tensor, shape (R, C, H, W)
        Images in [0, 1].
    matrix : Tensor, shape (R, 2, 3)
        Output position (x, y, 1) -> input position (x, y). Positions count from the image's centre.
        The linear part is in pixels, so that a turn of a wide image is a turn; the shift is in half
        widths and half heights.
    fill : float
        Value outside the image, in [0, 1].

    Returns
    -------
    Tensor, shape (R, C, H, W)
        The images, in [0, 1].
    """
    height, width = x.shape[-2:]
    matrix = matrix.to(x.dtype)
    across = _centers(width, x) * width / 2  # (W,) pixels from the centre
    down = _centers(height, x) * height / 2
    grid = torch.empty(len(x), height, width, 2, dtype=x.dtype, device=x.device)
    for axis, side in enumerate((width, height)):
        line = matrix[:, axis, 0:1] * across * (2 / side) + matrix[:, axis, 2:3]  # (R, W)
        column = matrix[:, axis, 1:2] * down * (2 / side)  # (R, H)
        torch.add(line[:, None, :], column[:, :, None], out=grid[..., axis])
    moved = F.grid_sample(x - fill if fill else x, grid, align_corners=False)
    return (moved + fill).clamp(0, 1)


def crop(
    x: Tensor, start: Tensor, flip: Tensor, *, pad: tuple[int, int], reflect: bool, fill: float
) -> Tensor:
    """Cut a window of the image's own size out of each padded image, mirrored where asked.

    Parameters
    ----------
    x : Tensor, shape (R, C, H, W)
        Images.
    start : Tensor of int64, shape (R, 2)
        First row and column of the window in the padded image, 0 .. twice the padding; the padding
        itself leaves the image where it is.
    flip : Tensor of bool, shape (R,)
        Whether to mirror left and right, after the cut.
    pad : tuple of int
        Pixels added above and below, and left and right; below H and W.
    reflect : bool
        Pad by reflection about the border pixel; otherwise by ``fill``.
    fill : float
        Value of the padding when it is not reflected.

    Returns
    -------
    Tensor, shape (R, C, H, W)
        The windows.
    """
    height, width = x.shape[-2:]
    borders = (pad[1], pad[1], pad[0], pad[0])
    padded = F.pad(x, borders, "reflect") if reflect else F.pad(x, borders, value=fill)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: (R, C, rows, columns, H, W)
    rows = torch.arange(len(x), device=x.device)
    taken: Tensor = windows[rows, :, start[:, 0], start[:, 1]]  # (R, C, H, W)
    return torch.where(flip.view(-1, 1, 1, 1), taken.flip(3), taken)


def cutout(x: Tensor, center: Tensor, size: Tensor, *, fill: float) -> Tensor:
    """Cover a square of each image.

    Parameters
    ----------
    x : Tensor, shape (R, C, H, W)
        Images.
    center : Tensor, shape (R, 2)
        Centre down and across as shares of height and width, in [0, 1). The square is cut at the
        border.
    size : Tensor, shape (R,)
        Side of the square as a share of the shorter side.
    fill : float
        Value of the square.

    Returns
    -------
    Tensor, shape (R, C, H, W)
        The images.
    """
    height, width = x.shape[-2:]
    half = size[:, None] * (min(height, width) / 2)
    down = torch.arange(height, device=x.device) + 0.5 - center[:, :1] * height  # (R, H)
    across = torch.arange(width, device=x.device) + 0.5 - center[:, 1:] * width  # (R, W)
    hidden = (down.abs() < half)[:, None, :, None] & (across.abs() < half)[:, None, None, :]
    return torch.where(hidden, torch.full((), fill, dtype=x.dtype, device=x.device), x)


def _column(value: Tensor) -> Tensor:
    return value.view(-1, 1, 1, 1)


def _blend(base: Tensor, x: Tensor, strength: Tensor) -> Tensor:
    factor = 1 + _column(strength) * MAX_ENHANCEMENT
    return (base + factor * (x - base)).clamp(0, 1)


def _grey(x: Tensor) -> Tensor:
    if x.shape[1] != 3:
        return x[:, :1] if x.shape[1] == 1 else x
    return x[:, :1] * _LUMA[0] + x[:, 1:2] * _LUMA[1] + x[:, 2:] * _LUMA[2]


def _matrix(
    like: Tensor,
    *,
    xx: Tensor | float = 1.0,
    xy: Tensor | float = 0.0,
    yx: Tensor | float = 0.0,
    yy: Tensor | float = 1.0,
    shift_x: Tensor | float = 0.0,
    shift_y: Tensor | float = 0.0,
) -> Tensor:
    entries = (xx, xy, shift_x, yx, yy, shift_y)
    columns = [e if isinstance(e, Tensor) else torch.full_like(like, e) for e in entries]
    return torch.stack(columns, dim=1).view(-1, 2, 3)


def _centers(count: int, like: Tensor) -> Tensor:
    steps = torch.arange(count, dtype=like.dtype, device=like.device)
    return (2 * steps + 1 - count) / count
