"""The image operations against PIL's on pictures of whole grey levels.

PIL rounds after every step and these operations do not, so one or two levels may lie between them.
PIL is needed by this test only.
"""

import math
from functools import cache

import numpy as np
import pytest
import torch

from fedlabels.data import image_ops
from fedlabels.data.image_ops import GEOMETRIC_OPS, PIXEL_OPS, warp
from fedlabels.data.views import KNOWN_OPS, StrongView, WeakView, make_views

SIDE = 32
KINDS = ("noise", "dark", "flat", "photo", "photo_grey", "digit")


@cache
def picture(kind):
    """Return a uint8 picture, (H, W, 3) or (H, W)."""
    rng = np.random.default_rng(7)
    if kind == "noise":
        return rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    if kind == "dark":
        return rng.integers(20, 70, (SIDE, SIDE, 3), dtype=np.uint8)
    if kind == "flat":
        return np.full((SIDE, SIDE, 3), (10, 128, 250), dtype=np.uint8)
    datasets = pytest.importorskip("sklearn.datasets")
    if kind == "digit":
        small = datasets.load_digits().images[5] * (255 / 16)
        return np.kron(small, np.ones((4, 4))).round().astype(np.uint8)
    photo = datasets.load_sample_image("china.jpg")[100:196:3, 200:296:3]
    return np.ascontiguousarray(photo if kind == "photo" else photo[..., 1])


@pytest.fixture
def pil():
    return pytest.importorskip("PIL.Image")


@pytest.fixture
def ops(pil):
    return pytest.importorskip("PIL.ImageOps")


@pytest.fixture
def enhance(pil):
    return pytest.importorskip("PIL.ImageEnhance")


def tensor(pixels):
    """Return float64 images of one row, (1, C, H, W)."""
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(planes)).double()[None] / 255


def levels(x):
    """Return one image in grey levels, (H, W, 3) or (H, W)."""
    planes = (x[0] * 255).numpy()
    return planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0)


def ours(name, kind, strength=0.0):
    return levels(PIXEL_OPS[name](tensor(picture(kind)), torch.tensor([strength]).double()))


def gap(mine, theirs):
    theirs = np.asarray(theirs).astype(float)
    assert mine.shape == theirs.shape
    return np.abs(mine - theirs).max()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "tolerance"), [("autocontrast", 1), ("equalize", 0), ("invert", 0)]
)
def test_operations_without_strength(pil, ops, name, tolerance, kind):
    theirs = getattr(ops, name)(pil.fromarray(picture(kind)))
    assert gap(ours(name, kind), theirs) <= tolerance + 1e-9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [8, 7, 6, 5, 4])
def test_posterize_keeps_as_many_bits(pil, ops, kept, kind):
    strength = (8 - kept + 0.5) / 5
    theirs = ops.posterize(pil.fromarray(picture(kind)), kept)
    assert gap(ours("posterize", kind, strength), theirs) < 1e-9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threshold", [1, 64, 128, 200, 255])
def test_solarize_inverts_from_the_same_level(pil, ops, threshold, kind):
    strength = 1 - (threshold - 0.5) / 255
    theirs = ops.solarize(pil.fromarray(picture(kind)), threshold)
    assert gap(ours("solarize", kind, strength), theirs) < 1e-9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strength", [-1.0, -0.5, 0.3, 1.0])
@pytest.mark.parametrize("name", ["brightness", "contrast", "color", "sharpness"])
def test_enhancements_have_the_same_factor(pil, enhance, name, strength, kind):
    enhancer = getattr(enhance, name.capitalize())(pil.fromarray(picture(kind)))
    theirs = enhancer.enhance(1 + strength * image_ops.MAX_ENHANCEMENT)
    assert gap(ours(name, kind, strength), theirs) <= 1.5


# ---- geometry


def affine(name, strength, side):
    """Return PIL's coefficients: output pixel (from the corner) -> input pixel."""
    c = side / 2
    shear, shift = strength * image_ops.MAX_SHEAR, strength * image_ops.MAX_TRANSLATION * side
    return {
        "shear_x": (1, shear, -shear * c, 0, 1, 0),
        "shear_y": (1, 0, 0, shear, 1, -shear * c),
        "translate_x": (1, 0, shift, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, shift),
    }[name]


def well_inside(side, matrix):
    """Mark the output pixels whose four neighbours are in the picture.

    At the border conventions differ: PIL repeats the last pixel, warp mixes it with the fill.
    """
    places = np.arange(side) + 0.5
    x, y = np.meshgrid(places, places)
    a, b, c, d, e, f = matrix
    inside = np.ones((side, side), dtype=bool)
    for place in (a * x + b * y + c, d * x + e * y + f):
        inside &= (place >= 0.5) & (place <= side - 0.5)
    return inside


def moved(name, strength, kind):
    x = tensor(picture(kind))
    matrix = GEOMETRIC_OPS[name](torch.tensor([strength], dtype=torch.float64))
    return levels(warp(x, matrix, fill=0.0))


@pytest.mark.parametrize("kind", ["noise", "photo", "photo_grey", "digit"])
@pytest.mark.parametrize("strength", [-1.0, -0.4, 0.25, 1.0])
@pytest.mark.parametrize("name", ["shear_x", "shear_y", "translate_x", "translate_y"])
def test_moves_are_pils_about_the_centre(pil, name, strength, kind):
    """Shears are about the centre here; RandAugment's reference shears about a corner."""
    image, matrix = pil.fromarray(picture(kind)), affine(name, strength, SIDE)
    theirs = image.transform(
        image.size, pil.Transform.AFFINE, matrix, resample=pil.Resampling.BILINEAR
    )
    inside = well_inside(SIDE, matrix)
    assert inside.mean() > 0.6
    assert gap(moved(name, strength, kind)[inside], np.asarray(theirs)[inside]) <= 1.01


@pytest.mark.parametrize("kind", ["noise", "photo", "photo_grey", "digit"])
@pytest.mark.parametrize("strength", [-1.0, -0.4, 0.25, 1.0])
def test_turns_have_the_same_angle_and_direction(pil, strength, kind):
    half = strength * math.tan(math.radians(image_ops.MAX_ROTATION) / 2)
    angle = 2 * math.atan(half)  # positive is counter-clockwise, as PIL has it
    theirs = pil.fromarray(picture(kind)).rotate(
        math.degrees(angle), resample=pil.Resampling.BILINEAR
    )
    c, s, m = math.cos(angle), math.sin(angle), SIDE / 2
    inside = well_inside(SIDE, (c, -s, m - c * m + s * m, s, c, m - s * m - c * m))
    assert inside.mean() > 0.6
    assert gap(moved("rotate", strength, kind)[inside], np.asarray(theirs)[inside]) <= 1.01


@pytest.mark.parametrize("pixels", [-3, 1, 4])
def test_whole_pixels_move_as_with_nearest_neighbours(pil, pixels):
    strength = pixels / (image_ops.MAX_TRANSLATION * SIDE)
    image = pil.fromarray(picture("photo"))
    theirs = image.transform(
        image.size, pil.Transform.AFFINE, (1, 0, pixels, 0, 1, 0), resample=pil.Resampling.NEAREST
    )
    assert gap(moved("translate_x", strength, "photo"), theirs) < 1e-6


# ---- the strong view draws them for each image by itself


@pytest.mark.parametrize("preset", ["digits", "fashion", "natural"])
def test_each_preset_draws_from_twelve_operations_or_more(preset):
    assert len(set(make_views(preset)["strong"].ops)) >= 12


def drawn_operations(view, x, u):
    """Name each row's operation by comparing with what every operation makes of it."""
    out = view(x, u)
    found = [None] * len(x)
    for name in view.ops:
        alone = StrongView(view.weak, ops=(name,), num_ops=1, cutout=0.0)
        same = (alone(x, u) == out).flatten(1).all(1)
        found = [f or (name if hit else None) for f, hit in zip(found, same.tolist(), strict=True)]
    return found


def test_images_of_a_batch_get_operations_of_their_own():
    """16 images, 40 draws: seen from outside, whatever the numbers mean."""
    view = StrongView(WeakView(shift=0.0), ops=KNOWN_OPS, num_ops=1, cutout=0.0)
    x = tensor(picture("photo")).expand(16, -1, -1, -1)
    random = torch.Generator().manual_seed(0)
    draws = [
        drawn_operations(view, x, torch.rand(16, view.columns, generator=random).double())
        for _ in range(40)
    ]
    assert all(name for names in draws for name in names)
    in_a_batch = [len(set(names)) for names in draws]
    of_an_image = [len({names[i] for names in draws}) for i in range(16)]
    # 15 operations: 10.0 different ones are expected among 16 images, 14.0 in 40 draws.
    assert min(in_a_batch) >= 6
    assert 9.3 < np.mean(in_a_batch) < 10.7
    assert min(of_an_image) >= 11
    assert len({name for names in draws for name in names}) == len(KNOWN_OPS)
