import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlabels.data import make_views, series_ops
from fedlabels.data.series_views import StrongSeriesView, WeakSeriesView
from fedlabels.errors import ConfigError

VIEWS = make_views("timeseries", flip=True, segments=6, crop=0.5)
QUIET = WeakSeriesView(jitter=0.0, scale=0.0)  # leaves a series alone
SHAPES = [(6, 128), (3, 17), (1, 1), (2, 2), (1, 1000)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def series(rows, shape=(3, 40), dtype=torch.float64, seed=0):
    return torch.randn(rows, *shape, generator=generator(seed), dtype=dtype)


def numbers(view, rows, dtype=torch.float64, seed=1):
    return torch.rand(rows, view.columns, generator=generator(seed), dtype=dtype)


def ramps(rows, time=40):
    """Series that count their time steps, on two channels alike."""
    return torch.arange(time, dtype=torch.float64).expand(rows, 2, time).contiguous()


# ---- the protocol


@pytest.mark.parametrize("kind", ["weak", "strong"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_row_is_the_same_alone_and_in_any_batch(kind, dtype, shape):
    view, x = VIEWS[kind], 100 + 3 * series(67, shape, dtype)
    u = numbers(view, 67, dtype)
    together = view(x, u)
    assert together.shape == x.shape
    assert together.dtype == dtype
    assert torch.isfinite(together).all()
    alone = torch.cat([view(x[i : i + 1], u[i : i + 1]) for i in range(67)])
    assert torch.equal(together, alone)
    order = torch.randperm(67, generator=generator(2))
    assert torch.equal(view(x[order], u[order]), together[order])


@pytest.mark.parametrize("kind", ["weak", "strong"])
def test_inputs_stay_as_they_are_and_single_numbers_equal_double_ones(kind):
    view, x = VIEWS[kind], series(20)
    u = numbers(view, 20, torch.float32)
    kept = x.clone(), u.clone()
    assert torch.equal(view(x, u), view(x, u.double()))
    assert torch.equal(x, kept[0])
    assert torch.equal(u, kept[1])


@pytest.mark.parametrize("kind", ["weak", "strong"])
def test_an_empty_batch_stays_empty(kind):
    assert VIEWS[kind](series(0), numbers(VIEWS[kind], 0)).shape == (0, 3, 40)


@pytest.mark.parametrize("kind", ["weak", "strong"])
def test_every_draw_gives_another_series(kind):
    view = make_views("timeseries")[kind]
    out = view(series(1).expand(300, -1, -1), numbers(view, 300))
    assert len({tuple(row) for row in out.flatten(1).tolist()}) == 300


@pytest.mark.parametrize("kind", ["weak", "strong"])
def test_the_unit_of_a_channel_does_not_matter(kind):
    """Raw data go in: scaled and shifted channels come out scaled and shifted, not noisier."""
    view, x = make_views("timeseries")[kind], series(30)
    u = numbers(view, 30)
    factor = torch.tensor([1e-3, 1.0, 500.0], dtype=torch.float64).view(3, 1)
    offset = torch.tensor([9.81, -40.0, 1e4], dtype=torch.float64).view(3, 1)
    torch.testing.assert_close(view(factor * x + offset, u), factor * view(x, u) + offset)


@pytest.mark.parametrize("kind", ["weak", "strong"])
def test_constant_channels_stay_constant(kind):
    view = make_views("timeseries")[kind]
    x = torch.full((20, 2, 30), 7.5, dtype=torch.float64)
    torch.testing.assert_close(view(x, numbers(view, 20)), x)


# ---- weak


def test_jitter_is_normal_noise_of_the_stated_size():
    x = 20 * series(400)
    noise = WeakSeriesView(jitter=0.3, scale=0.0)(x, numbers(WeakSeriesView(), 400)) - x
    size = noise / (0.3 * x.std(2, correction=0, keepdim=True))
    assert abs(size.mean()) < 0.02
    assert abs(size.std() - 1) < 0.02
    assert abs((size.abs() < 1).double().mean() - 0.6827) < 0.01
    assert abs((size.abs() > 2).double().mean() - 0.0455) < 0.005
    steps = (size[:, :, 1:] * size[:, :, :-1]).mean(), (size[:, 0] * size[:, 1]).mean()
    assert max(map(abs, steps)) < 0.02  # neither time steps nor channels share noise


def test_scaling_is_one_factor_a_channel_about_its_mean():
    x = 5 + series(2000, (2, 12))
    out = WeakSeriesView(jitter=0.0, scale=0.2)(x, numbers(WeakSeriesView(), 2000))
    mean = x.mean(2, keepdim=True)
    factors = (out - mean) / (x - mean)
    torch.testing.assert_close(factors, factors[:, :, :1].expand_as(factors), rtol=1e-5, atol=0)
    factors = factors[:, :, 0]
    assert abs(factors.mean() - 1) < 0.02
    assert abs(factors.std() - 0.2) < 0.01
    assert abs(torch.corrcoef(factors.T)[0, 1]) < 0.05


def test_switched_off_is_the_series_itself():
    x = series(5)
    assert torch.equal(QUIET(x, numbers(QUIET, 5)), x)
    view = StrongSeriesView(QUIET, segments=1, crop=1.0)
    assert torch.equal(view(x, numbers(view, 5)), x)


# ---- strong


def test_permutation_moves_whole_segments_of_all_channels_alike():
    view = StrongSeriesView(QUIET, segments=5, crop=1.0)
    out = view(ramps(3000), numbers(view, 3000))
    assert torch.equal(out[:, 0], out[:, 1])
    out = out[:, 0]
    assert torch.equal(out.sort(dim=1).values, ramps(3000)[:, 0])  # no step is lost or doubled
    breaks = (out[:, 1:] - out[:, :-1] != 1).sum(1)
    assert set(breaks.tolist()) == {0, 1, 2, 3, 4}
    # A fifth has one segment; of n segments, some orders leave neighbours together.
    left = (breaks == 0).double().mean()
    assert abs(left - sum(1 / math.factorial(n) for n in range(1, 6)) / 5) < 0.03


def test_segments_are_cut_by_weight_and_put_in_the_order_of_their_ranks():
    weight = torch.tensor([[64, 127, 64, 100, 90], [64, 127, 0, 0, 0]])
    out = series_ops.reorder(ramps(2, 400), weight, -torch.arange(5).expand(2, 5))[:, 0]
    starts = [[row[0].item(), *row[1:][row.diff() != 1].tolist()] for row in out]
    assert starts[0] == [400 * sum(weight[0, :s]) // 445 for s in (4, 3, 2, 1, 0)]
    assert starts[1] == [400 * 64 // 191, 0]


def test_no_segment_is_more_than_twice_as_long_as_another():
    view = StrongSeriesView(QUIET, segments=4, crop=1.0)
    u = numbers(view, 500)
    u[:, 0] = 0.99  # all have four segments
    for row in view(ramps(500, 1000), u)[:, 0]:
        cuts = torch.nonzero(row.diff() != 1).flatten() + 1
        if len(cuts) == 3:
            lengths = torch.diff(cuts, prepend=torch.tensor([0]), append=torch.tensor([1000]))
            assert lengths.max() <= 2 * lengths.min() + 2


def test_orders_of_segments_are_equally_likely():
    view = StrongSeriesView(QUIET, segments=3, crop=1.0)
    u = numbers(view, 6000)
    u[:, 0] = 0.99  # all have three segments
    out = view(ramps(6000, 30), u)[:, 0]
    first = out[:, 0]
    for low, high in ((0, 1), (1, 16), (16, 30)):
        assert abs(((first >= low) & (first < high)).double().mean() - 1 / 3) < 0.03


def test_crops_are_stretched_to_the_whole_length():
    view = StrongSeriesView(QUIET, segments=1, crop=0.5)
    out = view(ramps(3000), numbers(view, 3000))[:, 0]
    slopes = out.diff(dim=1)
    torch.testing.assert_close(slopes, slopes[:, :1].expand_as(slopes))  # a line stays a line
    assert out.min() >= 0
    assert out.max() <= 39
    assert slopes.min() >= 0.5
    assert abs(slopes.mean() - 0.75) < 0.01
    assert abs(out.mean() - 19.5) < 0.3  # windows lie anywhere


def test_a_window_is_read_between_the_steps():
    x = torch.tensor([0.0, 1.0, 4.0, 9.0, 16.0]).view(1, 1, 5)
    half = torch.tensor([0.5])
    out = series_ops.stretch(x, half, half)  # steps 2, 2.5, 3, 3.5, 4
    assert out.flatten().tolist() == [4.0, 6.5, 9.0, 12.5, 16.0]
    whole = series_ops.stretch(x, torch.zeros(1), torch.ones(1))
    assert torch.equal(whole, x)


def test_signs_change_only_where_asked():
    x = 1 + series(2000, (2, 8)).abs()
    plain, flipped = (StrongSeriesView(QUIET, segments=1, crop=1.0, flip=f) for f in (False, True))
    u = numbers(plain, 2000)
    assert torch.equal(plain(x, u), x)
    sign = flipped(x, u) / x
    assert torch.equal(sign.abs(), torch.ones_like(sign))
    assert torch.equal(sign, sign[:, :, :1].expand_as(sign))
    assert abs(sign.mean()) < 0.05
    assert abs((sign[:, 0, 0] * sign[:, 1, 0]).mean()) < 0.07  # channels by themselves
    assert make_views("timeseries")["strong"].flip is False


def test_strong_ends_with_the_weak_view():
    weak = WeakSeriesView(jitter=0.5)
    view = StrongSeriesView(weak, segments=1, crop=1.0)
    x = series(10)
    u = numbers(view, 10)
    assert torch.equal(view(x, u), weak(x, u[:, -weak.columns :]))


def test_hashed_numbers_do_not_repeat_over_rows_purposes_and_places():
    key = series_ops.keys(torch.rand(200, 2, generator=generator(), dtype=torch.float64))
    drawn = torch.stack([series_ops.bits(key, tag, 50) for tag in range(3)])
    assert drawn.min() >= 0
    assert drawn.max() < 2**24
    assert len(drawn.unique()) > 0.998 * drawn.numel()  # 30,000 of 2**24: some 27 meet by chance
    assert abs(drawn.double().mean() / 2**23 - 1) < 0.01
    assert len(series_ops.keys(torch.tensor([[0.0, 0.5], [0.5, 0.0], [0.5, 0.5]])).unique()) == 3


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 9),
    time=st.integers(1, 30),
    segments=st.integers(1, 64),
    crop=st.floats(0.05, 1),
    seed=st.integers(0, 1000),
)
def test_any_setting_stays_within_the_values_of_the_series(rows, time, segments, crop, seed):
    view = StrongSeriesView(QUIET, segments=segments, crop=crop)
    x = series(rows, (2, time), seed=seed)
    u = numbers(view, rows, seed=seed)
    u[0] = 1 - 2.0**-53  # the largest number below one
    out = view(x, u)
    assert out.shape == x.shape
    assert (out.amax(2) <= x.amax(2) + 1e-12).all()
    assert (out.amin(2) >= x.amin(2) - 1e-12).all()


# ---- settings


def test_changes_reach_both_views():
    views = make_views("timeseries", jitter=0.2, segments=8, flip=True)
    assert views["weak"] == WeakSeriesView(jitter=0.2)
    assert views["strong"] == StrongSeriesView(WeakSeriesView(jitter=0.2), segments=8, flip=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: make_views("timeseries", cutout=0.1),
            "'timeseries' have no setting cutout; allowed: jitter, scale, segments, crop, flip",
        ),
        (lambda: make_views("fashion", jitter=0.1), "no setting jitter; allowed: shift"),
        (
            lambda: make_views("series"),
            "dataset.views=series is not known .*; allowed: .*timeseries, none",
        ),
        (lambda: WeakSeriesView(jitter=-0.1), r"jitter must be in \[0, 10\], got -0.1"),
        (lambda: WeakSeriesView(scale=float("nan")), r"scale must be in \[0, 1\], got nan"),
        (lambda: StrongSeriesView(segments=0), r"segments must be in \[1, 64\], got 0"),
        (lambda: StrongSeriesView(segments=2.5), "segments must be a whole number, got 2.5"),
        (lambda: StrongSeriesView(crop=0.0), r"crop must be in \[0.05, 1\], got 0.0"),
        (lambda: QUIET(torch.zeros(2, 1, 4, 4), torch.zeros(2, 2)), r"got .*\(2, 1, 4, 4\)"),
        (lambda: QUIET(torch.zeros(2, 1, 4).int(), torch.zeros(2, 2)), "got torch.int32"),
        (lambda: QUIET(torch.zeros(2, 3, 0), torch.zeros(2, 2)), r"\(2, 3, 0\)"),
        (lambda: QUIET(torch.zeros(2, 3, 9), torch.zeros(2, 3)), r"shape \(2, 2\), got \(2, 3\)"),
        (
            lambda: make_views("digits")["weak"](torch.zeros(2, 6, 9), torch.zeros(2, 3)),
            "use the preset 'timeseries'",
        ),
    ],
)
def test_wrong_settings_say_what_is_allowed(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
