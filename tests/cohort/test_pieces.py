"""Optimizers against torch's, batches, subsets, layout, evaluation."""

from itertools import chain

import numpy as np
import pytest
import torch
from torch import nn

from fedlabels.clients import build
from fedlabels.cohort import SGD, Adam, Layout, LoopedCohort, Shard
from fedlabels.cohort.context import primitive
from tests.cohort.harness import CLASSES, SIZES, SPEC, Probe, World, check, largest_gap

PAIRS = [
    (SGD(0.1), lambda p: torch.optim.SGD(p, 0.1)),
    (SGD(0.1, momentum=0.9, weight_decay=0.01),
     lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01)),
    (SGD(0.1, momentum=0.9, nesterov=True),
     lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True)),
    (Adam(0.01), lambda p: torch.optim.Adam(p, 0.01)),
    (Adam(0.01, weight_decay=0.1), lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1)),
]  # fmt: skip


@pytest.mark.parametrize("donate", [False, True])
@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda v: getattr(v, "__name__", repr(v)))
def test_optimizers_equal_torchs(ours, theirs, donate):
    generator = torch.Generator().manual_seed(0)
    start = {k: torch.randn(s, generator=generator, dtype=torch.float64) for k, s in
             (("w", (3, 2)), ("b", (3,)))}  # fmt: skip
    tree = {k: v.clone() for k, v in start.items()}
    state = ours.init(tree, tree)
    leaves = {k: v.clone().requires_grad_() for k, v in start.items()}
    reference = theirs(list(leaves.values()))
    for step in range(5):
        grads = {k: torch.sin(v.detach() * (step + 1)) for k, v in leaves.items()}
        for k, leaf in leaves.items():
            leaf.grad = grads[k].clone()
        reference.step()
        with primitive(donate=donate):
            tree, state = ours.step(tree, grads, state)
    for k, leaf in leaves.items():
        torch.testing.assert_close(tree[k], leaf.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("donate", [False, True])
@pytest.mark.parametrize("optimizer", [SGD(0.1, momentum=0.9, weight_decay=0.1), Adam(0.1)])
def test_a_step_that_is_switched_off_changes_nothing(optimizer, donate):
    tree = {"w": torch.ones(2)}
    state = optimizer.init(tree, tree)
    with primitive(donate=donate):
        for when in (True, False):
            before = {k: v.clone() for k, v in tree.items()}
            kept = {n: {k: v.clone() for k, v in t.items()} for n, t in state.items()}
            tree, state = optimizer.step(tree, {"w": torch.ones(2)}, state, torch.tensor(when))
            assert torch.equal(tree["w"], before["w"]) != when
            same = all(torch.equal(state[n][k], v) for n, t in kept.items() for k, v in t.items())
            assert same != when


def test_clipping_bounds_the_step():
    tree = {"w": torch.zeros(4)}
    with primitive(donate=False):
        moved, _ = SGD(1.0, clip=0.5).step(tree, {"w": torch.full((4,), 10.0)}, {})
    assert moved["w"].norm() == pytest.approx(0.5)


def cohort(k=0, round_index=1):
    return World(build({"name": "fedavg"})).cohort([k], False, round_index, None)


def rows_of(batches):
    return [fields[""]["index"][0][: int(fields[""]["n"][0])].tolist() for fields in batches]


def test_epochs_see_every_sample_once_and_the_last_batch_is_smaller():
    one = cohort()
    batches = one.batches(one.samples("labeled"), size=4, epochs=2)
    rows = rows_of(batches)
    assert [len(r) for r in rows] == [4, 4, 1] * 2
    for epoch in (rows[:3], rows[3:]):
        assert sorted(i for batch in epoch for i in batch) == list(range(9))
    assert rows[:3] != rows[3:]


def sizes_and_samples(epochs, rounds, k=0, **plan):
    """Plan some rounds of a client with nine labeled samples: rows a batch, and rows a round."""
    found = []
    for number in range(1, rounds + 1):
        one = cohort(k, number)
        found.append(rows_of(one.batches(one.samples("labeled"), epochs=epochs, **plan)))
    return [[len(r) for r in rows] for rows in found], [list(chain(*rows)) for rows in found]


def test_half_an_epoch_is_the_other_half_in_the_next_round():
    sizes, rows = sizes_and_samples(0.5, 4, size=3)  # three batches an epoch
    assert sizes == [[3, 3]] * 4
    stream = list(chain(*rows))
    epochs = [stream[i : i + 9] for i in (0, 9)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(9))] * 2
    assert epochs[0] != epochs[1]


def test_a_part_of_an_epoch_is_rounded_up_to_batches():
    assert sizes_and_samples(0.5, 2, size=2)[0] == [[2, 2, 2], [2, 1, 2]]  # five batches an epoch
    assert sizes_and_samples(0.01, 1, size=2)[0] == [[2]]
    assert sizes_and_samples(1 / 3, 1, size=3)[0] == [[3]]
    assert sizes_and_samples(1.5, 2, size=4)[0] == [[4, 4, 1, 4, 4], [1, 4, 4, 1, 4]]
    assert sizes_and_samples(0.5, 2, size=4, min_rows=4)[0] == [[4]] * 2
    assert sizes_and_samples(0.5, 1, size=10, min_rows=10)[0] == [[]]
    assert sizes_and_samples(1e-12, 2, size=5)[0] == [[5], [4]]  # rounded up, however small
    assert sizes_and_samples(0.3, 1, size=1)[0] == [[1, 1, 1]]  # 2.7 rounded up
    assert len(sizes_and_samples(7 / 9, 1, size=1)[0][0]) == 7  # 7.000000000000001 in floats


def test_a_whole_number_of_epochs_may_be_written_as_a_float():
    assert sizes_and_samples(2.0, 2, size=4) == sizes_and_samples(2, 2, size=4)


def test_a_part_of_an_epoch_has_the_same_rows_stacked():
    world = World(build({"name": "fedavg"}))
    for number in (1, 2):
        stack = world.cohort([0, 4], True, number, None)
        fields = list(stack.batches(stack.samples("labeled"), size=2, epochs=0.5))
        for place, k in enumerate((0, 4)):
            one = cohort(k, number)
            alone = rows_of(one.batches(one.samples("labeled"), size=2, epochs=0.5))
            counts = [int(step[""]["n"][place]) for step in fields]
            rows = [
                step[""]["index"][place][:n].tolist()
                for step, n in zip(fields, counts, strict=True)
            ]
            assert [r for r in rows if r] == alone


def test_steps_draw_without_replacement_by_a_fresh_shuffle():
    one = cohort()
    rows = rows_of(one.batches(one.samples("labeled"), size=6, steps=20))
    assert all(len(set(r)) == 6 for r in rows)
    assert len({tuple(r) for r in rows}) == 20
    seen = np.bincount([i for r in rows for i in r], minlength=9)
    assert seen.min() > 5


def test_a_small_shard_gives_small_batches_and_min_rows_leaves_them_out():
    one = cohort(4)  # one labeled sample
    samples = one.samples("labeled")
    assert [len(r) for r in rows_of(one.batches(samples, size=6, steps=3))] == [1, 1, 1]
    assert rows_of(one.batches(samples, size=6, steps=3, min_rows=2)) == []


def test_rounds_and_purposes_have_their_own_batches():
    plans = [
        rows_of(c.batches(c.samples("labeled"), size=6, steps=3, purpose=p))
        for c, p in ((cohort(), "a"), (cohort(), "b"), (cohort(round_index=2), "a"))
    ]
    assert plans[0] != plans[1]
    assert plans[0] != plans[2]


def test_batches_need_exactly_one_of_steps_and_epochs():
    one = cohort()
    for bad in ({}, {"steps": 1, "epochs": 1}):
        with pytest.raises(ValueError, match="exactly one"):
            one.batches(one.samples("labeled"), size=4, **bad)
    with pytest.raises(ValueError, match="size must be >= 1"):
        one.batches(one.samples("labeled"), size=0, steps=1)


def test_subset_keeps_order_and_columns():
    one = cohort()
    samples = one.samples("unlabeled")
    keep = torch.arange(13) % 3 == 0
    kept = one.subset(samples, keep, y=torch.arange(13), score=torch.arange(13) / 13)
    assert kept.sizes == (5,)
    assert kept.index[0].tolist() == samples.index[0][keep].tolist()
    assert kept.y[0].tolist() == [0, 3, 6, 9, 12]
    assert kept.columns["score"].shape == (1, 5)


def test_a_looped_cohort_holds_one_client():
    world = World(build({"name": "fedavg"}))
    with pytest.raises(ValueError, match="one client"):
        LoopedCohort(spec=SPEC, nets=world.nets, source=world.source, shards=world.shards, seed=0,
                     round_index=1)  # fmt: skip


def test_layout_knows_roles_and_owners():
    layout = Layout(Probe())
    assert layout["norm.running_mean"].role == "buffer"
    assert layout["norm.num_batches_tracked"].role == "counter"
    assert layout["norm.num_batches_tracked"].unit_axis is None
    assert layout["conv.weight"].shape == (4, 1, 3, 3)
    assert layout.names(role="parameter", module_type="BatchNorm") == {
        "norm.weight", "norm.bias", "norm2.weight", "norm2.bias"}  # fmt: skip
    assert set(layout) == set(Probe().state_dict())


def test_private_buffers_that_are_not_saved_are_left_out():
    module = nn.Linear(2, 2)
    module.register_buffer("scratch", torch.zeros(1), persistent=False)
    assert "scratch" not in Layout(module)


def test_evaluation_on_a_clients_own_test_samples():
    world = World(build({"name": "fedavg"}))
    rng = np.random.default_rng(0)
    world.shards = [
        Shard(
            s.client_id, test=np.arange(3 * k, 3 * k + k), test_labels=rng.integers(0, CLASSES, k)
        )
        for k, s in enumerate(world.shards)
    ]
    looped = world.looped("evaluate", world.request("evaluate"), None)
    assert largest_gap(looped, world.stacked("evaluate", world.request("evaluate"), None)) < 1e-9
    counts = [int(r.metrics["accuracy"].count) for r in looped]
    assert counts == list(range(len(SIZES)))
    assert all(r.metrics["accuracy"].sum <= c for r, c in zip(looped, counts, strict=True))


def test_the_cohort_may_be_cut_anywhere():
    """Two stacks give what one stack gives: no client's result depends on its neighbours."""
    world = World(build({"name": "fedlabel", "steps": 3, "steps_unlabeled": 2, "threshold": 0.2,
                         "batch_size": 4, "batch_unlabeled": 5, "lr": 0.2}))  # fmt: skip
    request = world.request()
    whole = world.client.fit(world.cohort(range(8), True, 1, None), request)
    for ids in ([0, 1, 2], [3, 4, 5, 6, 7]):
        part = world.client.fit(world.cohort(ids, True, 1, None), request)
        for name, value in part.terms["model"].value.items():
            torch.testing.assert_close(
                value, whole.terms["model"].value[name][ids], rtol=1e-10, atol=1e-10
            )
    check(world)
