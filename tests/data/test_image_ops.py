import math

import numpy as np
import pytest
import torch

from fedlabels.data import image_ops
from fedlabels.data.image_ops import GEOMETRIC_OPS, PIXEL_OPS, UNSIGNED, warp

SIDE = 12


def batch(rows=6, channels=1, dtype=torch.float64, seed=0):
    return torch.rand(
        rows, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(seed), dtype=dtype
    )


def level(value, rows=6, dtype=torch.float64):
    return torch.full((rows,), value, dtype=dtype)


def dot(row, column):
    x = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.float64)
    x[0, 0, row, column] = 1
    return x


def brightest(x):
    return divmod(int(x.flatten().argmax()), x.shape[-1])


def move(name, strength, x):
    return warp(x, GEOMETRIC_OPS[name](level(strength, len(x), x.dtype)), fill=0.0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", sorted(PIXEL_OPS))
def test_pixel_ops_keep_range_shape_and_type(name, channels):
    for dtype in (torch.float32, torch.float64):
        x = batch(channels=channels, dtype=dtype)
        low = 0.0 if name in UNSIGNED else -1.0
        out = PIXEL_OPS[name](x, torch.linspace(low, 0.999, len(x), dtype=dtype))
        assert out.shape == x.shape
        assert out.dtype == dtype
        assert out.min() >= 0
        assert out.max() <= 1


@pytest.mark.parametrize(
    "name", ["brightness", "color", "contrast", "posterize", "sharpness", "solarize", "identity"]
)
def test_strength_zero_changes_nothing(name):
    x = batch(channels=3)
    torch.testing.assert_close(PIXEL_OPS[name](x, level(0.0)), x, rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", sorted(GEOMETRIC_OPS))
def test_geometric_strength_zero_changes_nothing(name):
    x = batch(channels=3)
    torch.testing.assert_close(move(name, 0.0, x), x, rtol=0, atol=1e-12)


def test_translation_is_a_share_of_the_side():
    # 0.3 * 12 = 3.6 pixels at full strength; 2/3.6 of it moves by two pixels exactly.
    assert brightest(move("translate_x", 2 / 3.6, dot(5, 6))) == (5, 4)
    assert brightest(move("translate_y", -2 / 3.6, dot(5, 6))) == (7, 6)


def test_largest_translation_keeps_most_of_the_image():
    kept = move("translate_x", 1.0, torch.ones_like(batch())).mean()
    assert 0.69 < kept < 0.71


@pytest.mark.parametrize("strength", [-1.0, -0.5, 0.25, 1.0])
def test_rotation_matrix_is_a_turn_of_at_most_thirty_degrees(strength):
    matrix = GEOMETRIC_OPS["rotate"](level(strength, 1))[0]
    turn = matrix[:, :2]
    torch.testing.assert_close(turn @ turn.T, torch.eye(2, dtype=torch.float64))
    angle = math.degrees(math.atan2(float(turn[1, 0]), float(turn[0, 0])))
    assert angle == pytest.approx(30 * strength, rel=0.03)


def test_rotation_of_a_wide_image_is_a_turn():
    x = torch.zeros(1, 1, 9, 21, dtype=torch.float64)
    x[0, 0, 4, 16] = 1  # six pixels right of the centre
    row, column = brightest(move("rotate", 1.0, x))
    assert (abs(row - 4), column - 10) == (3, 5)  # 6 sin 30, 6 cos 30


def test_shear_keeps_the_centre_line():
    x = torch.zeros(1, 1, 11, 11, dtype=torch.float64)
    x[0, 0, :, 5] = 1
    out = move("shear_x", 1.0, x)[0, 0]
    assert out[5, 5] == pytest.approx(1.0)
    columns = (out * torch.arange(11)).sum(1) / out.sum(1)
    torch.testing.assert_close((columns - 5).abs(), 0.3 * (torch.arange(11) - 5).abs().double())


def test_warp_fills_what_comes_in_from_outside():
    out = warp(batch(), GEOMETRIC_OPS["translate_x"](level(1.0)), fill=0.5)
    torch.testing.assert_close(out[..., -2:], torch.full_like(out[..., -2:], 0.5))


def test_autocontrast_stretches_each_channel_and_keeps_constant_ones():
    x = 0.25 + 0.5 * batch(channels=3)
    x[:, 2] = 0.4
    out = image_ops.autocontrast(x, level(0.0))
    assert (out[:, :2].amin((2, 3)) == 0).all()
    assert (out[:, :2].amax((2, 3)) == 1).all()
    torch.testing.assert_close(out[:, 2], x[:, 2])


def test_equalize_matches_the_published_algorithm():
    """PIL: table[i] = (half a step + samples below i) // step, step by all but the last level."""
    levels = np.random.default_rng(0).integers(0, 40, (32, 32))
    counts = np.bincount(levels.ravel(), minlength=256)
    step = (counts.sum() - counts[levels.max()]) // 255
    table = np.minimum((np.cumsum(counts) - counts + step // 2) // step, 255)
    x = torch.from_numpy(levels / 255)[None, None]
    out = image_ops.equalize(x, level(0.0, 1))
    np.testing.assert_allclose(out[0, 0].numpy() * 255, table[levels], atol=1e-9)


def test_equalize_leaves_images_too_small_for_256_levels():
    x = batch()[..., :8, :8]
    assert torch.equal(image_ops.equalize(x, level(0.0)), x)


def test_posterize_keeps_the_high_bits():
    x = torch.tensor([0.0, 15.0, 16.0, 200.0, 255.0]).double().view(1, 1, 1, 5) / 255
    out = image_ops.posterize(x, level(0.99, 1)) * 255
    assert out.flatten().round().tolist() == [0, 0, 16, 192, 240]


def test_solarize_inverts_above_the_threshold():
    x = torch.tensor([0.0, 0.25, 0.75, 1.0]).double().view(1, 1, 1, 4)
    assert image_ops.solarize(x, level(0.5, 1)).flatten().tolist() == [0.0, 0.25, 0.25, 0.0]


def test_color_works_on_one_channel():
    x = batch()
    assert torch.equal(image_ops.color(x, level(0.7)), x)


def test_color_at_the_lower_end_is_nearly_grey():
    out = image_ops.color(batch(channels=3), level(-1.0))
    assert (out.amax(1) - out.amin(1)).max() < 0.11


def test_sharpness_smooths_at_the_lower_end_and_keeps_the_border():
    x = batch()
    out = image_ops.sharpness(x, level(-1.0))
    assert torch.equal(out[..., 0, :], x[..., 0, :])
    inner = (..., slice(1, -1), slice(1, -1))
    assert out[inner].std() < x[inner].std()
    tiny = x[..., :2, :2]
    assert torch.equal(image_ops.sharpness(tiny, level(0.5)), tiny)


def test_cutout_covers_a_square_of_the_stated_size():
    x = torch.ones(1, 1, SIDE, SIDE)
    center, size = torch.tensor([[0.5, 0.5]]), torch.tensor([0.5])
    out = image_ops.cutout(x, center, size, fill=0.0)
    assert (out == 0).sum() == 36
    assert out[0, 0, 3, 3] == 0
    corner = image_ops.cutout(x, torch.tensor([[0.0, 0.0]]), size, fill=0.25)
    assert (corner == 0.25).sum() == 9
