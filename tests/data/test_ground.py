"""Views are refused where they do not fit the samples, and fill with the paper of the data."""

import json

import numpy as np
import pytest
import torch

from fedlabels.data import load, make_views
from fedlabels.data.dataset import ArrayDataset
from fedlabels.data.ground import ground, views_for
from fedlabels.errors import ConfigError
from fedlabels.preview import preview
from tests.end_to_end.harness import TINY, config_of, prints, simulate


def dataset(x):
    names, channels = ("a", "b"), x.shape[1]
    return ArrayDataset(
        "toy", x, np.arange(len(x)) % 2, 2, names, (0.0,) * channels, (1.0,) * channels
    )


def drawings(paper=0, *, channels=1, count=40):
    x = np.full((count, channels, 12, 12), paper, np.uint8)
    x[:, :, 3:9, 3:9] = 255 - paper
    x[::3, :, 0:2, 3:9] = 255 - paper  # ink that touches the border
    return x


class TestFit:
    @pytest.mark.parametrize("preset", ["digits", "fashion", "natural"])
    @pytest.mark.parametrize(
        ("shape", "said"),
        [((13,), "13 features; choose dataset.views=none"),
         ((9, 128), "9 channels x 128 steps; choose dataset.views=one of timeseries or none")],
    )  # fmt: skip
    def test_image_views_are_for_images(self, preset, shape, said):
        with pytest.raises(ConfigError, match=f"dataset.views={preset} is for images.*{said}"):
            views_for(preset, {}, dataset(np.zeros((4, *shape), np.float32)))

    @pytest.mark.parametrize("shape", [(13,), (3, 8, 8)])
    def test_series_views_are_for_series(self, shape):
        with pytest.raises(ConfigError, match=r"dataset.views=timeseries is for series"):
            views_for("timeseries", {}, dataset(np.zeros((4, *shape), np.float32)))

    def test_colours_need_one_or_three_channels(self):
        x = dataset(np.zeros((4, 4, 8, 8), np.uint8))
        with pytest.raises(
            ConfigError, match=r"4 channels; choose dataset\.views=digits or fashion"
        ):
            views_for("natural", {}, x)
        assert views_for("natural", {"ops": ["rotate"]}, x) == {"ops": ["rotate"]}
        assert views_for("digits", {}, x)["fill"] == 0.0

    @pytest.mark.parametrize(("low", "high"), [(-1, 1), (0, 255)])
    def test_floats_must_be_in_the_range_of_views(self, low, high):
        x = np.linspace(low, high, 4 * 64, dtype=np.float32).reshape(4, 1, 8, 8)
        with pytest.raises(ConfigError, match=f"reach from {low} to {high}; store pixels as uint8"):
            views_for("fashion", {}, dataset(x))

    def test_none_fits_everything(self):
        for shape in ((13,), (9, 128), (4, 8, 8), (2, 3, 4, 5)):
            assert views_for("none", {}, dataset(np.zeros((4, *shape), np.float32))) == {}

    def test_a_run_is_refused_before_its_folder_is_made(self, tmp_path):
        x = np.random.default_rng(0).normal(size=(40, 13)).astype(np.float32)
        y = np.arange(40) % 2
        np.savez(tmp_path / "t.npz", x_train=x, y_train=y, x_test=x, y_test=y)
        given = (f"dataset.root={tmp_path / 't.npz'}", "dataset.views=natural", "clients=4")
        config = config_of(*TINY, "dataset=npz", *given, "per_round=4", "method=fixmatch")
        with pytest.raises(ConfigError, match=r"choose dataset\.views=none"):
            simulate(tmp_path / "run", config)
        assert not (tmp_path / "run").exists()
        with pytest.raises(ConfigError, match=r"choose dataset\.views=none"):
            preview(["dataset=npz", *given, "per_round=4"], tmp_path / "p.html")


class TestGround:
    @pytest.mark.parametrize(("paper", "level"), [(0, 0.0), (255, 1.0), (230, 0.902)])
    def test_is_the_level_of_the_paper(self, paper, level):
        for x in (drawings(paper), (drawings(paper) / 255).astype(np.float32)):
            assert ground(x) == pytest.approx(level, abs=1e-3)

    def test_is_unknown_where_there_is_no_paper(self):
        random = np.random.default_rng(0)
        assert ground(random.integers(0, 256, (50, 1, 12, 12), dtype=np.uint8)) is None
        blue = np.zeros((50, 3, 12, 12), np.uint8)
        blue[:, 2] = 255
        assert ground(blue) is None
        assert ground(np.zeros((0, 1, 12, 12), np.uint8)) is None
        assert ground(np.zeros((5, 9, 128), np.float32)) is None

    @pytest.mark.parametrize("preset", ["digits", "fashion"])
    def test_decides_what_views_fill_with(self, preset):
        assert views_for(preset, {}, dataset(drawings(255)))["fill"] == 1.0
        assert views_for(preset, {}, dataset(drawings(10)))["fill"] == 0.0
        assert views_for(preset, {"fill": 0.5}, dataset(drawings(255)))["fill"] == 0.5

    def test_photographs_are_mirrored_at_the_border_as_ever(self):
        assert views_for("natural", {}, dataset(drawings(255, channels=3))) == {}
        paper = views_for("natural", {"edge": "fill"}, dataset(drawings(255, channels=3)))
        assert paper == {"edge": "fill", "fill": 1.0}

    def test_is_black_for_the_digits_that_everybody_has(self):
        assert views_for("digits", {}, load("digits").train) == {"fill": 0.0}

    def test_views_without_data_follow_the_border_of_each_image(self):
        black = torch.tensor(drawings(0) / 255).float()
        for preset in ("digits", "fashion"):
            free, dark = make_views(preset), make_views(preset, fill=0.0)
            light = make_views(preset, fill=1.0)
            for kind in ("weak", "strong"):
                random = torch.Generator().manual_seed(0)
                u = torch.rand(len(black), free[kind].columns, generator=random)
                assert torch.equal(free[kind](black, u), dark[kind](black, u))
                assert torch.equal(free[kind](1 - black, u), light[kind](1 - black, u))
                mixed = torch.cat([black[:5], 1 - black[5:]])
                together = free[kind](mixed, u)
                alone = [free[kind](mixed[i : i + 1], u[i : i + 1]) for i in range(len(mixed))]
                assert torch.equal(together, torch.cat(alone))

    def test_a_run_on_white_paper_says_it_and_equals_one_that_is_told(self, tmp_path):
        source = load("digits")
        parts = {"x_train": 255 - source.train.x[:300], "y_train": source.train.y[:300]}
        tests = {"x_test": 255 - source.test.x[:50], "y_test": source.test.y[:50]}
        np.savez(tmp_path / "white.npz", **parts, **tests)
        given = (
            *TINY, "dataset=npz", f"dataset.root={tmp_path / 'white.npz'}", "dataset.views=digits",
            "method=fixmatch", "rounds=1", "training.steps=3",
        )  # fmt: skip
        made = {}
        for name, more in {"own": (), "told": ("dataset.view_options.fill=1.0",)}.items():
            simulate(tmp_path / name, config_of(*given, *more))
            made[name] = prints(tmp_path / name)
        assert made["own"] == made["told"]
        manifest = json.loads((tmp_path / "own" / "manifest.json").read_text())
        assert manifest["view_options"] == {"fill": 1.0}
        assert manifest["sample"] == "image, 1 x 8 x 8 (channels x height x width)"
        shown = preview([*given[:-2], "labels.fraction=0.5"], tmp_path / "p.html")
        assert "one sample" in shown
        assert "1 x 8 x 8" in shown
        assert "1 (0 black, 1 white)" in shown
