"""The tree sum: the same bits however the positions are dealt, and the sum of numpy."""

import pickle
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlabels.cohort.types import Reduce, Term
from fedlabels.rounds import reduce
from fedlabels.rounds.job import SumTerm
from fedlabels.rounds.reduce import Buffers, Key, Node, TreeSum, combine, finish, leaf
from fedlabels.simulation.backend import _sum_term


def terms_of(
    count: int, missing: Sequence[int] = (), reduce: Reduce = "mean", entries: bool = False
) -> list[Term | None]:
    """Make clients' terms of very different sizes, so that the order of a sum shows."""
    generator = torch.Generator().manual_seed(count)
    made: list[Term | None] = []
    for position in range(count):
        scale = 10.0 ** (position % 9 - 4)
        value = {
            "w": torch.randn(3, 4, generator=generator) * scale,
            "b": torch.randn((), generator=generator) * scale,
        }
        weight = torch.rand((), generator=generator) + position
        each = {"w": torch.rand(3, 1, generator=generator), "b": weight.double()}
        made.append(
            None if position in missing else Term(value, each if entries else weight, reduce)
        )
    return made


def total(terms: Sequence[Term | None], cuts: Sequence[int] = ()) -> Node | None:
    """Sum with one worker for each range between the cuts; the last worker answers first."""
    bounds = [0, *sorted(set(cuts) - {0, len(terms)}), len(terms)]
    nodes: dict[Key, Node | None] = {}
    for start, stop in reversed(list(pairwise(bounds))):
        tree = TreeSum(len(terms))
        for position in range(start, stop):
            term = terms[position]
            tree.push(position, term)
        nodes.update(tree.nodes)
    return finish(nodes, len(terms))


def bits(node: Node | None) -> list[bytes]:
    assert node is not None
    weight = node.weight if isinstance(node.weight, dict) else {"": node.weight}
    return [t.numpy().tobytes() for t in (*node.total.values(), *weight.values())]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_same_bits_for_every_split(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 33))
    positions = st.integers(0, count - 1)
    missing = data.draw(st.sets(positions, max_size=count - 1))
    entries = data.draw(st.booleans())
    terms = terms_of(count, tuple(missing), entries=entries)
    one = total(terms)
    cuts = data.draw(st.lists(st.integers(0, count)))
    split = total(terms_of(count, tuple(missing), entries=entries), cuts)
    assert bits(one) == bits(split)
    assert one is not None
    assert split is not None
    assert one.count == split.count == count - len(missing)


@pytest.mark.parametrize("entries", [False, True])
def test_memory_used_again_changes_nothing(entries: bool) -> None:
    buffers, kept = Buffers(), []
    for count in (7, 12, 12, 33):
        terms = terms_of(count, (2,), entries=entries)
        tree = TreeSum(count, buffers)
        for position, term in enumerate(terms):
            tree.push(position, term)
        kept.append((finish(tree.nodes, count), total(terms)))
    for again, fresh in kept:  # only now: an earlier sum must not be written by a later one
        assert bits(again) == bits(fresh)


def test_memory_is_used_again() -> None:
    buffers = Buffers()
    tree = TreeSum(32, buffers)
    for position in range(32):
        tree.push(position, Term({"w": torch.ones(1000)}))
    assert tree.nodes.keys() == {(0, 32)}
    assert len(buffers._free) <= 6


@pytest.fixture
def every_term_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reduce, "LARGE", 1)
    monkeypatch.setattr(reduce, "_PIECE", 5)
    for cached in (reduce._cuts, reduce._pieces):
        cached.cache_clear()


@pytest.mark.usefixtures("every_term_waits")
@pytest.mark.parametrize("waiting", [1, 2, 8])
@pytest.mark.parametrize("missing", [(), (0, 3, 4, 5, 12), (1, 2, 8)])
def test_terms_that_wait_have_the_same_bits(
    waiting: int, missing: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Piece by piece in the cache, or one after the other: the same additions."""
    monkeypatch.setattr(reduce, "_WAITING", waiting)
    generator = torch.Generator().manual_seed(3)
    for count in (8, 13, 33):
        terms: list[Term | None] = []
        for position in range(count):
            value = {
                "w": torch.randn(3, 4, 2, 2, generator=generator),
                "steps": torch.tensor(position),
                "b": torch.randn(2, generator=generator),
            }
            value["w"] = value["w"].to(memory_format=torch.channels_last)
            weight = None if position % 3 else torch.rand((), generator=generator)
            terms.append(None if position in missing else Term(value, weight))
        if all(term is None for term in terms):
            continue
        got = total(terms), total(terms, [4, 7]), total(terms, [1])
        monkeypatch.setattr(reduce, "LARGE", 1 << 40)
        plain = total(terms, [2])
        monkeypatch.setattr(reduce, "LARGE", 1)
        assert all(bits(one) == bits(plain) for one in got)


@pytest.mark.usefixtures("every_term_waits")
def test_no_more_wait_than_may() -> None:
    tree = TreeSum(64)
    for position in range(64):
        tree.push(position, Term({"w": torch.ones(12)}))
        waiting = [n for n in tree._nodes.values() if isinstance(n, reduce.Waiting)]
        assert sum(node.count for node in waiting) <= 2 * reduce._WAITING
    assert tree.nodes[0, 64] is not None


def test_order_matters_without_the_tree() -> None:
    # Otherwise the property above would hold for any sum.
    values = [leaf(term).total["w"] for term in terms_of(33) if term is not None]
    assert not torch.equal(sum(values), sum(reversed(values)))


@pytest.mark.parametrize("missing", [(), (0, 3, 4, 5, 12)])
def test_is_the_sum_of_numpy(missing: tuple[int, ...]) -> None:
    terms = terms_of(13, missing)
    node = total(terms, [5, 9])
    assert node is not None
    there = [t for t in terms if t is not None]
    weights = np.array([float(t.weight) for t in there])  # type: ignore[arg-type]
    values = np.stack([t.value["w"].double().numpy() for t in there])
    expected = (values * weights[:, None, None]).sum(0)
    np.testing.assert_allclose(node.total["w"], expected, rtol=1e-12)
    np.testing.assert_allclose(float(node.weight), weights.sum(), rtol=1e-12)  # type: ignore[arg-type]
    mean = _sum_term(node).value()["w"]
    np.testing.assert_allclose(mean, np.average(values, axis=0, weights=weights), rtol=1e-12)


def test_weights_per_entry() -> None:
    terms = terms_of(7, entries=True)
    term = _sum_term(total(terms, [3]) or pytest.fail("no sum"))
    values = np.stack([t.value["w"].double().numpy() for t in terms if t is not None])
    weights = np.stack([t.weight["w"].double().numpy() for t in terms if t is not None])  # type: ignore[index]
    expected = (values * weights).sum(0) / weights.sum(0)
    np.testing.assert_allclose(term.value()["w"], expected, rtol=1e-12)


def test_a_sum_stays_a_sum() -> None:
    terms = terms_of(6, (2,), reduce="sum")
    term = _sum_term(total(terms, [1, 4]) or pytest.fail("no sum"))
    assert term.reduce == "sum"
    np.testing.assert_array_equal(term.value()["w"], term.total["w"])


def test_without_weight_a_client_counts_once() -> None:
    value = {"w": torch.full((2,), 3.0)}
    node = total([Term(value), Term(value)])
    assert node is not None
    assert float(node.weight) == 2.0  # type: ignore[arg-type]
    assert node.total["w"].tolist() == [6.0, 6.0]
    assert value["w"].tolist() == [3.0, 3.0]  # a client's own tensors are not written to


def test_nobody_has_a_value() -> None:
    assert total([None, None, None], [1]) is None
    assert not SumTerm({}, 0.0).has_weight()
    assert not SumTerm({}, 2.0, "mean", 1).has_weight()  # nothing that has the weight


@pytest.mark.parametrize(("count", "workers"), [(50, 2), (7, 2), (64, 4)])
def test_a_worker_sends_one_array(count: int, workers: int) -> None:
    share = -(-count // workers)
    for start in range(0, count, share):
        tree = TreeSum(count)
        for position in range(start, min(start + share, count)):
            tree.push(position, Term({"w": torch.ones(2)}))
        assert len(tree.nodes) == 1


def test_a_sum_that_travelled_can_be_added_to() -> None:
    node = leaf(Term({"w": torch.arange(6.0).view(2, 3), "b": torch.ones(())}, torch.tensor(2.0)))
    buffers: list[pickle.PickleBuffer] = []
    packed = pickle.dumps(node, protocol=5, buffer_callback=buffers.append)
    shared = [bytes(buffer.raw()) for buffer in buffers]  # as shared memory: it cannot be written
    left = pickle.loads(packed, buffers=shared)
    assert left.total.read_only
    joined = combine(left, pickle.loads(packed, buffers=shared)) or pytest.fail("no sum")
    assert torch.equal(joined.total["w"], torch.arange(6.0).view(2, 3).double() * 4)
    assert joined.total["b"] == 4
    assert bits(pickle.loads(packed, buffers=shared)) == bits(node)
