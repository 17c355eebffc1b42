"""BatchNorm and Dropout: torch's values where torch has any, and sane ones where it has none."""

import pytest
import torch
from torch import nn
from torch.func import vmap

from fedlabels.cohort import Draws, Net
from fedlabels.cohort.batches import Batch
from fedlabels.cohort.context import primitive
from fedlabels.models.layers import BatchNorm, Dropout


def batch(x, rows=None, key=0):
    count = torch.tensor(len(x)) if rows is None else rows.sum()
    zero = torch.zeros(len(x), dtype=torch.int64)
    return Batch(x, zero, zero, count, Draws(torch.tensor(key)), rows)


def run(net, tree, x, rows=None, train=True, key=0):
    with primitive(donate=False):
        return net.at(tree, train=train, batch=batch(x, rows, key))(x)


@pytest.mark.parametrize("shape", [(7, 4), (5, 4, 3, 3)])
def test_batch_norm_equals_torchs(shape):
    torch.manual_seed(0)
    reference = nn.BatchNorm1d(4) if len(shape) == 2 else nn.BatchNorm2d(4)
    reference.double()
    net = Net("n", BatchNorm(4).double())
    tree = dict(net.init)
    for _ in range(3):
        x = torch.randn(shape, dtype=torch.float64)
        torch.testing.assert_close(run(net, tree, x), reference(x), rtol=1e-12, atol=1e-12)
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(tree[name], value, rtol=1e-12, atol=1e-12)
    reference.eval()
    torch.testing.assert_close(run(net, tree, x, train=False), reference(x))


@pytest.mark.parametrize("real", [1, 2, 5])
@pytest.mark.parametrize("tail", [(), (3, 3)])
def test_padding_changes_nothing(real, tail):
    torch.manual_seed(1)
    net = Net("n", BatchNorm(4).double())
    x = torch.randn(8, 4, *tail, dtype=torch.float64)
    rows = torch.arange(8) < real
    plain, padded = dict(net.init), dict(net.init)
    first, second = run(net, plain, x[:real]), run(net, padded, x, rows)
    torch.testing.assert_close(first, second[:real], rtol=1e-12, atol=1e-12)
    for name, value in plain.items():
        torch.testing.assert_close(padded[name], value, rtol=1e-12, atol=1e-12)


def test_one_value_a_channel_leaves_the_variance_alone():
    net = Net("n", BatchNorm(4))
    tree = dict(net.init)
    out = run(net, tree, torch.randn(1, 4))
    assert torch.equal(out, torch.zeros(1, 4))
    assert torch.equal(tree["running_var"], torch.ones(4))


def test_no_rows_leave_all_statistics_alone():
    net = Net("n", BatchNorm(4))
    for x, rows in (
        (torch.zeros(0, 4), None),
        (torch.ones(3, 4), torch.zeros(3, dtype=torch.bool)),
    ):
        tree = dict(net.init)
        assert torch.isfinite(run(net, tree, x, rows)).all()
        assert all(torch.equal(tree[k], v) for k, v in net.init.items())


def test_training_calls_never_write_into_the_old_buffers():
    net = Net("n", BatchNorm(4))
    before = {k: v.clone() for k, v in net.init.items()}
    tree = dict(net.init)
    run(net, tree, torch.randn(6, 4))
    assert all(torch.equal(net.init[k], v) for k, v in before.items())
    assert not torch.equal(tree["running_mean"], before["running_mean"])


def test_dropout_drops_its_share_and_keeps_the_mean():
    net = Net("n", nn.Sequential(Dropout(0.3)))
    out = run(net, {}, torch.ones(1000, 50))
    assert abs((out == 0).double().mean() - 0.3) < 0.01
    assert abs(out.mean() - 1) < 0.02
    assert torch.equal(run(net, {}, torch.ones(3, 3), train=False), torch.ones(3, 3))


def test_two_dropouts_and_two_steps_have_their_own_masks():
    net = Net("n", nn.Sequential(Dropout(0.5), Dropout(0.5)))
    kept = (run(net, {}, torch.ones(4000, 1)) != 0).double().mean()
    assert abs(kept - 0.25) < 0.05
    first, second = (run(net, {}, torch.ones(50, 2), key=k) for k in (0, 1))
    assert not torch.equal(first, second)
    assert torch.equal(first, run(net, {}, torch.ones(50, 2), key=0))


def test_dropout_without_a_batch_is_refused():
    net = Net("n", nn.Sequential(Dropout(0.5)))
    with primitive(donate=False), pytest.raises(RuntimeError, match="batch"):
        net.at({}, train=True)(torch.ones(2, 2))


@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_dropout_share_is_checked(p):
    with pytest.raises(ValueError, match="dropout p"):
        Dropout(p)


def test_low_precision_inputs_keep_full_statistics():
    net = Net("n", BatchNorm(4))
    x = (3 + 0.1 * torch.randn(700, 4, generator=torch.Generator().manual_seed(0))).bfloat16()
    tree = dict(net.init)
    made = run(net, tree, x, torch.arange(700) < 600)
    assert made.dtype == torch.bfloat16
    torch.testing.assert_close(tree["running_mean"], 0.1 * x[:600].float().mean(0))
    # many at once, each with statistics of its own: torch has no rule for mixed types there
    stats = torch.stack([tree["running_mean"], 2 * tree["running_mean"]])
    both = vmap(lambda m: run(net, {**tree, "running_mean": m}, x, train=False))(stats)
    torch.testing.assert_close(both[0], run(net, tree, x, train=False))
