import math

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from fedlabels import losses
from fedlabels.errors import ConfigError
from tests.losses.helpers import logits

TWO = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=torch.float64)
THREE = torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]], dtype=torch.float64)
R, Y = torch.tensor([[3.0, 0.0]], dtype=torch.float64), torch.tensor([0])
ANCHORS, FEATURES = logits(5, 4, seed=1), logits(6, 4, seed=2)
LABELS = torch.tensor([0, 4, 2, 2, 1, 0])
HEAD = logits(5, 4, seed=3)


def mcl(features: Tensor, labels: Tensor, table: Tensor, margin: float | Tensor) -> Tensor:
    return losses.margin_contrast(features, labels, table, margin).mean()


class TestByHand:
    """Section 9 of the description: two anchors, one sample."""

    def test_margin_pull_and_contrast(self) -> None:
        margin = losses.anchor_margin(TWO)
        assert (float(margin.anchor_gap), float(margin.value), float(margin.local_gap)) == (5, 5, 0)
        assert float(losses.prototype_pull(R, Y, TWO)) == 4.5
        assert float(mcl(R, Y, TWO, margin.value)) == pytest.approx(4.018149927917810, rel=1e-12)
        assert float(mcl(R, Y, TWO, 0.0)) == pytest.approx(0.313261687518223, rel=1e-12)

    def test_calibration_of_an_identity_head(self) -> None:
        loss = losses.calibration_loss(TWO).mean()
        assert float(loss) == pytest.approx((math.log(2) + math.log1p(math.exp(-1))) / 2, rel=1e-12)

    def test_pull_to_prototypes_that_exist(self) -> None:
        features = torch.tensor([[1.0, 1.0], [5.0, 5.0]], dtype=torch.float64)
        labels, present = torch.tensor([0, 2]), torch.tensor([True, True, False])

        def loss(features: Tensor) -> Tensor:
            return losses.prototype_pull(features, labels, torch.zeros(3, 2), present).mean()

        assert float(loss(features)) == 0.5
        assert grad(loss)(features).tolist() == [[0.5, 0.5], [0.0, 0.0]]

    def test_tgp_margins(self) -> None:
        here = torch.ones(3, dtype=torch.bool)
        for tau in (100.0, 4.0):
            near = losses.tgp_margin(THREE, here, tau=tau)
            wide = losses.tgp_margin(THREE, here, tau=tau, form="max_pair")
            assert near.gaps.tolist() == [5, 5, 5]
            assert (float(near.value), float(wide.value)) == (min(5, tau), min(10, tau))


class TestGap:
    def test_a_local_gap_never_makes_the_margin_smaller(self) -> None:
        for present in ([False] * 3, [True, False, False]):
            gap = losses.gap(THREE, torch.tensor(present))
            assert float(gap) == -math.inf
            assert float(losses.anchor_margin(TWO, gap).value) == 5
        wide = losses.gap(3 * THREE, torch.tensor([True, False, True]))
        assert float(wide) == 30
        assert float(losses.anchor_margin(TWO, wide).value) == 30

    def test_absent_vectors_do_not_count(self) -> None:
        present = torch.tensor([True, False, True])
        for form in ("nearest", "all_pairs"):
            all_of_them = losses.gap(THREE[present], form=form)
            torch.testing.assert_close(losses.gap(THREE, present, form=form), all_of_them)
        assert losses.nearest_gaps(THREE, present).tolist() == [10, math.inf, 10]

    def test_all_pairs(self) -> None:
        # ordered pairs 5, 5, 10 twice, over (3 - 1)**2
        assert float(losses.gap(THREE, form="all_pairs")) == 10
        with pytest.raises(ConfigError, match="margin must be one of nearest, all_pairs"):
            losses.gap(THREE, form="mean")  # type: ignore[arg-type]

    def test_one_class_at_the_server_gives_tau(self) -> None:
        one = torch.tensor([False, True, False])
        assert float(losses.tgp_margin(THREE, one, tau=7.0).value) == 7
        assert float(losses.tgp_margin(THREE, one, tau=7.0, form="max_pair").value) == 7

    def test_absent_classes_have_the_smallest_gap(self) -> None:
        table = torch.cat([THREE, torch.full((1, 2), 9.0)])
        margin = losses.tgp_margin(table, torch.tensor([True, True, False, True]), tau=100.0)
        assert margin.gaps[2] == margin.smallest == margin.gaps[:2].amin()


class TestContrast:
    def test_grows_with_the_margin_and_is_never_negative(self) -> None:
        values = [float(mcl(FEATURES, LABELS, ANCHORS, d)) for d in (0.0, 0.5, 3.0, 20.0)]
        assert 0 <= values[0] < values[1] < values[2] < values[3]

    def test_without_margin_it_is_the_softmax_over_distances(self) -> None:
        distance = torch.cdist(FEATURES, ANCHORS)
        expected = torch.nn.functional.cross_entropy(-distance, LABELS)
        torch.testing.assert_close(mcl(FEATURES, LABELS, ANCHORS, 0.0), expected)

    def test_no_infinite_gradient_at_an_anchor(self) -> None:
        on_it = ANCHORS[LABELS].clone()
        gradient = grad(lambda f: mcl(f, LABELS, ANCHORS, 2.0))(on_it)
        assert gradient.isfinite().all()
        slightly = grad(lambda f: mcl(f, LABELS, ANCHORS, 2.0))(on_it + 1e-5)
        assert slightly.norm(dim=1).max() < 2  # a distance has gradient 1, not 1 / distance

    def test_moving_everything_changes_pull_and_contrast_not_calibration(self) -> None:
        q, _ = torch.linalg.qr(logits(4, 4, seed=9))
        shift = logits(4, seed=8)

        def moved(x: Tensor) -> Tensor:
            return x @ q + shift

        for loss in (
            lambda f, a: losses.prototype_pull(f, LABELS, a).mean(),
            lambda f, a: mcl(f, LABELS, a, 1.0),
        ):
            torch.testing.assert_close(
                loss(FEATURES, ANCHORS), loss(moved(FEATURES), moved(ANCHORS))
            )
        before = losses.calibration_loss(ANCHORS @ HEAD.T)
        after = losses.calibration_loss(moved(ANCHORS) @ HEAD.T)
        assert not torch.allclose(before, after)


def total(features: Tensor, head: Tensor, **given: float) -> losses.FedSALoss:
    return losses.fedsa_loss(
        features, features @ head.T, LABELS, ANCHORS, ANCHORS @ head.T, margin=1.5, **given
    )


class TestObjective:
    def test_each_term_trains_what_it_should(self) -> None:
        features, head = FEATURES.clone().requires_grad_(), HEAD.clone().requires_grad_()
        terms = total(features, head)
        for name, base, top in (("reg", 1, 0), ("mcl", 1, 0), ("cc", 0, 1), ("ce", 1, 1)):
            value = getattr(terms, name)
            found = torch.autograd.grad(
                value, (features, head), retain_graph=True, allow_unused=True
            )
            assert [part is not None and bool(part.any()) for part in found] == [base, top], name

    def test_coefficients_of_zero_leave_the_cross_entropy_bit_for_bit(self) -> None:
        off = {"lambda_reg": 0.0, "mu_mcl": 0.0, "nu_cc": 0.0}
        terms = total(FEATURES, HEAD, **off)
        assert torch.equal(terms.total, terms.ce)
        assert terms.reg > 0  # still reported
        gradient = grad(lambda f: total(f, HEAD, **off).total)(FEATURES)
        plain = grad(lambda f: losses.cross_entropy(f @ HEAD.T, LABELS).mean())(FEATURES)
        assert torch.equal(gradient, plain)

    def test_is_fedproto_with_prototypes_for_anchors(self) -> None:
        here = torch.ones(5, dtype=torch.bool)
        ours = total(FEATURES, HEAD, lambda_reg=7.0, mu_mcl=0.0, nu_cc=0.0).total
        pull = losses.prototype_pull(FEATURES, LABELS, ANCHORS, here).mean()
        theirs = losses.cross_entropy(FEATURES @ HEAD.T, LABELS).mean() + 7.0 * pull
        torch.testing.assert_close(ours, theirs)

    def test_padding_does_not_count(self) -> None:
        rows = torch.tensor([True, True, True, False, True, False])
        whole = losses.fedsa_loss(
            FEATURES[rows], FEATURES[rows] @ HEAD.T, LABELS[rows], ANCHORS, ANCHORS @ HEAD.T,
            margin=1.5,
        )  # fmt: skip
        padded = losses.fedsa_loss(
            FEATURES, FEATURES @ HEAD.T, LABELS, ANCHORS, ANCHORS @ HEAD.T, margin=1.5,
            mean=lambda values: losses.mean_loss(values, rows),
        )  # fmt: skip
        for left, right in zip(whole, padded, strict=True):
            torch.testing.assert_close(left, right)


class TestTables:
    def test_sums_and_means_by_class(self) -> None:
        rows = torch.tensor([1, 1, 1, 0, 1, 1])
        labels = torch.tensor([0, 4, 2, 2, -1, 0])
        sums, counts = losses.class_sums(FEATURES, labels, num_classes=5, rows=rows)
        assert counts.tolist() == [2, 0, 1, 0, 1]
        means = losses.class_means(sums, counts)
        torch.testing.assert_close(means[0], (FEATURES[0] + FEATURES[5]) / 2)
        torch.testing.assert_close(means[2], FEATURES[2])
        assert not means[1].any()

    def test_nearest_among_those_present(self) -> None:
        here = torch.tensor([True, False, True])
        points = torch.tensor([[3.0, 4.0], [2.9, 4.0], [6.0, 8.0]], dtype=torch.float64)
        assert losses.nearest_prototype(points, THREE, here).tolist() == [0, 0, 2]  # tie: lowest
        assert losses.nearest_prototype(points, THREE, ~here & here).tolist() == [-1, -1, -1]
        distances = losses.prototype_distances(points, THREE, here)
        assert distances[0].tolist() == [12.5, math.inf, 12.5]


def test_vmap_equals_loop() -> None:
    features = torch.stack([FEATURES, logits(6, 4, seed=5)])
    present = torch.tensor([[True] * 5, [True, False, True, False, False]])

    def everything(f: Tensor, here: Tensor) -> tuple[Tensor, ...]:
        margin = losses.anchor_margin(ANCHORS, losses.gap(ANCHORS, here))
        value = losses.fedsa_loss(
            f, f @ HEAD.T, LABELS, ANCHORS, ANCHORS @ HEAD.T, margin=margin.value
        )
        guess = losses.nearest_prototype(f, ANCHORS, here)
        return (*value, *losses.class_sums(f, LABELS, num_classes=5), guess, *margin)

    stacked = vmap(everything)(features, present)
    for k in range(2):
        for whole, one in zip(stacked, everything(features[k], present[k]), strict=True):
            torch.testing.assert_close(whole[k], one)


TREE = {
    "embedding": logits(5, 4, seed=11),
    "hidden.weight": logits(4, 4, seed=12),
    "hidden.bias": logits(4, seed=13),
    "output.weight": logits(4, 4, seed=14),
    "output.bias": logits(4, seed=15),
}


def test_loss_on_its_own_prototypes_is_small_and_grows_with_the_margin() -> None:
    made, labels = losses.generate(TREE), torch.arange(5)
    values = [float(losses.generator_loss(TREE, made, labels, d)) for d in (0.0, 1.0, 9.0)]
    assert values[0] < math.log(5)
    assert values[0] < values[1] < values[2]
    spread = {**TREE, "output.weight": 10 * TREE["output.weight"]}
    far = losses.generator_loss(spread, losses.generate(spread), labels, 0.0)
    assert float(far) < values[0]
