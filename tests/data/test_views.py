import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlabels.data import make_views
from fedlabels.data.views import KNOWN_OPS, StrongView, WeakView
from fedlabels.errors import ConfigError

PRESETS = ("digits", "fashion", "natural")
ALL_OPS = StrongView(WeakView(edge="reflect", flip=True, fill=0.5), ops=KNOWN_OPS, num_ops=3)


def inputs(view, rows, shape=(1, 28, 28), dtype=torch.float32, seed=0):
    random = torch.Generator().manual_seed(seed)
    x = torch.rand(rows, *shape, generator=random, dtype=dtype)
    return x, torch.rand(rows, view.columns, generator=random, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 5, 9), (1, 1, 1)])
@pytest.mark.parametrize("kind", ["weak", "strong"])
@pytest.mark.parametrize("preset", PRESETS)
def test_range_shape_and_type_are_kept(preset, kind, shape, dtype):
    view = make_views(preset)[kind]
    x, u = inputs(view, 40, shape, dtype)
    out = view(x, u)
    assert out.shape == x.shape
    assert out.dtype == dtype
    assert out.min() >= 0
    assert out.max() <= 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 13, 17)])
@pytest.mark.parametrize("view", [ALL_OPS, ALL_OPS.weak])
def test_a_row_is_the_same_alone_and_in_any_batch(view, shape, dtype):
    x, u = inputs(view, 101, shape, dtype)
    together = view(x, u)
    alone = torch.cat([view(x[i : i + 1], u[i : i + 1]) for i in range(len(x))])
    assert torch.equal(together, alone)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    assert torch.equal(view(x[order], u[order]), together[order])


def test_views_do_not_change_their_input():
    x, u = inputs(ALL_OPS, 30)
    kept = x.clone(), u.clone()
    ALL_OPS(x, u)
    assert torch.equal(x, kept[0])
    assert torch.equal(u, kept[1])


def test_numbers_of_another_type_may_be_given():
    view = make_views("fashion")["strong"]
    x, u = inputs(view, 20)
    assert view(x, u.double()).dtype == torch.float32
    assert view(x.double(), u).dtype == torch.float64


@pytest.mark.parametrize("kind", ["weak", "strong"])
def test_none_is_the_identity_for_samples_of_any_shape(kind):
    view = make_views("none")[kind]
    x = torch.randn(4, 6)
    assert view.columns == 0
    assert torch.equal(view(x, torch.rand(4, 0)), x)


@pytest.mark.parametrize("kind", ["weak", "strong"])
def test_an_empty_batch_stays_empty(kind):
    view = make_views("natural")[kind]
    x, u = inputs(view, 0, (3, 8, 8))
    assert view(x, u).shape == (0, 3, 8, 8)


class TestWeak:
    def test_moves_by_whole_pixels(self):
        view = WeakView(shift=0.25, fill=0.5)
        x = torch.arange(16.0).view(1, 1, 4, 4) / 16
        down_right = view(x, torch.tensor([[0.0, 0.999, 0.0]]))
        # The window starts one row above and one column right of the image.
        assert (down_right[0, 0, 0] == 0.5).all()
        assert (down_right[0, 0, :, 3] == 0.5).all()
        assert torch.equal(down_right[0, 0, 1:, :3], x[0, 0, :3, 1:])

    def test_reflects_about_the_border_pixel(self):
        view = WeakView(shift=0.5, edge="reflect")
        x = torch.arange(4.0).view(1, 1, 1, 4) / 4
        out = view(x, torch.tensor([[0.5, 0.0, 0.9]]))
        assert (out * 4).flatten().tolist() == [2, 1, 0, 1]

    def test_center_of_the_numbers_leaves_the_image(self):
        x, _ = inputs(WeakView(), 3)
        assert torch.equal(WeakView(flip=True)(x, torch.full((3, 3), 0.5)), x)

    @pytest.mark.parametrize(("side", "pixels"), [(8, 1), (28, 4), (32, 4), (1, 0)])
    def test_shift_is_a_share_of_the_side(self, side, pixels):
        view = WeakView()
        lit = torch.ones(1, 1, side, side)
        moved = view(lit, torch.tensor([[0.0, 0.5, 0.9]]))
        assert (moved.sum(3)[0, 0] == 0).sum() == pixels

    def test_all_offsets_are_equally_likely(self):
        view = WeakView(shift=0.125)
        x = torch.zeros(9000, 1, 8, 8)
        x[:, :, 4, 4] = 1
        u = torch.rand(9000, 3, generator=torch.Generator().manual_seed(0))
        where = view(x, u).mean(0)[0, 3:6, 3:6]
        torch.testing.assert_close(where, torch.full((3, 3), 1 / 9), atol=0.015, rtol=0)

    def test_flips_half_of_the_images_where_asked(self):
        x = torch.zeros(2000, 1, 4, 4)
        x[..., 0] = 1
        u = torch.rand(2000, 3, generator=torch.Generator().manual_seed(0))
        flipped = WeakView(shift=0.0, flip=True)(x, u)[:, 0, 0, 3].mean()
        assert abs(flipped - 0.5) < 0.04
        assert torch.equal(WeakView(shift=0.0, flip=False)(x, u), x)

    def test_the_largest_number_below_one_stays_in_range(self):
        for dtype in (torch.float32, torch.float64):
            below = torch.nextafter(torch.ones((), dtype=dtype), torch.zeros((), dtype=dtype))
            for view in (WeakView(shift=0.5), ALL_OPS):
                x, _ = inputs(view, 4, dtype=dtype)
                assert view(x, below.expand(4, view.columns)).max() <= 1

    def test_digits_never_flip(self):
        assert make_views("digits")["weak"].flip is False
        assert make_views("digits")["strong"].weak.flip is False
        assert make_views("fashion")["weak"].flip is True


class TestStrong:
    def test_operations_differ_by_sample(self):
        view = make_views("fashion")["strong"]
        x, _ = inputs(view, 1, seed=3)
        u = torch.rand(200, view.columns, generator=torch.Generator().manual_seed(0))
        out = view(x.expand(200, -1, -1, -1), u)
        assert len({tuple(row) for row in out.flatten(1).tolist()}) > 190

    def test_draws_all_operations_equally_often(self):
        view = StrongView(ops=("invert", "identity"), num_ops=1, cutout=0.0)
        x = torch.zeros(4000, 1, 2, 2)
        u = torch.rand(4000, view.columns, generator=torch.Generator().manual_seed(0))
        inverted = view(x, u).amax((1, 2, 3)).mean()
        assert abs(inverted - 0.5) < 0.03

    def test_slots_work_one_after_the_other(self):
        view = StrongView(WeakView(shift=0.0), ops=("invert",), num_ops=2, cutout=0.0)
        x, u = inputs(view, 5)
        torch.testing.assert_close(view(x, u), x)

    def test_nothing_switched_on_is_the_weak_view(self):
        weak = WeakView(flip=True)
        view = StrongView(weak, num_ops=0, cutout=0.0)
        x, u = inputs(view, 20)
        assert torch.equal(view(x, u), weak(x, u[:, 3:]))

    def test_strength_zero_leaves_signed_operations_without_effect(self):
        ops = ("brightness", "contrast", "translate_x")
        view = StrongView(WeakView(shift=0.0), ops=ops, strength=0.0, cutout=0.0)
        x, u = inputs(view, 30)
        torch.testing.assert_close(view(x, u), x, atol=1e-5, rtol=0)

    def test_images_stay_in_frame(self):
        """A blob in the middle is nearly always still there: translations are relative."""
        moves = ["rotate", "shear_x", "shear_y", "translate_x", "translate_y", "identity"]
        view = make_views("fashion", cutout=0.0, ops=moves)["strong"]
        x = torch.zeros(2000, 1, 28, 28)
        x[:, :, 7:21, 7:21] = 1
        u = torch.rand(2000, view.columns, generator=torch.Generator().manual_seed(0))
        visible = (view(x, u) > 0.05).sum((1, 2, 3)) > 0.5 * 14 * 14
        assert visible.float().mean() > 0.97

    def test_more_than_twelve_operations_are_known(self):
        assert len(KNOWN_OPS) >= 12
        assert len(make_views("fashion")["strong"].ops) >= 12

    def test_lists_of_operations_are_taken(self):
        assert StrongView(ops=["invert"]).ops == ("invert",)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 12),
    side=st.integers(2, 12),
    shift=st.floats(0, 0.5),
    num_ops=st.integers(0, 3),
    strength=st.floats(0, 1),
    cutout=st.floats(0, 1),
    reflect=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_setting_keeps_the_range(rows, side, shift, num_ops, strength, cutout, reflect, seed):
    weak = WeakView(shift=shift, edge="reflect" if reflect else "fill", flip=True, fill=0.3)
    view = StrongView(weak, ops=KNOWN_OPS, num_ops=num_ops, strength=strength, cutout=cutout)
    x, u = inputs(view, rows, (3, side, side + 1), seed=seed)
    out = view(x, u)
    assert out.shape == x.shape
    assert out.min() >= 0
    assert out.max() <= 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_views("faces"), "dataset.views=faces is not known; allowed: digits, fashion"),
        (lambda: make_views("digits", colour=1), "no setting colour; allowed: shift"),
        (lambda: make_views("none", shift=0.1), "no setting shift; allowed: none"),
        (lambda: WeakView(shift=0.6), r"shift must be in \[0, 0.5\], got 0.6"),
        (lambda: WeakView(fill=float("nan")), "fill must be in"),
        (lambda: WeakView(edge="wrap"), "'fill' or 'reflect', got 'wrap'"),
        (lambda: StrongView(ops=("blur",)), "got blur"),
        (lambda: StrongView(ops=()), "got none"),
        (lambda: StrongView(num_ops=-1), "num_ops must be >= 0, got -1"),
        (lambda: StrongView(strength=1.1), "strength must be in"),
        (lambda: StrongView(cutout=-0.1), "cutout must be in"),
        (lambda: WeakView()(torch.zeros(2, 3), torch.zeros(2, 3)), r"got torch.float32 \(2, 3\)"),
        (lambda: WeakView()(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4)), r"shape \(2, 3\), got"),
    ],
)
def test_wrong_settings_say_what_is_allowed(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_changes_reach_both_views():
    views = make_views("natural", shift=0.25, cutout=0.1, ops=["invert"])
    assert views["weak"].shift == 0.25
    assert views["strong"].weak == views["weak"]
    assert (views["strong"].cutout, views["strong"].ops) == (0.1, ("invert",))
