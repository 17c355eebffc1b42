"""Markdown, LaTeX, CSV and the command line of the comparison."""

import csv
import math
import re
from pathlib import Path

import pytest

from fedlabels.report.__main__ import main
from fedlabels.report.comparison.compare import Comparison, Question, compare
from fedlabels.report.comparison.files import write_comparison
from fedlabels.report.comparison.format import Scale, plain, seed_text
from fedlabels.report.comparison.tables import pivots
from fedlabels.report.comparison.text import escape, latex, markdown
from tests.report.test_compare import write_golden
from tests.report.test_compare_runs import FIXMATCH, write_run

NASTY = r"50%_&#{a}$x^2~|b\c <y>"


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    write_golden(folder)
    return folder


def grid(folder: Path) -> Comparison:
    """Compare two methods over two values of alpha and two label fractions, one seed."""
    for alpha in (0.3, 1.0):
        for fraction in (0.01, 0.1):
            for other in ({}, FIXMATCH):
                own = {"partition.alpha": alpha, "labels.fraction": fraction} | other
                name = f"{alpha}-{fraction}-{len(other)}"
                write_run(folder / name, [alpha / 2 + fraction + len(other) / 100], own)
    return compare([folder], Question())


def test_markdown_says_the_numbers_and_how_little_they_show(golden: Path) -> None:
    text = markdown(compare([golden], Question(target=0.8)))
    assert "# Comparison of 12 runs" in text
    assert "Seeds: 0–2." in text
    assert "0.3   | fixmatch |   3 |   0–2 |              **75.00 ± 2.65** |" in text
    assert "|      +3.00 | [+0.52, +5.48] |  0.25 |" in text
    assert "| all   | fixmatch |     6 |      +1.50 |" in text
    assert "n = 3: 0.25; n = 6: 0.03125" in text.replace("\n", " ")
    assert "Below 6 pairs no difference, however large, has p < 0.05." in text.replace("\n", " ")
    assert "**1.25** |" in text
    assert "Held fixed" in text
    assert "labels.fraction=0.05" in text
    assert "best round" in text


def test_ties_are_bold_together(golden: Path) -> None:
    text = markdown(compare([golden], Question()))
    assert "**82.00 ± 2.00**" in text
    assert "**82.00 ± 2.65**" in text


def test_tables_have_as_many_fields_in_every_line(golden: Path) -> None:
    lines = markdown(compare([golden], Question(target=0.8))).splitlines()
    tables = [line for line in lines if line.startswith("|")]
    assert len({len(line) for line in tables}) == 4  # one width a table
    for line in latex(compare([golden], Question(target=0.8))).split("\\begin{tabular}")[1:]:
        columns, body = line.split("\\end{tabular}")[0].split("\n", 1)
        rows = [row for row in body.splitlines() if row.endswith(r"\\")]
        assert {row.count("&") for row in rows} == {len(columns.strip("{}")) - 1}


def test_pivots_stand_where_two_numbers_vary(tmp_path: Path, golden: Path) -> None:
    found = grid(tmp_path)
    first, second = pivots(found)
    assert first.title == "fedavg: alpha by fraction"
    assert [[entry.text for entry in row] for row in first.rows] == [
        ["0.3", "16.00", "25.00"],
        ["1", "51.00", "60.00"],
    ]
    assert [[entry.bold for entry in row[1:]] for row in second.rows] == [[True, True]] * 2
    assert first.rows[0][1].heat == 0  # the lowest of all
    assert second.rows[1][2].heat == 40  # the highest of all
    assert r"alpha \\ fraction" in markdown(found)
    assert r"\heat{40}{\textbf{62.00}}" in latex(found)
    assert pivots(compare([golden], Question())) == []


def test_wide_overviews_are_cut(tmp_path: Path) -> None:
    for index in range(8):
        for other in ({}, FIXMATCH):
            own = {"partition.alpha": 0.1 * (index + 1)} | other
            write_run(tmp_path / f"{index}-{len(other)}", [0.5], own)
    text = markdown(compare([tmp_path], Question()))
    assert "## Method by alpha, part 1" in text
    assert "## Method by alpha, part 2" in text
    assert text.count("mean rank |") == 1


def test_latex_is_escaped() -> None:
    assert escape(NASTY) == (
        r"50\%\_\&\#\{a\}\$x\textasciicircum{}2\textasciitilde{}\textbar{}b\textbackslash{}c"
        r" \textless{}y\textgreater{}"
    )
    assert escape("a\nb ± 1 – 2 −3") == r"a b $\pm$ 1 -- 2 $-$3"


def test_names_from_run_folders_break_no_text(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [0.5], {"partition.kind": NASTY})
    write_run(tmp_path / "b", [0.5], FIXMATCH, method="[x] * {y}")
    found = compare([tmp_path], Question())
    text = latex(found)
    assert NASTY not in re.sub(r"(?m)^%.*$", "", text)
    outside = re.sub(r"(?m)^%.*$|\\[{}%]", "", text)
    assert outside.count("{") == outside.count("}")
    assert "\n{[x] * " in text or " & {[x] * " in text
    table = [line for line in markdown(found).splitlines() if line.startswith("|")]
    assert any(r"\|b" in line and r"\<y>" in line for line in table)
    assert any(r"[x] \*" in line for line in table)


def test_the_bold_ones_are_the_best_of_each_column(golden: Path) -> None:
    text = latex(compare([golden], Question()))
    assert r"\usepackage{booktabs}" in text
    assert (
        r"fixmatch & \textbf{75.00 $\pm$ 2.65} & \textbf{82.00 $\pm$ 2.65} & \textbf{1.25}" in text
    )
    assert r"fedavg & 72.00 $\pm$ 2.00 & \textbf{82.00 $\pm$ 2.00} & 1.75" in text
    for caption in re.findall(r"\\caption\{.*\}", text):
        assert "Metric: test\\_accuracy" in caption
        assert "Seeds: 0--2." in caption
        assert "Held fixed: dataset.name=digits" in caption


def test_files_read_back(golden: Path, tmp_path: Path) -> None:
    found = compare([golden], Question(target=0.8))
    paths = write_comparison(found, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == [
        "comparison.html",
        "comparison.csv",
        "runs.csv",
        "comparison.md",
        "comparison.tex",
    ]
    with paths[1].open(newline="") as file:
        cells = list(csv.DictReader(file))
    assert [(row["partition.alpha"], row["method"], row["seeds"]) for row in cells] == [
        ("0.3", "fedavg", "0 1 2"),
        ("0.3", "fixmatch", "0 1 2"),
        ("1", "fedavg", "0 1 2"),
        ("1", "fixmatch", "0 1 2"),
    ]
    assert [float(row["last_mean"]) for row in cells] == [found.last(c)[0] for c in found.cells]
    assert float(cells[1]["difference"]) == pytest.approx(0.03)
    assert (cells[1]["p"], cells[0]["p"], cells[1]["baseline"]) == ("0.25", "", "fedavg")
    assert {row["metric"] for row in cells} == {"test_accuracy"}
    assert all("dataset.name=digits" in row["held_fixed"] for row in cells)
    with paths[2].open(newline="") as file:
        runs = list(csv.DictReader(file))
    assert [row["run"] for row in runs] == sorted(p.name for p in golden.iterdir())
    assert [float(row["last"]) for row in runs] == [run.last for run in found.runs]
    assert paths[3].read_text(encoding="utf-8") == markdown(found)
    assert not list(tmp_path.rglob(".tmp-*"))


def test_no_path_of_the_machine_is_in_the_files(golden: Path, tmp_path: Path) -> None:
    for path in write_comparison(compare([golden], Question()), tmp_path / "out"):
        assert str(golden) not in path.read_text(encoding="utf-8")


def test_numbers_are_written_as_people_read_them() -> None:
    share, loss = Scale("test_accuracy", True), Scale("test_loss", False)
    assert share.mean(0.7036, 0.0123) == "70.36 ± 1.23"
    assert loss.mean(0.99905, 0.1234) == "0.9990 ± 0.1234"
    assert loss.mean(1234.5, math.nan) == "1234" or loss.mean(1234.5, math.nan) == "1235"
    assert loss.mean(0.0, 0.0) == "0.0000 ± 0.0000"
    assert share.difference(-0.012, 0.012) == "−1.20"
    assert share.difference(-0.00001, 0.00001) == "0.00"
    assert share.mean(math.nan, math.nan) == "–"
    assert [plain(v) for v in (3, 3.5, 1872.4, 0.5, math.nan)] == ["3", "3.5", "1,872", "0.5", "–"]
    assert seed_text([0, 1, 2, 7, 8, 11]) == "0–2, 7, 8, 11"


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as done:
        main([str(argument) for argument in arguments])
    assert isinstance(done.value.code, int)
    return done.value.code


def test_the_command_line_compares(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(golden, "--by", "method, partition.alpha", "--target", 0.8, "--out", tmp_path) == 0
    text = capsys.readouterr().err
    assert text.startswith("# Comparison of 12 runs")
    assert str(tmp_path / "comparison.tex") in text
    one, other = sorted(golden.iterdir())[:2]
    assert call(one, other) == 0
    assert "# Comparison of 2 runs" in capsys.readouterr().err


def test_one_run_is_reported_as_before(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "above" / "run", [0.5])
    assert call(run) == 0
    assert capsys.readouterr().err == f"{run / 'report.html'}\n"
    assert call(run, "--target", 0.8) == 2
    assert "--target is for a comparison: give more than one run" in capsys.readouterr().err
    assert call(tmp_path / "above") == 2
    assert "holds no run" in capsys.readouterr().err


def test_what_is_wrong_is_said(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for arguments, words in [
        ((golden, "--target", 80), "80 % is 0.8"),
        ((golden, "--by", "alpha"), "is no setting of these runs"),
        ((golden, "--metric", "accuracy"), "it has no accuracy"),
        ((golden, "--out", file), "is a file"),
        ((golden, tmp_path), "holds no run"),
    ]:
        assert call(*arguments) == 2
        assert words in capsys.readouterr().err
