import numpy as np
import pytest

from fedlabels import aggregation
from fedlabels.aggregation import Prototypes
from fedlabels.seeds import generator


class TestMean:
    # {0: [2, 0]}, {0: [0, 2], 1: [4, 4]}, {}
    VALUES = np.array([[[2.0, 0.0], [9, 9], [9, 9]], [[0, 2], [4, 4], [9, 9]], [[9, 9]] * 3])
    SENT = np.array([[1.0, 0, 0], [1, 1, 0], [0, 0, 0]])

    def test_unweighted_and_by_counts(self) -> None:
        made = aggregation.prototype_mean(self.VALUES, self.SENT)
        assert made.vectors.tolist() == [[1, 1], [4, 4], [0, 0]]
        assert made.present.tolist() == [True, True, False]
        counts = np.array([[3.0, 0, 0], [1, 2, 0], [0, 0, 0]])
        assert aggregation.prototype_mean(self.VALUES, counts).vectors[0].tolist() == [1.5, 0.5]

    def test_order_does_not_matter_but_a_second_copy_does(self) -> None:
        values = np.random.default_rng(0).normal(size=(4, 3, 2))
        sent = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
        made = aggregation.prototype_mean(values, sent)
        turned = aggregation.prototype_mean(values[::-1], sent[::-1])
        np.testing.assert_allclose(made.vectors, turned.vectors, rtol=1e-14)
        twice = aggregation.prototype_mean(values[[0, 0, 1, 2, 3]], sent[[0, 0, 1, 2, 3]])
        assert abs(twice.vectors - made.vectors).max() > 0.05

    def test_what_is_not_sent_may_be_anything(self) -> None:
        values = np.where(self.SENT[..., None] > 0, self.VALUES, np.nan)
        made = aggregation.prototype_mean(values, self.SENT)
        assert made.vectors.tolist() == [[1, 1], [4, 4], [0, 0]]

    def test_memory_keeps_what_nobody_sent(self) -> None:
        old = Prototypes(np.full((3, 2), 7.0), np.array([True, False, True]))
        kept = aggregation.remembered(aggregation.prototype_mean(self.VALUES, self.SENT), old)
        assert kept.vectors.tolist() == [[1, 1], [4, 4], [7, 7]]
        assert kept.present.tolist() == [True, True, True]


class TestAnchorEma:
    def test_two_updates(self) -> None:
        anchors = np.array([[3.0, 4.0], [1.0, 1.0]])
        one = Prototypes(np.array([[1.0, 0.0], [0, 0]]), np.array([True, False]))
        moved = aggregation.anchor_ema(anchors, one, 0.9999)
        np.testing.assert_allclose(moved[0], [2.9998, 3.9996], rtol=1e-14)
        again = aggregation.anchor_ema(moved, one, 0.9999)
        np.testing.assert_allclose(again[0], [2.99960002, 3.99920004], rtol=1e-14)

    @pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9999, 1.0])
    def test_absent_classes_keep_their_bits(self, alpha: float) -> None:
        anchors = np.random.default_rng(1).normal(size=(3, 4))
        given = Prototypes(np.ones((3, 4)), np.array([False, True, False]))
        moved = aggregation.anchor_ema(anchors, given, alpha)
        assert (moved[[0, 2]] == anchors[[0, 2]]).all()
        if alpha == 1:
            assert (moved == anchors).all()
        if alpha == 0:
            assert (moved[1] == 1).all()


class TestAnchors:
    def test_of_the_paper(self) -> None:
        made = aggregation.draw_anchors(10, 128, generator(3, "anchors"))
        again = aggregation.draw_anchors(10, 128, generator(3, "anchors"))
        other = aggregation.draw_anchors(10, 128, generator(4, "anchors"))
        assert (made == again).all()
        assert (made != other).any()
        assert made.min() == 0
        assert 0.4 < (made == 0).mean() < 0.6
        # positive parts of standardized values: a squared norm of about half the width
        assert 0.4 * 128 < np.square(made).sum(axis=1).mean() < 0.6 * 128

    def test_two_classes_are_patterns_of_zeros_and_ones(self) -> None:
        made = aggregation.draw_anchors(2, 32, generator(0, "anchors"))
        np.testing.assert_allclose(made.sum(axis=0), 1, atol=0.1)
        np.testing.assert_allclose(made.prod(axis=0), 0)

    def test_equidistant(self) -> None:
        made = aggregation.equidistant_anchors(5, 40, generator(0, "anchors"))
        assert made.min() == 0
        distance = np.linalg.norm(made[:, None] - made, axis=2)
        np.testing.assert_allclose(distance[~np.eye(5, dtype=bool)], 40**0.5, rtol=1e-12)
        np.testing.assert_allclose(np.square(made).sum(axis=1), 20, rtol=1e-12)
        centered = made - made.mean(axis=0)
        cosine = centered @ centered.T / np.square(centered).sum(axis=1)
        np.testing.assert_allclose(cosine[~np.eye(5, dtype=bool)], -1 / 4, rtol=1e-12)

    def test_equidistant_needs_a_coordinate_a_class(self) -> None:
        with pytest.raises(ValueError, match="5 classes need a width >= 5, got 4"):
            aggregation.equidistant_anchors(5, 4, generator(0, "anchors"))
