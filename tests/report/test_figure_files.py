"""Charts as PNG, SVG and PDF files."""

import io
import random
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from fedlabels.errors import ConfigError, DataError
from fedlabels.report.blocks import Figure, table
from fedlabels.report.charts import (
    Axis,
    Bar,
    Bars,
    Box,
    Boxes,
    Chart,
    Choice,
    Heatmap,
    Line,
    Lines,
    Squares,
)
from fedlabels.report.figure_files import FORMATS, write_figures

matplotlib = pytest.importorskip("matplotlib")
image = pytest.importorskip("PIL.Image")

NAN = float("nan")


def col(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)


def lines() -> Lines:
    x = col(0, 5, 10, 15)
    first = Line("fixmatch", 1, x, col(10, 50, 70, 80), col(5, 45, 65, 75), col(15, 55, 75, 85))
    second = Line("fedavg", 2, x, col(10, NAN, 50, 60))
    return Lines(
        Axis("round", "count"), Axis("accuracy", "percent", low=0, high=100), [first, second]
    )


def stack() -> Bars:
    bars = [Bar("unlabeled", 0, col(1, -2, NAN)), Bar("labeled", 1, col(2, -1, 3))]
    x, y = Axis("class", names=["cat", "dog", "elk"]), Axis("change", "points")
    return Bars(x, y, bars, total=col(3, -3, 3), total_label="net change")


def beside() -> Bars:
    values = [col(50, 60, NAN), col(55, 65, 75)]
    bars = [Bar(f"m{i}", i + 1, v, v - 5, v + 5) for i, v in enumerate(values)]
    x = Axis("class", names=["cat", "dog", "elk"])
    return Bars(x, Axis("accuracy", "percent", low=0), bars, stacked=False)


def heatmap() -> Heatmap:
    values = np.array([[-1.0, 2.0, NAN], [0.0, 0.5, 3.0]])
    x, y = Axis("alpha", names=["0.1", "0.3", "1"]), Axis("fraction", names=["0.01", "0.1"])
    texts = [["−1.00", "+2.00", ""], ["0", "+0.50", "+3.00"]]
    return Heatmap(x, y, values, Axis("gain", "points"), texts, diverging=True)


def boxes() -> Boxes:
    found = [Box("fedavg", 1, (1, 2, 3, 4, 5)), Box("lost", 2, (NAN,) * 5)]
    return Boxes(Axis("client accuracy", "percent"), found)


def squares() -> Squares:
    total = np.array([[40, 0, 10], [1, 20, 0]], dtype=np.int64)
    return Squares(total // 4, total, ["7", "9"], ["cat", "dog", "elk"], 40.0)


# what the chart's files must say
CHARTS: dict[str, tuple[Chart, list[str]]] = {
    "lines": (lines(), ["round", "accuracy (%)", "fixmatch", "fedavg", "10", "100"]),
    "stack": (
        stack(),
        ["class", "change (percentage points)", "unlabeled", "labeled", "net change", "cat", "elk"],
    ),
    "beside": (beside(), ["class", "accuracy (%)", "m0", "m1", "cat", "dog", "elk"]),
    "heatmap": (
        heatmap(),
        ["alpha", "fraction", "gain (percentage points)", "0.01", "0.3", "−1.00", "+3.00"],
    ),
    "boxes": (boxes(), ["client accuracy (%)", "fedavg", "lost"]),
    "squares": (squares(), ["client", "class", "cat", "elk", "7", "9", "labeled samples"]),
}


def written(folder: Path, chart: Chart | Choice, *formats: str, wide: bool = False) -> list[Path]:
    figure = Figure("chart", "What is shown", "How to read it.", chart, wide=wide)
    return write_figures([figure], folder, formats or ("svg",))


def svg(folder: Path, chart: Chart) -> ElementTree.Element:
    (path,) = written(folder, chart, "svg")
    return ElementTree.parse(path).getroot()


def texts(root: ElementTree.Element) -> set[str]:
    found = root.iter("{http://www.w3.org/2000/svg}text")
    return {"".join(one.itertext()).strip() for one in found}


def groups(root: ElementTree.Element, start: str) -> list[ElementTree.Element]:
    return [one for one in root.iter() if one.get("id", "").startswith(start)]


def corners(path: ElementTree.Element | None) -> np.ndarray:
    """Return the points of an SVG path, shape (points, 2), y downwards."""
    assert path is not None
    numbers = re.findall(r"-?\d+(?:\.\d+)?", path.get("d", ""))
    return np.array(numbers, dtype=np.float64).reshape(-1, 2)


def bar_spans(root: ElementTree.Element) -> dict[str, np.ndarray]:
    """Return left, top, right, bottom of every bar by its id."""
    spans = {}
    for one in groups(root, "bar-"):
        points = corners(one.find("{http://www.w3.org/2000/svg}path"))
        spans[one.get("id", "")] = np.concatenate([points.min(axis=0), points.max(axis=0)])
    return spans


@pytest.mark.parametrize("name", CHARTS)
def test_every_chart_is_a_valid_file_of_every_format(tmp_path: Path, name: str) -> None:
    chart, said = CHARTS[name]
    png, vector, pdf = written(tmp_path / "new", chart, *FORMATS)
    assert [p.name for p in (png, vector, pdf)] == ["chart.png", "chart.svg", "chart.pdf"]
    assert sorted(p.name for p in png.parent.iterdir()) == ["chart.pdf", "chart.png", "chart.svg"]
    assert png.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    with image.open(png) as opened:
        assert opened.width == 1280  # 6.4 inches of 200 dots
        assert len(opened.convert("RGB").getcolors(1 << 24)) > 20
    assert pdf.read_bytes().startswith(b"%PDF-")
    assert b"/FontFile2" in pdf.read_bytes()
    assert {"What is shown", *said} <= texts(ElementTree.parse(vector).getroot())


def test_lines_have_bands_and_bridge_what_is_unknown(tmp_path: Path) -> None:
    root = svg(tmp_path, lines())
    assert len(groups(root, "band-")) == 1
    first, second = (
        corners(one.find("{http://www.w3.org/2000/svg}path")) for one in groups(root, "line-")
    )
    assert [len(first), len(second)] == [4, 3]
    assert second[1, 0] == pytest.approx(first[2, 0])  # round 10 stands below round 10
    assert second[1, 1] > first[2, 1]


def test_few_points_get_marks_and_many_do_not(tmp_path: Path) -> None:
    def marks(points: int) -> int:
        x = np.arange(points, dtype=np.float64)
        root = svg(tmp_path, Lines(Axis("round", "count"), Axis("loss"), [Line("a", 1, x, x)]))
        return len(list(groups(root, "line-0")[0].iter("{http://www.w3.org/2000/svg}use")))

    assert [marks(1), marks(25), marks(26)] == [1, 25, 0]


def test_thousands_of_points_stay_a_small_file(tmp_path: Path) -> None:
    x = np.arange(20_000, dtype=np.float64)
    root = svg(tmp_path, Lines(Axis("round", "count"), Axis("loss"), [Line("a", 1, x, np.sin(x))]))
    points = corners(groups(root, "line-0")[0].find("{http://www.w3.org/2000/svg}path"))
    assert 100 < len(points) < 410


def test_lines_can_go_over_names(tmp_path: Path) -> None:
    line = Line("a", 1, col(0, 1), col(2, 3))
    chart = Lines(Axis("alpha", names=["0.1", "iid"]), Axis("loss", "nats"), [line])
    said = texts(svg(tmp_path, chart))
    assert {"alpha", "0.1", "iid", "loss (nats)"} <= said
    assert "a" not in said  # one line needs no legend


def test_bars_stand_on_each_other_with_both_signs(tmp_path: Path) -> None:
    root = svg(tmp_path, stack())
    spans = bar_spans(root)
    assert set(spans) == {"bar-0-0", "bar-0-1", "bar-1-0", "bar-1-1", "bar-1-2"}  # NaN is none
    left, top, right, bottom = range(4)
    assert spans["bar-1-0"][bottom] == pytest.approx(spans["bar-0-0"][top], abs=0.01)
    assert spans["bar-1-1"][top] == pytest.approx(spans["bar-0-1"][bottom], abs=0.01)
    assert spans["bar-0-1"][top] == pytest.approx(spans["bar-1-2"][bottom], abs=0.01)  # zero
    heights = {key: span[bottom] - span[top] for key, span in spans.items()}
    assert heights["bar-1-0"] == pytest.approx(2 * heights["bar-0-0"], abs=0.01)
    (total,) = groups(root, "total")
    marks = [corners(path) for path in total.iter("{http://www.w3.org/2000/svg}path")]
    assert [len(mark) for mark in marks] == [2, 2, 2]
    assert marks[0][0, 1] == pytest.approx(spans["bar-1-0"][top], abs=0.01)
    assert marks[0][:, 0].min() < spans["bar-1-0"][left]
    assert marks[0][:, 0].max() > spans["bar-1-0"][right]


def test_bars_beside_each_other_do_not_overlap_and_have_error_bars(tmp_path: Path) -> None:
    root = svg(tmp_path, beside())
    spans = bar_spans(root)
    assert len(spans) == 5
    assert spans["bar-0-0"][2] <= spans["bar-1-0"][0] + 0.01
    assert spans["bar-0-0"][3] == pytest.approx(spans["bar-1-1"][3])  # from one ground
    errors = [
        corners(path)
        for group in groups(root, "LineCollection")
        for path in group.iter("{http://www.w3.org/2000/svg}path")
    ]
    assert len(errors) == 5
    assert errors[0][:, 1].mean() == pytest.approx(spans["bar-0-0"][1], abs=0.01)


def test_empty_cells_are_hatched_and_full_ones_readable(tmp_path: Path) -> None:
    root = svg(tmp_path, heatmap())
    assert len(list(root.iter("{http://www.w3.org/2000/svg}pattern"))) == 1
    letters = {
        "".join(one.itertext()): one.get("style", "")
        for one in root.iter("{http://www.w3.org/2000/svg}text")
    }
    assert "#ffffff" in letters["+3.00"]  # on the darkest cell
    assert "#ffffff" not in letters["+0.50"]


def test_boxes_without_values_keep_their_place(tmp_path: Path) -> None:
    root = svg(tmp_path, boxes())
    (box,) = groups(root, "box-")
    points = corners(box.find("{http://www.w3.org/2000/svg}path"))[:, 1]
    lines = [
        corners(path)
        for group in groups(root, "LineCollection")
        for path in group.iter("{http://www.w3.org/2000/svg}path")
    ]
    upright = [points for points in lines if np.ptp(points[:, 0]) == 0]
    flat = sorted({float(points[0, 1]) for points in lines if np.ptp(points[:, 1]) == 0})
    # quartiles 2 and 4 between minimum 1 and maximum 5, the median in the middle
    assert [len(upright), len(flat)] == [2, 3]
    assert np.ptp(points) == pytest.approx((flat[2] - flat[0]) / 2, abs=0.01)
    assert (points.max() + points.min()) / 2 == pytest.approx(flat[1], abs=0.01)


def test_areas_of_squares_are_samples(tmp_path: Path) -> None:
    root = svg(tmp_path, squares())
    sides = {}
    for name in ("squares-0", "squares-1"):
        paths = groups(root, name)[0].iter("{http://www.w3.org/2000/svg}path")
        found = [np.ptp(corners(path), axis=0) for path in paths]
        assert all(width == pytest.approx(height, abs=0.01) for width, height in found)
        sides[name] = sorted(width for width, _ in found)
    assert len(sides["squares-0"]) == 4
    assert len(sides["squares-1"]) == 3  # 10, 5 and 2; a quarter of one sample is none
    large, middle = sides["squares-0"][-1], sides["squares-0"][-3]
    assert (large / middle) ** 2 == pytest.approx(4, rel=0.01)
    assert (large / sides["squares-1"][-1]) ** 2 == pytest.approx(4, rel=0.01)


def test_many_clients_get_a_wide_sheet(tmp_path: Path) -> None:
    total = np.ones((30, 3), dtype=np.int64)
    chart = Squares(total, total, [str(i) for i in range(30)], ["cat", "dog", "elk"], 1.0)
    for wide, width in ((True, 2400), (False, 1280)):
        with image.open(written(tmp_path, chart, "png", wide=wide)[0]) as opened:
            assert opened.width == width
    with image.open(written(tmp_path, squares(), "png", wide=True)[0]) as opened:
        assert opened.width == 1280  # two clients do not need it


@pytest.mark.parametrize(
    ("unit", "greatest", "title", "tick"),
    [
        ("bytes", 4e6, "cost (MB)", "4.0"),
        ("bytes", 900.0, "cost (B)", "800"),
        ("seconds", 90.0, "cost (s)", "80"),
        ("seconds", 600.0, "cost (min)", "10"),
        ("seconds", 36000.0, "cost (h)", "10"),
        ("seconds", 864000.0, "cost (d)", "10"),
        ("count", 20000.0, "cost", "20,000"),
        ("points", 2.0, "cost (percentage points)", "+2"),
    ],
)
def test_numbers_of_an_axis_are_readable(
    tmp_path: Path, unit: str, greatest: float, title: str, tick: str
) -> None:
    line = Line("a", 1, col(0, 1), col(0, greatest))
    chart = Lines(Axis("round", "count"), Axis("cost", unit), [line])  # type: ignore[arg-type]
    assert {title, tick} <= texts(svg(tmp_path, chart))


EMPTY: dict[str, Chart] = {
    "no lines": Lines(Axis("x"), Axis("y"), []),
    "no points": Lines(Axis("x"), Axis("y"), [Line("a", 1, col(), col(), col(), col())]),
    "unknown points": Lines(Axis("x"), Axis("y"), [Line("a", 1, col(NAN), col(NAN))]),
    "one point": Lines(Axis("x", "count"), Axis("y"), [Line("a", 1, col(5), col(3))]),
    "no bars": Bars(Axis("x"), Axis("y"), []),
    "unknown bars": Bars(
        Axis("x", names=["a"]), Axis("y", "bytes"), [Bar("b", 1, col(NAN))], total=col(NAN)
    ),
    "unknown cells": Heatmap(
        Axis("x", names=["a"]), Axis("y", names=["b"]), np.array([[NAN]]), Axis("v"), [[""]], True
    ),
    "one cell": Heatmap(
        Axis("x", names=["a"]), Axis("y", names=["b"]), np.array([[3.0]]), Axis("v"), [["3"]]
    ),
    "no boxes": Boxes(Axis("y"), []),
    "unknown boxes": Boxes(Axis("y", "seconds"), [Box("a", 1, (NAN,) * 5)]),
    "no samples": Squares(
        np.zeros((1, 2), dtype=np.int64), np.zeros((1, 2), dtype=np.int64), ["0"], ["a", "b"], 1.0
    ),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", EMPTY)
def test_nothing_to_draw_is_drawn_in_silence(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    paths = written(tmp_path, EMPTY[name], *FORMATS)
    assert all(path.stat().st_size > 1000 for path in paths)
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("error")
def test_names_are_neither_formulas_nor_markup(tmp_path: Path) -> None:
    names = ["$a_1$", "<b> & \x00", "_c", "猫", "\ud800", "x" * 40 + "=1", "x" * 40 + "=2"]
    bars = [Bar("_under $", 1, np.arange(7.0)), Bar("<i>", 2, np.arange(7.0))]
    chart = Bars(Axis("class", names=names), Axis("y"), bars)
    assert len(written(tmp_path, chart, *FORMATS)) == 3
    said = texts(svg(tmp_path, chart))
    assert {"$a_1$", "<b> &", "_c", "猫", "_under $", "<i>"} <= said
    assert len([one for one in said if one.startswith("xxx") and "…" in one]) == 2


def test_long_titles_stay_on_the_sheet(tmp_path: Path) -> None:
    figure = Figure("a", "word " * 30, "caption", boxes())
    (path,) = write_figures([figure], tmp_path, ["png"])
    with image.open(path) as opened:
        edge = np.asarray(opened.convert("L"))[:, -8:]
    assert edge[:40].min() == 255  # nothing runs out on the right


def test_choices_get_a_file_each(tmp_path: Path) -> None:
    keys = [("*", '"a b"', "0.3"), ("*", '"a-b"', "0.3"), ("*", '"A-b"', "0.3"), ("*", '"a"', "-1")]
    keys += [('"a"', "*", "-1"), ("*", "*", "*"), ("", "*", "*"), ('"猫"', "*", "*")]
    keys += [('"../x"', "*", "*")]
    figure = Figure("gain", "Gain", "caption", Choice({key: boxes() for key in keys}))
    other = Figure("gain-a-b-0.3", "Gain", "caption", boxes())
    paths = write_figures([figure, other], tmp_path, ["svg"])
    assert [path.stem for path in paths] == [
        "gain-a-b-0.3", "gain-a-b-0.3-2", "gain-A-b-0.3-3", "gain-a--1", "gain-a--1-2", "gain",
        "gain-absent", "gain-other", "gain--x", "gain-a-b-0.3-4",
    ]  # fmt: skip
    assert len({path.name.lower() for path in tmp_path.iterdir()}) == len(keys) + 1


def test_tables_are_left_out(tmp_path: Path) -> None:
    figures = [
        Figure("numbers", "Numbers", "caption", table(["a"], [["1"]])),
        Figure("boxes", "Boxes", "caption", boxes()),
    ]
    paths = write_figures(iter(figures), tmp_path, ["pdf", "pdf"])
    assert paths == [tmp_path / "boxes.pdf"]
    assert list(tmp_path.iterdir()) == paths


def test_unknown_formats_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"jpeg.*png, svg, pdf"):
        written(tmp_path / "new", boxes(), "png", "jpeg")
    assert not (tmp_path / "new").exists()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(DataError, match="is a file"):
        written(tmp_path / "file", boxes())
    assert (tmp_path / "file").read_text() == "kept"


def test_without_matplotlib_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=re.escape("pip install 'fedlabels[report]'")):
        written(tmp_path / "new", boxes(), "png")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", CHARTS)
def test_the_same_figures_give_the_same_bytes(tmp_path: Path, name: str) -> None:
    once = written(tmp_path / "a", CHARTS[name][0], *FORMATS)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        again = written(tmp_path / "b", CHARTS[name][0], *reversed(FORMATS))[::-1]
    assert [p.read_bytes() for p in once] == [p.read_bytes() for p in again]


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = written(tmp_path, boxes())
    before = path.read_bytes()

    def refuse(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        written(tmp_path, beside())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_global_settings_and_random_numbers_stay(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams.copy())
    states = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    written(tmp_path, lines(), *FORMATS)
    with pytest.raises(IndexError):
        written(tmp_path, Boxes(Axis("y"), [Box("a", 99, (1, 2, 3, 4, 5))]))
    assert dict(matplotlib.rcParams.copy()) == before
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states  # noqa: NPY002


def test_neither_import_nor_drawing_starts_pyplot(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
import fedlabels.report.figure_files as files
assert "matplotlib" not in sys.modules
from tests.report.test_figure_files import boxes, written
written(Path({str(tmp_path)!r}), boxes(), *files.FORMATS)
assert "matplotlib.pyplot" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_png_says_what_it_shows(tmp_path: Path) -> None:
    (path,) = written(tmp_path, boxes(), "png")
    with image.open(io.BytesIO(path.read_bytes())) as opened:
        assert opened.info["Title"] == "What is shown"
        assert "medians: fedavg 3.0" in opened.info["Description"]
        assert "Software" not in opened.info
