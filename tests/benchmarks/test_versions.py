"""The comparison of two checkouts: which order, which ratio, whether the work was the same."""

import argparse
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import versions

OTHER = Path("other")


def run(monkeypatch, moved):
    """Compare checkouts whose rounds take 2 s before and 1, 3 and 1 s after."""
    order, after = [], iter((1.0, 3.0, 1.0))

    def once(cell, engine, checkout, folder):
        order.append(checkout)
        seconds = 2.0 if checkout == OTHER else next(after)
        return {"median": seconds, "moved": moved[checkout == OTHER]}

    monkeypatch.setattr(versions, "once", once)
    monkeypatch.setattr(versions, "commit", str)
    options = argparse.Namespace(other=OTHER, passes=3, engine="fedlabels-processes")
    return versions.compare("mlp", options, Path()), order


def test_the_order_turns_and_ratios_are_of_the_same_pass(monkeypatch):
    facts, order = run(monkeypatch, (1.5, 1.5))
    here = versions.HERE.parent
    assert order == [OTHER, here, here, OTHER, OTHER, here]
    assert facts["ratios"] == [0.5, 1.5, 0.5]
    assert facts["ratio"] == 0.5


@pytest.mark.parametrize(("moved", "equal"), [((1.5, 1.5), True), ((1.5, 1.6), False)])
def test_another_distance_moved_is_not_the_same_work(monkeypatch, moved, equal):
    facts, _ = run(monkeypatch, moved)
    assert facts["equal_work"] is equal
