"""Thinning, numbers and markup, by hand-made cases."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlabels.report import numbers
from fedlabels.report.holdings import Holdings
from fedlabels.report.markup import Markup, el
from fedlabels.report.thinning import (
    bucket,
    bucket_names,
    bucket_width,
    full_square,
    shown_clients,
    thin,
)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (numbers.percent(0.7134), "71.3 %"),
        (numbers.percent(math.nan), "–"),
        (numbers.small_percent(0.01), "1 %"),
        (numbers.small_percent(0.00416), "0.42 %"),
        (numbers.small_percent(1.0), "100 %"),
        (numbers.count(61706), "61,706"),
        (numbers.size(0), "0 B"),
        (numbers.size(999), "999 B"),
        (numbers.size(999_999), "1 MB"),
        (numbers.size(1.234e9), "1.23 GB"),
        (numbers.duration(0.25), "0.25 s"),
        (numbers.duration(9.96), "10.0 s"),
        (numbers.duration(59.6), "1 min 00 s"),
        (numbers.duration(3599.7), "1 h 00 min"),
        (numbers.duration(200_000), "2 d 7 h"),
        (numbers.plural(1, "client"), "1 client"),
        (numbers.plural(2000, "client"), "2,000 clients"),
    ],
)
def test_numbers_read_well(text: str, want: str) -> None:
    assert text.replace("\N{NO-BREAK SPACE}", " ") == want


def test_thinning_keeps_peaks_and_ends() -> None:
    y = np.sin(np.arange(5000) / 40)
    y[1234], y[77] = 9.0, -9.0
    x, kept = thin(np.arange(5000.0), y, 400)
    assert len(x) <= 402
    assert {0, 77, 1234, 4999} <= set(x.astype(int).tolist())
    assert (np.diff(x) > 0).all()
    assert np.array_equal(kept, y[x.astype(int)])


@given(st.integers(1, 1000))
def test_buckets_keep_the_sum_and_fit(things: int) -> None:
    values = np.arange(things, dtype=np.float64)
    found = bucket(values, add=True)
    assert len(found) == -(-things // bucket_width(things)) <= 80
    assert found.sum() == values.sum()
    assert bucket(values)[0] == values[: bucket_width(things)].mean()


def test_buckets_are_named_by_what_is_in_them() -> None:
    assert bucket_names(1, 3) == ["1", "2", "3"]
    assert bucket_names(1, 161)[:2] == ["1–3", "4–6"]
    assert bucket_names(1, 161)[-1] == "160–161"


def test_one_huge_shard_does_not_shrink_the_others() -> None:
    counts = np.full((30, 10), 20)
    assert full_square(counts) == 20
    counts[3, 4] = 5000
    assert full_square(counts) == 40
    assert full_square(np.zeros((2, 2), dtype=np.int64)) == 1


def test_effective_classes() -> None:
    total = np.array([[5, 0, 0, 0], [2, 2, 2, 2], [3, 3, 0, 0], [0, 0, 0, 0]])
    none = np.zeros(4, dtype=np.int64)
    held = Holdings(labeled=np.zeros_like(total), total=total, unknown=none)
    assert held.effective_classes() == pytest.approx(2.0)
    empty = Holdings(labeled=total[3:], total=total[3:], unknown=none[3:])
    assert math.isnan(empty.effective_classes())


@given(st.integers(1, 5000))
def test_shown_clients_are_distinct(clients: int) -> None:
    chosen = shown_clients(clients)
    assert len(set(chosen.tolist())) == len(chosen) == min(clients, 60)
    assert chosen[0] == 0
    assert chosen[-1] == clients - 1


def test_markup_escapes_all_but_itself() -> None:
    inner = el("b", "&", title='"')
    assert inner == '<b title="&quot;">&amp;</b>'
    assert isinstance(inner, Markup)
    assert el("p", [inner, None, ["<", 3]], hidden=True, id=None) == f"<p hidden>{inner}&lt;3</p>"
    assert (
        el("rect", x=1.0, y=0.504, stroke_width=2) == '<rect x="1" y="0.5" stroke-width="2"></rect>'
    )
