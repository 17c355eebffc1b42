import numpy as np
import pytest

from fedlabels.data import shift_ops as ops
from fedlabels.data.dataset import pair
from fedlabels.data.shift import (
    DOMAINS,
    TRANSFORMS,
    Shift,
    deal_domains,
    render,
    shift_clients,
    shift_domains,
)
from fedlabels.errors import ConfigError

RANDOM = np.random.default_rng(0)


def source(samples=60, channels=3, dtype=np.uint8, domains=None):
    x = RANDOM.integers(0, 256, (samples, channels, 8, 8)).astype(dtype)
    y = np.arange(samples) % 4 - (np.arange(samples) == 7) * 4
    return pair(
        "toy",
        (x, y),
        (x[:20], np.arange(20) % 4),
        class_names=tuple("abcd"),
        mean=(0.5,) * channels,
        std=(0.2,) * channels,
        domains=domains,
    )


class TestTransforms:
    images = RANDOM.random((3, 8, 8, 3))
    eps = RANDOM.standard_normal((3, 8, 8, 3))

    @pytest.mark.parametrize("name", sorted(TRANSFORMS))
    def test_stay_in_range_and_see_one_image_at_a_time(self, name):
        out = TRANSFORMS[name](self.images, self.eps)
        assert out.shape == self.images.shape
        assert out.min() >= 0
        assert out.max() <= 1
        alone = TRANSFORMS[name](self.images[1:2], self.eps[1:2])
        np.testing.assert_allclose(out[1:2], alone, atol=1e-14)

    def test_identities(self):
        x = self.images
        turned = x
        for _ in range(4):
            turned = ops.rot90(turned, 1)
        np.testing.assert_array_equal(turned, x)
        np.testing.assert_allclose(ops.invert(ops.invert(x)), x, atol=1e-15)
        np.testing.assert_array_equal(ops.channel_perm(ops.channel_perm(x)), x)
        np.testing.assert_allclose(ops.gray(ops.gray(x)), ops.gray(x), atol=1e-15)

    def test_a_constant_image(self):
        flat = np.full((1, 8, 8, 3), 0.3)
        np.testing.assert_allclose(ops.edge(flat), 1.0)
        np.testing.assert_allclose(ops.contrast(flat, 0.2), flat)
        np.testing.assert_allclose(ops.blur(flat, 1.0), flat)

    def test_what_cannot_be_done(self):
        with pytest.raises(ConfigError, match="square images, got 8 x 6"):
            ops.rot90(self.images[:, :, :6], 1)
        with pytest.raises(ConfigError, match="does not divide images of 8 x 8"):
            ops.pixelate(self.images, 3)


class TestDomains:
    def test_equal_histograms_and_every_image_once(self):
        data = source(203)
        domain = deal_domains(data.train, 3, np.random.default_rng(0))
        assert set(domain) == {0, 1, 2}
        for c in range(-1, 4):
            counts = np.bincount(domain[data.train.y == c], minlength=3)
            assert counts.max() - counts.min() <= 1

    def test_one_domain_gets_everything(self):
        assert not deal_domains(source().train, 1, np.random.default_rng(0)).any()

    def test_each_image_looks_like_its_domain(self):
        data = source()
        made = shift_domains(data, Shift(preset="rot4"), 3)
        assert made.train.domain_names == DOMAINS["rot4"]
        assert made.train.name == "toy-rot4"
        for x, base, domain in zip(made.train.x, data.train.x, made.train.domain, strict=True):
            np.testing.assert_array_equal(x, np.rot90(base, domain, axes=(1, 2)))

    def test_the_test_set_is_rendered_in_every_domain_in_one_order(self):
        data = source()
        made = shift_domains(data, Shift(preset="sfs4"), 3)
        np.testing.assert_array_equal(made.test.y, np.tile(data.test.y, 4))
        np.testing.assert_array_equal(made.test.x[:20], data.test.x)
        assert (made.test.x[60:] != data.test.x).any()
        assert (made.train.mean, made.train.std) == (data.train.mean, data.train.std)

    def test_grey_images_get_colours_only_where_needed(self):
        grey = source(channels=1)
        assert shift_domains(grey, Shift(preset="sfs4"), 0).train.shape == (3, 8, 8)
        assert shift_domains(grey, Shift(preset="rot4"), 0).train.shape == (1, 8, 8)

    def test_the_seed_changes_noise_and_dealing_only(self):
        data = source()
        one, again, other = (shift_domains(data, Shift(preset="sfs4"), s) for s in (0, 0, 1))
        np.testing.assert_array_equal(one.train.x, again.train.x)
        assert (one.train.domain != other.train.domain).any()
        clean_warm = np.isin(one.test.domain, [0, 1])
        np.testing.assert_array_equal(one.test.x[clean_warm], other.test.x[clean_warm])
        noisy = one.test.domain == 2
        assert (one.test.x[noisy] != other.test.x[noisy]).any()

    def test_noise_belongs_to_the_image(self):
        x = np.full((1100, 1, 8, 8), 128, dtype=np.uint8)
        noisy = TRANSFORMS["negative_noise"]
        every = render(x, np.arange(1100), noisy, 0, "train")
        some = np.array([3, 600, 1099])
        np.testing.assert_array_equal(render(x, some, noisy, 0, "train"), every[some])
        assert (every[3] != every[600]).any()
        assert (render(x, some, noisy, 0, "test") != every[some]).any()

    def test_refusals(self):
        floats = pair(
            "series",
            (RANDOM.random((8, 2, 5)).astype(np.float32), np.arange(8) % 2),
            (RANDOM.random((8, 2, 5)).astype(np.float32), np.arange(8) % 2),
            class_names=("a", "b"),
            mean=(0.5,) * 2,
            std=(0.2,) * 2,
        )
        with pytest.raises(ConfigError, match=r"is for images .uint8.; data set 'series'"):
            shift_domains(floats, Shift(preset="sfs4"), 0)
        own = source(domains=(np.zeros(60, dtype=np.int64), np.zeros(20, dtype=np.int64), ("a",)))
        with pytest.raises(ConfigError, match="has domains of its own"):
            shift_domains(own, Shift(preset="sfs4"), 0)
        with pytest.raises(ConfigError, match=r"shift\.preset must be one of none, sfs4"):
            Shift(preset="sfs5")


class TestClients:
    owner = np.arange(60) % 3

    def test_graded_noise(self):
        data = source()
        made = shift_clients(data, Shift(preset="noise", sigma_max=0.2), self.owner, 3, 0)
        moved = np.abs(made.train.x.astype(float) - data.train.x).mean(axis=(1, 2, 3))
        assert moved[self.owner == 0].max() == 0
        assert moved[self.owner == 2].mean() > 1.5 * moved[self.owner == 1].mean() > 0
        np.testing.assert_array_equal(made.test.x, data.test.x)

    def test_a_share_of_the_clients_is_corrupted(self):
        data = source()
        made = shift_clients(data, Shift(preset="corruptions", share=0.34), self.owner, 3, 0)
        changed = (made.train.x != data.train.x).any(axis=(1, 2, 3))
        assert len(set(self.owner[changed])) == 1

    def test_none_leaves_the_data_alone(self):
        data = source()
        assert shift_clients(data, Shift(), self.owner, 3, 0) is data
        assert shift_domains(data, Shift(), 0) is data
