import pytest
import torch
from torch.func import grad, vmap

from fedlabels import losses
from tests.losses.helpers import logits

TREE = {"weight": logits(3, 2, seed=1), "bias": logits(3, seed=2)}
RECEIVED = {"weight": logits(3, 2, seed=3), "bias": logits(3, seed=4)}


def test_gradient_is_mu_times_the_difference() -> None:
    gradient = grad(lambda tree: losses.proximal_term(tree, RECEIVED, 0.3))(TREE)
    for name, part in gradient.items():
        torch.testing.assert_close(part, 0.3 * (TREE[name] - RECEIVED[name]))


def test_each_tensor_counts_once() -> None:
    total = losses.proximal_term(TREE, RECEIVED, 1.0)
    parts = [losses.proximal_term(TREE, RECEIVED, 1.0, [name]) for name in TREE]
    torch.testing.assert_close(total, parts[0] + parts[1])


def test_vanishes_at_the_received_weights_and_for_mu_zero() -> None:
    assert losses.proximal_term(TREE, TREE, 5.0) == 0
    assert losses.proximal_term(TREE, RECEIVED, 0.0) == 0


@pytest.mark.parametrize("mu", [1.0, 10.0])
def test_a_step_of_one_over_mu_goes_back_to_the_received_weights(mu: float) -> None:
    gradient = grad(lambda tree: losses.proximal_term(tree, RECEIVED, mu))(TREE)
    for name, part in gradient.items():
        torch.testing.assert_close(TREE[name] - part / mu, RECEIVED[name])


def test_vmap_equals_loop() -> None:
    stacked = {name: torch.stack([part, 2 * part]) for name, part in TREE.items()}
    values = vmap(lambda tree: losses.proximal_term(tree, RECEIVED, 0.1))(stacked)
    double = {name: 2 * part for name, part in TREE.items()}
    torch.testing.assert_close(values[0], losses.proximal_term(TREE, RECEIVED, 0.1))
    torch.testing.assert_close(values[1], losses.proximal_term(double, RECEIVED, 0.1))
