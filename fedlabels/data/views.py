"""Weak and strong views: random changes of images that keep what they show; all presets.

Weak is a random crop with an optional mirror image. Strong is RandAugment (Cubuk et al., CVPR-W
2020, arXiv 1909.13719) with relative translations and a random strength per image, then cutout
(DeVries and Taylor, arXiv 1708.04552), then the weak view, as in FixMatch (Sohn et al., NeurIPS
2020, arXiv 2001.07685).

Convention
----------
- A view is a pure function of (x, u): images (N, C, H, W) in [0, 1] and ``columns`` uniform numbers
  in [0, 1) per image. It draws nothing itself and row i depends on x[i] and u[i] only.
- Lengths are shares of the image's side. A crop moves by whole pixels; an image is never larger or
  smaller after a view.
- What comes in from outside is ``fill``, or the mirrored border for crops with ``edge="reflect"``.
  Where ``fill`` is None it is black or white, as the image's own border is dark or light. A run
  always says it, from the whole training set; see :mod:`fedlabels.data.ground`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from fedlabels.data import image_ops
from fedlabels.data.series_views import StrongSeriesView
from fedlabels.data.view_base import IdentityView, View, check_numbers, check_range, whole
from fedlabels.effect import ABOVE_0, Only, only
from fedlabels.errors import ConfigError, near, unknown

GREY_OPS = (
    "identity",
    "autocontrast",
    "brightness",
    "contrast",
    "equalize",
    "posterize",
    "rotate",
    "sharpness",
    "shear_x",
    "shear_y",
    "solarize",
    "translate_x",
    "translate_y",
)
COLOR_OPS = (*GREY_OPS, "color")
# Inverting the thin bright strokes of a digit leaves an outline that cannot be read.
DIGIT_OPS = tuple(name for name in GREY_OPS if name != "solarize")
KNOWN_OPS = tuple(sorted({**image_ops.GEOMETRIC_OPS, **image_ops.PIXEL_OPS}))


@dataclass(frozen=True)
class WeakView:
    """Random crop and mirror image.

    Parameters
    ----------
    shift : float
        Largest move along each axis, as a share of the side, in [0, 0.5]; rounded to whole pixels,
        so 0.125 is 4 of 32, 4 of 28 and 1 of 8 pixels.
    edge : {"fill", "reflect"}
        What comes in from outside: the value ``fill``, or the image mirrored at its border pixel.
    fill : float or None
        Value outside the image, in [0, 1]; the strong view uses it, too. None follows the data:
        the level of their ground in a run, black or white by each image's border without one.
    flip : bool
        Mirror left and right with probability 1/2. Not for digits or text.
    """

    shift: float = 0.125
    edge: Literal["fill", "reflect"] = "fill"
    fill: float | None = 0.0
    flip: bool = False
    columns: int = field(default=3, init=False)

    counts: ClassVar[tuple[Only, ...]] = (only("edge", shift=ABOVE_0),)

    def __post_init__(self) -> None:
        check_range("shift", self.shift, 0.0, 0.5)
        if self.fill is not None:
            check_range("fill", self.fill, 0.0, 1.0)
        if self.edge not in ("fill", "reflect"):
            raise ConfigError(f"edge must be 'fill' or 'reflect', got {self.edge!r}")

    def __call__(self, x: Tensor, u: Tensor) -> Tensor:
        """Crop each image; see :class:`View`."""
        _check_input(x, u, self.columns)
        if self.fill is None:
            return _by_ground(lambda fill: replace(self, fill=fill), x, u)
        pad = (self._pixels(x.shape[2]), self._pixels(x.shape[3]))
        start = torch.stack([whole(u[:, axis], 2 * pad[axis] + 1) for axis in (0, 1)], dim=1)
        flip = (u[:, 2] < 0.5) if self.flip else torch.zeros_like(u[:, 2], dtype=torch.bool)
        reflect = self.edge == "reflect"
        return image_ops.crop(x, start, flip, pad=pad, reflect=reflect, fill=self.fill)

    def _pixels(self, side: int) -> int:
        # Reflection needs the offset below the side; a side of one pixel cannot move.
        return min(round(self.shift * side), side - 1)


@dataclass(frozen=True)
class StrongView:
    """RandAugment, cutout, then the weak view with numbers of its own.

    Parameters
    ----------
    weak : WeakView
        The last step; its ``fill`` is used by all steps.
    ops : tuple of str
        Operations to draw from, all equally likely.
    num_ops : int
        Operations per image, one after the other, >= 0.
    strength : float
        Upper end of the operations' strength, in [0, 1]; each image draws its own below it.
    cutout : float
        Largest square, as a share of the shorter side, in [0, 1]; each image draws its own.

    Notes
    -----
    The geometric operations of one slot go through one resampling; a pixel operation is computed
    for the images that drew it. On a GPU every operation is computed for every image instead, with
    the same result: how many drew what cannot be asked without waiting for the device.
    """

    weak: WeakView = field(default_factory=WeakView)
    ops: tuple[str, ...] = GREY_OPS
    num_ops: int = 2
    strength: float = 1.0
    cutout: float = 0.5

    counts: ClassVar[tuple[Only, ...]] = (only("ops", "strength", num_ops=ABOVE_0),)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ops", tuple(self.ops))  # configurations hold lists
        others = [str(op) for op in self.ops if op not in KNOWN_OPS]
        if others or not self.ops:
            raise ConfigError(
                f"ops must be some of {', '.join(KNOWN_OPS)}; got {', '.join(others) or 'none'}"
            )
        if self.num_ops < 0:
            raise ConfigError(f"num_ops must be >= 0, got {self.num_ops}")
        check_range("strength", self.strength, 0.0, 1.0)
        check_range("cutout", self.cutout, 0.0, 1.0)

    @property
    def columns(self) -> int:
        """Uniform numbers per image: 2 a slot, 3 for cutout, 3 for the weak view."""
        return 2 * self.num_ops + 3 + self.weak.columns

    def __call__(self, x: Tensor, u: Tensor) -> Tensor:
        """Change each image strongly; see :class:`View`."""
        _check_input(x, u, self.columns)
        if self.weak.fill is None:
            return _by_ground(lambda fill: replace(self, weak=replace(self.weak, fill=fill)), x, u)
        choice, strength, square, weak = torch.split(
            u, [self.num_ops, self.num_ops, 3, self.weak.columns], dim=1
        )
        x = self._augmented(x, choice, strength.to(x.dtype))
        if self.cutout:
            square = square.to(x.dtype)
            size = square[:, 2] * self.cutout
            x = image_ops.cutout(x, square[:, :2], size, fill=self._fill)
        return self.weak(x, weak)

    def _augmented(self, x: Tensor, choice: Tensor, strength: Tensor) -> Tensor:
        drawn = whole(choice, len(self.ops))  # (N, slots)
        if x.device.type != "cpu":
            for slot in range(self.num_ops):
                x = self._everywhere(x, drawn[:, slot], strength[:, slot])
            return x
        numbers = torch.arange(len(self.ops), device=x.device)
        counts = (drawn[:, :, None] == numbers).sum(dim=0).tolist()  # (slots, ops)
        order = drawn.argsort(dim=0, stable=True)
        for slot in range(self.num_ops):
            rows = torch.split(order[:, slot], counts[slot])
            x = self._slot(x, rows, strength[:, slot])
        return x

    def _slot(self, x: Tensor, rows: Sequence[Tensor], strength: Tensor) -> Tensor:
        out = x.clone()
        moved: list[tuple[Tensor, Tensor]] = []
        for name, chosen in zip(self.ops, rows, strict=True):
            if not len(chosen):
                continue
            level = self._level(name, strength[chosen])
            if name in image_ops.GEOMETRIC_OPS:
                moved.append((chosen, image_ops.GEOMETRIC_OPS[name](level)))
            elif name != "identity":
                out.index_copy_(0, chosen, image_ops.PIXEL_OPS[name](x[chosen], level))
        if moved:
            index, matrix = (torch.cat(parts) for parts in zip(*moved, strict=True))
            out.index_copy_(0, index, image_ops.warp(x[index], matrix, fill=self._fill))
        return out

    def _everywhere(self, x: Tensor, drawn: Tensor, strength: Tensor) -> Tensor:
        """Compute every operation for all images and pick; nothing is read from the device."""
        out, matrix = x, image_ops.translate_x(torch.zeros_like(strength))
        moved = torch.zeros_like(drawn, dtype=torch.bool)
        for number, name in enumerate(self.ops):
            level, here = self._level(name, strength), drawn == number
            if name in image_ops.GEOMETRIC_OPS:
                found = image_ops.GEOMETRIC_OPS[name](level)
                matrix, moved = torch.where(here[:, None, None], found, matrix), moved | here
            elif name != "identity":
                found = image_ops.PIXEL_OPS[name](x, level)
                out = torch.where(here[:, None, None, None], found, out)
        warped = image_ops.warp(x, matrix, fill=self._fill)
        return torch.where(moved[:, None, None, None], warped, out)

    @property
    def _fill(self) -> float:
        return self.weak.fill or 0.0

    def _level(self, name: str, u: Tensor) -> Tensor:
        return (u if name in image_ops.UNSIGNED else 2 * u - 1) * self.strength


def make_views(preset: str, **changes: Any) -> dict[str, View]:
    """Make the two views of a kind of sample.

    Parameters
    ----------
    preset : {"digits", "fashion", "natural", "timeseries", "none"}
        ``"digits"`` never mirrors and is milder; ``"fashion"`` mirrors; both have the ground of
        the data, black or white paper;
        ``"natural"`` is for colour photographs; ``"timeseries"`` is for series (channels, time);
        ``"none"`` leaves samples of any shape as they are.
    **changes
        Settings that differ from the preset, such as ``shift=0.1, cutout=0.3``: fields of
        :class:`WeakView` and :class:`StrongView`, for ``"timeseries"`` of
        :class:`~fedlabels.data.series_views.WeakSeriesView` and
        :class:`~fedlabels.data.series_views.StrongSeriesView`. Those of the weak view count for
        both views.

    Returns
    -------
    dict of str to View
        Keys ``"weak"`` and ``"strong"``.

    Raises
    ------
    ConfigError
        If the preset or a field is not known, or a value is out of range.

    Examples
    --------
    >>> views = make_views("fashion", cutout=0.25)
    >>> views["weak"].columns, views["strong"].columns
    (3, 10)
    """
    if preset == "none":
        _reject_unknown(preset, changes, allowed=())
        return {"weak": IdentityView(), "strong": IdentityView()}
    presets = _presets()
    if preset not in presets:
        raise unknown(preset, (*presets, "none"), "dataset.views")
    base: Any = presets[preset]  # the fields of a kind of view are checked by name, below
    weak_fields, strong_fields = _settings(base.weak), _settings(base)
    _reject_unknown(preset, changes, allowed=(*weak_fields, *strong_fields))
    weak = replace(base.weak, **{k: v for k, v in changes.items() if k in weak_fields})
    own = {k: v for k, v in changes.items() if k in strong_fields}
    return {"weak": weak, "strong": replace(base, weak=weak, **own)}


def _by_ground(view: Callable[[float], View], x: Tensor, u: Tensor) -> Tensor:
    """Apply a view with black around dark borders and white around light ones, row by row."""
    edges = (x[..., 0, :], x[..., -1, :], x[..., :, 0], x[..., :, -1])
    light = torch.cat([edge.flatten(1) for edge in edges], dim=1).median(dim=1).values > 0.5
    if x.device.type != "cpu":  # how many are light cannot be asked without waiting for it
        return torch.where(light.view(-1, 1, 1, 1), view(1.0)(x, u), view(0.0)(x, u))
    out = torch.empty_like(x)
    for fill, rows in ((0.0, ~light), (1.0, light)):
        chosen = rows.nonzero().squeeze(1)
        if len(chosen):
            out.index_copy_(0, chosen, view(fill)(x[chosen], u[chosen]))
    return out


def _presets() -> dict[str, StrongView | StrongSeriesView]:
    return {
        # Digits fill their frame: milder moves and squares keep them readable at 8 x 8 pixels.
        "digits": StrongView(
            WeakView(fill=None, flip=False), ops=DIGIT_OPS, strength=0.6, cutout=0.3
        ),
        "fashion": StrongView(WeakView(fill=None, flip=True)),
        "natural": StrongView(WeakView(edge="reflect", fill=0.5, flip=True), ops=COLOR_OPS),
        "timeseries": StrongSeriesView(),
    }


def _settings(view: Any) -> tuple[str, ...]:
    return tuple(f.name for f in fields(view) if f.init and f.name != "weak")


def _reject_unknown(preset: str, changes: dict[str, Any], *, allowed: Sequence[str]) -> None:
    others = sorted(set(changes) - set(allowed))
    if others:
        hint = near(others[0], allowed, "dataset.view_options.")
        raise ConfigError(
            f"views {preset!r} have no setting {', '.join(others)}{hint}; "
            f"allowed: {', '.join(allowed) or 'none'}"
        )


def _check_input(x: Tensor, u: Tensor, columns: int) -> None:
    if x.ndim != 4 or not x.is_floating_point():
        raise ConfigError(
            f"views change float images (N, C, H, W), got {x.dtype} {tuple(x.shape)}; "
            "use the preset 'timeseries' for series (N, C, T) and 'none' for other samples"
        )
    check_numbers(u, len(x), columns)
