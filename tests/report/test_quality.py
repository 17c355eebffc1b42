"""The section beyond accuracy: what it shows of a run, and that runs of before have none."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedlabels.report.blocks import Figure
from fedlabels.report.charts import Heatmap, Lines
from fedlabels.report.single.page import render, run_sections
from fedlabels.report.single.source import read_run

MakeRun = Callable[..., Path]


def cards(path: Path, section: str) -> dict[str, Figure]:
    found = {part.anchor: part for part in run_sections(read_run(path))}
    return {card.anchor: card for card in found[section].figures} if section in found else {}


def test_a_run_of_before_has_no_such_section(make_run: MakeRun) -> None:
    path = make_run()
    assert cards(path, "quality") == {}
    assert "figures-by-class" not in cards(path, "classes")


@pytest.mark.parametrize("classes", [3, 20])
def test_confusion_and_calibration(make_run: MakeRun, classes: int) -> None:
    path = make_run(figures=True, classes=classes)
    found = cards(path, "quality")
    assert list(found) == ["figures-over-rounds", "confusion", "calibration"]
    drawn = found["confusion"].chart
    assert isinstance(drawn, Heatmap)
    with np.load(path / "predictions.npz") as arrays:
        right = arrays["label"] == arrays["predicted"]
        recall = [100 * right[arrays["label"] == c].mean() for c in range(classes)]
    np.testing.assert_allclose(np.diag(drawn.values), recall)
    np.testing.assert_allclose(drawn.values.sum(axis=1), 100)
    assert len(drawn.texts) == (3 if classes == 3 else 0)
    below = str(found["confusion"].below)
    assert "taken for" in below if classes == 20 else "predicted" in below
    curve = found["calibration"].chart
    assert isinstance(curve, Lines)
    assert curve.lines[0].y.max() <= 100
    assert "Expected calibration error" in found["calibration"].caption
    listed = str(cards(path, "classes")["figures-by-class"].chart)
    assert listed.count("<tr>") == classes + 1
    assert re.search(f"{recall[0]:.1f}", listed)


def test_domains_are_listed_and_the_page_takes_any_of_their_names(make_run: MakeRun) -> None:
    path = make_run(figures=True, classes=3, domains=2)
    found = cards(path, "quality")
    assert "place 1" in str(found["figures-by-domain"].chart)
    assert "Further metrics" in render(read_run(path))
    assert not any("f1" in name or "ece" in name for name in cards(path, "metrics"))


def test_a_class_without_test_samples_is_an_empty_row(make_run: MakeRun) -> None:
    path = make_run(figures=True, classes=3)
    (path / "confusion.csv").write_text(
        "round,class,predicted_0,predicted_1,predicted_2\n7,0,1,1,0\n7,1,0,2,0\n7,2,0,0,0\n"
    )
    drawn = cards(path, "quality")["confusion"].chart
    assert isinstance(drawn, Heatmap)
    assert drawn.values[0].tolist() == [50, 50, 0]
    assert np.isnan(drawn.values[2]).all()
    assert drawn.texts[2] == ["", "", ""]


@pytest.mark.parametrize("text", ["", "x", "round,class\n", "round,class,predicted_0\n1,0,x\n"])
def test_damaged_files_show_nothing(make_run: MakeRun, text: str) -> None:
    path = make_run(figures=True, classes=3)
    for name in ("confusion.csv", "calibration.csv", "test_domain.csv"):
        (path / name).write_text(text)
    assert list(cards(path, "quality")) == ["figures-over-rounds"] + (
        ["figures-by-domain"] if text.count("\n") > 1 else []
    )
