"""The charts of a comparison's page hold the numbers of the runs, worked out by hand here."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedlabels.report.blocks import Figure, Section
from fedlabels.report.charts import Bars, Boxes, Choice, Heatmap, Line, Lines, Squares, encode
from fedlabels.report.client_spread import client_accuracy
from fedlabels.report.comparison.compare import Comparison, Question, compare
from fedlabels.report.comparison.files import write_comparison
from fedlabels.report.comparison.page import headline, sections
from fedlabels.report.comparison.rounds import averaged
from fedlabels.report.markup import Markup
from fedlabels.run import RunFolder
from tests.report.test_compare import write_golden
from tests.report.test_compare_runs import FIXMATCH, MEGABYTE, write_run

HOSTILE = "</script><b onclick='x'>&\"a"
MADE = ["notes", "overview", "curves", "clients", "classes", "pseudo-labels", "decomposition"]
MADE += ["cost", "data", "tables", "methods", "reproduce"]


def made(found: Comparison) -> dict[str, Section]:
    return {section.anchor: section for section in sections(found)}


def figures(found: Comparison, anchor: str) -> dict[str, Figure]:
    return {figure.anchor: figure for figure in made(found)[anchor].figures}


def chart(figure: Figure, *levels: str) -> Any:
    if not levels:
        return figure.chart
    assert isinstance(figure.chart, Choice)
    return figure.chart.charts[levels]


def line(lines: Lines, label: str) -> Line:
    return next(one for one in lines.lines if one.label == label)


def add_columns(path: Path, columns: Mapping[str, Sequence[float | None]]) -> None:
    """Add columns to a run's rounds.csv."""
    file = path / "rounds.csv"
    with file.open(newline="") as table:
        rows = list(csv.DictReader(table))
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = "" if value is None else str(value)
    with file.open("w", newline="") as table:
        writer = csv.DictWriter(table, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def add_recall(path: Path, *recalls: Sequence[float]) -> None:
    rows = [
        {"round": index} | {f"recall_{c}": value for c, value in enumerate(one)}
        for index, one in enumerate(recalls, start=1)
    ]
    RunFolder(path, resume=True).test_class.append(rows)


def add_own(path: Path, *rounds: Mapping[int, float]) -> None:
    for index, one in enumerate(rounds, start=1):
        rows = [{"round": index, "client_id": c, "accuracy": value} for c, value in one.items()]
        RunFolder(path, resume=True).personal.append(rows)


def add_federation(path: Path, total: Sequence[Sequence[int]]) -> None:
    """Write who holds what; of every client and class the first sample is labeled."""
    owners, labels, labeled = [], [], []
    for client, row in enumerate(total):
        for c, number in enumerate(row):
            owners += [client] * number
            labels += [c] * number
            labeled += [index == 0 for index in range(number)]
    mask = np.array(labeled)
    arrays: dict[str, Any] = {"labels": np.array(labels), "num_classes": np.int64(len(total[0]))}
    for name, chosen in (("labeled", mask), ("unlabeled", ~mask)):
        counts = np.bincount(np.array(owners)[chosen], minlength=len(total))
        arrays[f"{name}_index"] = np.flatnonzero(chosen)
        arrays[f"{name}_offsets"] = np.concatenate([[0], np.cumsum(counts)])
    np.savez(path / "federation.npz", **arrays)


def write_grid(folder: Path) -> Comparison:
    """Write two methods, two alphas, two fractions, two seeds; one cell is missing.

    Accuracy: alpha / 10 + fraction + 0.1 with FixMatch - 0.2 with FixMatch at alpha 3, and 0.02
    more with seed 1.
    """
    for alpha in (0.3, 3.0):
        for fraction in (0.05, 0.2):
            for name, other in (("fedavg", {}), ("fixmatch", FIXMATCH)):
                if (alpha, fraction, name) == (3.0, 0.2, "fixmatch"):
                    continue
                better = 0.1 * (name == "fixmatch") - 0.2 * (name == "fixmatch" and alpha == 3)
                for seed in (0, 1):
                    own = {"partition.alpha": alpha, "labels.fraction": fraction, "seed": seed}
                    last = alpha / 10 + fraction + better + 0.02 * seed
                    write_run(folder / f"{name}-{alpha}-{fraction}-{seed}", [last], own | other)
    return compare([folder], Question())


def test_cells_stand_at_their_settings_in_the_heat_maps(tmp_path: Path) -> None:
    shown = figures(write_grid(tmp_path), "overview")
    first, second = shown["map-1"], shown["map-2"]
    assert [first.method, second.method] == ["fedavg", "fixmatch"]
    left, right = chart(first), chart(second)
    assert isinstance(left, Heatmap)
    assert (left.x.name, list(left.x.names)) == ("fraction", ["0.05", "0.2"])
    assert (left.y.name, list(left.y.names)) == ("alpha", ["0.3", "3"])
    np.testing.assert_allclose(left.values, [[9, 24], [36, 51]])
    np.testing.assert_allclose(right.values, [[19, 34], [26, np.nan]])
    assert left.texts[0] == ["9.00 ± 1.41", "24.00 ± 1.41"]
    assert right.texts[1] == ["26.00 ± 1.41", ""]
    assert left.value == right.value
    assert (left.value.low, left.value.high) == (pytest.approx(9), pytest.approx(51))
    assert left.value.unit == "percent"


def test_differences_have_common_symmetric_colors(tmp_path: Path) -> None:
    shown = figures(write_grid(tmp_path), "overview")
    assert "difference-1" not in shown  # the baseline from itself
    drawn = chart(shown["difference-2"])
    assert shown["difference-2"].method == "fixmatch"
    np.testing.assert_allclose(drawn.values, [[10, 10], [-10, np.nan]])
    assert [list(row) for row in drawn.texts] == [["+10.00", "+10.00"], ["−10.00", ""]]
    assert drawn.diverging
    assert (drawn.value.low, drawn.value.high) == (pytest.approx(-10), pytest.approx(10))
    assert drawn.value.unit == "points"


def test_a_third_setting_chooses_between_heat_maps(tmp_path: Path) -> None:
    for index, (alpha, fraction, model) in enumerate(
        [(0.3, 0.1, "mlp"), (1.0, 0.1, "mlp"), (0.3, 0.2, "mlp"), (0.3, 0.1, "cnn")]
    ):
        own = {"partition.alpha": alpha, "labels.fraction": fraction, "model.name": model}
        write_run(tmp_path / str(index), [index / 10], own)
    drawn = figures(compare([tmp_path], Question()), "overview")["map-1"]
    np.testing.assert_allclose(chart(drawn, "*", "*", '"mlp"').values, [[0, 20], [10, np.nan]])
    np.testing.assert_allclose(
        chart(drawn, "*", "*", '"cnn"').values, [[30, np.nan], [np.nan, np.nan]]
    )


def test_lines_over_each_setting_are_chosen_by_the_others(tmp_path: Path) -> None:
    shown = figures(write_grid(tmp_path), "overview")
    over_alpha, over_fraction = shown["over-1"].chart, shown["over-2"].chart
    assert isinstance(over_alpha, Choice)
    assert isinstance(over_fraction, Choice)
    assert set(over_alpha.charts) == {("*", "0.05"), ("*", "0.2")}
    assert set(over_fraction.charts) == {("0.3", "*"), ("3", "*")}
    lines = chart(shown["over-1"], "*", "0.2")
    np.testing.assert_allclose(line(lines, "fedavg").y, [24, 51])
    np.testing.assert_allclose(line(lines, "fixmatch").y, [34, np.nan])
    np.testing.assert_allclose(line(lines, "fixmatch").x, [0, 1])


def test_one_setting_gives_one_chart_with_bands_and_ranks(tmp_path: Path) -> None:
    shown = figures(compare(write_golden(tmp_path), Question()), "overview")
    assert set(shown) == {"over-1", "mean-ranks"}
    lines = chart(shown["over-1"])
    assert isinstance(lines, Lines)
    assert list(lines.x.names) == ["0.3", "1"]
    fixmatch, spread = line(lines, "fixmatch"), 100 * 0.0007**0.5
    np.testing.assert_allclose(fixmatch.y, [75, 82])
    assert fixmatch.low is not None
    assert fixmatch.high is not None
    np.testing.assert_allclose(fixmatch.low, [75 - spread, 82 - spread])
    np.testing.assert_allclose(fixmatch.high, [75 + spread, 82 + spread])
    assert [(bar.method, *bar.values) for bar in chart(shown["mean-ranks"]).bars] == [
        ("fedavg", 1.75),
        ("fixmatch", 1.25),
    ]


def test_without_settings_there_are_bars_and_no_choices(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path / f"a{seed}", [0.5 + 0.02 * seed], {"seed": seed})
        write_run(tmp_path / f"b{seed}", [0.6], {"seed": seed} | FIXMATCH)
    found = compare([tmp_path], Question())
    shown = figures(found, "overview")
    assert set(shown) == {"last-round"}
    bars = chart(shown["last-round"])
    first, second = bars.bars
    assert not bars.stacked
    assert (first.method, second.method) == ("fedavg", "fixmatch")
    np.testing.assert_allclose(first.values, [51])
    np.testing.assert_allclose(first.low, [51 - 2**0.5])
    np.testing.assert_allclose(second.high, [60])
    every = [figure.chart for section in sections(found) for figure in section.figures]
    assert not any(isinstance(one, Choice) for one in every)


def test_tones_are_the_same_everywhere_and_start_again_after_eight(tmp_path: Path) -> None:
    for index in range(10):
        write_run(tmp_path / str(index), [0.5, 0.6], {"training.lr": index / 10})
    found = compare([tmp_path], Question(by=("training.lr",)))
    shown = made(found)
    drawn = chart(shown["curves"].figures[0])
    assert [one.tone for one in drawn.lines] == [1, 2, 3, 4, 5, 6, 7, 8, 1, 2]
    assert [one.tone for one in chart(shown["overview"].figures[0]).bars] == [
        one.tone for one in drawn.lines
    ]
    assert [one.method for one in drawn.lines][:2] == ["0", "0.1"]


def test_curves_show_the_rounds_that_all_runs_evaluated(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [0.1, 0.2, None, 0.4], {"seed": 0})
    path = write_run(tmp_path / "b", [None, 0.4, 0.5, 0.6], {"seed": 1})
    add_columns(path, {"bytes_down": [MEGABYTE // 2] * 4})  # 1 MB a round, not 1.5 MB
    shown = figures(compare([tmp_path], Question()), "curves")
    by_round, by_bytes = chart(shown["metric-by-round"]), chart(shown["metric-by-bytes"])
    (one,) = by_round.lines
    assert one.x.tolist() == [2, 4]
    np.testing.assert_allclose(one.y, [30, 50])
    half = 10 * 2**0.5
    np.testing.assert_allclose(one.high, [30 + half, 50 + half])
    assert by_bytes.x.unit == "bytes"
    assert by_bytes.lines[0].x.tolist() == [2.5 * MEGABYTE, 5 * MEGABYTE]
    assert "communication" in shown["metric-by-bytes"].title
    assert "loss-by-round" not in shown


def test_curves_are_chosen_by_setting_with_the_test_loss(tmp_path: Path) -> None:
    for index, path in enumerate(write_golden(tmp_path)):
        add_columns(path, {"test_loss": [2, None, 1 + index % 3]})
    shown = figures(compare([tmp_path], Question()), "curves")
    assert isinstance(shown["metric-by-round"].chart, Choice)
    assert set(shown["metric-by-round"].chart.charts) == {("0.3",), ("1",)}
    accuracy = line(chart(shown["metric-by-round"], "0.3"), "fedavg")
    np.testing.assert_allclose(accuracy.y, [10, 77, 72])
    loss = chart(shown["loss-by-round"], "1")
    assert loss.y.unit == "nats"
    assert line(loss, "fixmatch").x.tolist() == [1, 3]
    np.testing.assert_allclose(line(loss, "fixmatch").y, [2, 2])
    assert line(loss, "fixmatch").low is not None


def test_long_runs_are_thinned_and_keep_their_ends(tmp_path: Path) -> None:
    for seed in (0, 1):
        path = write_run(tmp_path / str(seed), list(np.linspace(0, 0.9, 1000)), {"seed": seed})
        add_columns(path, {"pass_rate": [0.5] * 1000})
    found = compare([tmp_path], Question())
    (one,) = chart(figures(found, "curves")["metric-by-round"]).lines
    assert len(one.x) == 100
    assert (one.x[0], one.x[-1], one.y[-1]) == (1, 1000, pytest.approx(90))
    passed = figures(found, "pseudo-labels")["pass-rate"]
    assert len(chart(passed).lines[0].x) <= 100
    assert "neighboring" in passed.caption


def test_neighbors_are_averaged_without_their_gaps() -> None:
    x, y = averaged(np.arange(1.0, 6.0), np.array([1, 2, np.nan, 4, 7]), 3)
    np.testing.assert_allclose(x, [1.5, 3.5, 5])
    np.testing.assert_allclose(y, [1.5, 4, 7])
    x, y = averaged(np.arange(4.0), np.array([np.nan, np.nan, 1, 3]), 2)
    np.testing.assert_allclose(y, [np.nan, 2])


def test_single_runs_of_one_method_have_no_bands_and_nothing_to_compare(tmp_path: Path) -> None:
    for alpha in (0.3, 1.0):
        write_run(tmp_path / str(alpha), [0.4, 0.5], {"partition.alpha": alpha})
    found = compare([tmp_path], Question())
    shown = figures(found, "overview")
    assert set(shown) == {"over-1"}
    (one,) = chart(shown["over-1"]).lines
    assert one.low is None
    assert one.high is None
    assert "single run" in shown["over-1"].caption
    curve = chart(figures(found, "curves")["metric-by-round"], "1").lines[0]
    assert curve.low is None
    assert "best mean rank" not in headline(found)


def test_the_class_mix_weighs_the_recalls() -> None:
    total = np.array([[6, 2, 0], [0, 0, 0], [0, 0, 5], [1, 0, 9]])
    recall = np.array([1.0, 0.2, np.nan])
    # 6/8 * 1 + 2/8 * .2; no samples; no known class; only its first class is measured
    np.testing.assert_allclose(client_accuracy(total, recall), [0.8, 1.0])


def test_clients_are_estimated_from_their_class_mix(tmp_path: Path) -> None:
    for seed, other in ((0, {}), (1, {}), (0, FIXMATCH)):
        path = write_run(tmp_path / f"{seed}{len(other)}", [0.5], {"seed": seed} | other)
        add_federation(path, [[4, 0], [0, 4], [2, 2]])
        add_recall(path, [0, 0], [0.8, 0.4 - 0.2 * seed])
    found = compare([tmp_path], Question())
    shown = figures(found, "clients")
    boxes = chart(shown["client-spread"])
    assert isinstance(boxes, Boxes)
    # FedAvg over both seeds: .8 .4 .6 and .8 .2 .5
    assert [box.method for box in boxes.boxes] == ["fedavg", "fixmatch"]
    np.testing.assert_allclose(boxes.boxes[0].ends, [20, 42.5, 55, 75, 80])
    np.testing.assert_allclose(boxes.boxes[1].ends, [40, 50, 60, 70, 80])
    assert shown["client-spread"].caption.startswith(
        "Expected accuracy on test samples with the client's class mix."
    )
    bars = chart(shown["client-lowest"])
    # 10th percentiles: .4 + .2 * .2 = .44 and .2 + .2 * .3 = .26
    np.testing.assert_allclose(bars.bars[0].values, [35, 30])
    np.testing.assert_allclose(bars.bars[0].low, [35 - 9 * 2**0.5, 30 - 10 * 2**0.5])
    np.testing.assert_allclose(bars.bars[1].values, [44, 40])


def test_what_clients_measured_themselves_comes_first(tmp_path: Path) -> None:
    own = write_run(tmp_path / "own", [0.5, 0.6])
    add_federation(own, [[4, 0], [0, 4]])
    add_recall(own, [0.1, 0.1])
    add_own(own, {0: 0.0, 1: 0.0}, {0: 0.5, 1: 0.75, 2: 1.0})
    shown = figures(compare([tmp_path], Question()), "clients")["client-spread"]
    np.testing.assert_allclose(chart(shown).boxes[0].ends, [50, 62.5, 75, 87.5, 100])
    assert shown.caption.startswith("Measured on each client's own test samples.")
    other = write_run(tmp_path / "other", [0.5, 0.6], FIXMATCH)
    add_federation(other, [[4, 0], [0, 4]])
    add_recall(other, [0.9, 0.1])
    write_run(tmp_path / "third", [0.5, 0.6], {"client.name": "fedprox"})
    both = figures(compare([tmp_path], Question()), "clients")["client-spread"].caption
    assert "own test samples for fedavg" in both
    assert "class mix for fixmatch" in both
    assert "1 run of 3 did not say it." in both


def test_recalls_are_means_over_seeds_at_the_last_evaluation(tmp_path: Path) -> None:
    for seed in (0, 1):
        path = write_run(tmp_path / f"a{seed}", [0.5], {"seed": seed}, class_names=["cat", "dog"])
        add_recall(path, [0.0, 0.0], [0.5 + 0.1 * seed, 0.9])
        write_run(tmp_path / f"b{seed}", [0.5], {"seed": seed} | FIXMATCH)
    add_recall(tmp_path / "b0", [0.25, 0.75])
    (tmp_path / "b1" / "test_class.csv").write_text('round,recall_0\n1,0.5,0.5\n2,"')
    found = compare([tmp_path], Question())
    shown = figures(found, "classes")["recall-by-class"]
    drawn = chart(shown)
    assert (list(drawn.x.names), list(drawn.y.names)) == (["cat", "dog"], ["fedavg", "fixmatch"])
    np.testing.assert_allclose(drawn.values, [[55, 90], [25, 75]])
    assert drawn.texts[0] == ["55.0", "90.0"]
    assert "1 run of 4 did not say it." in shown.caption


@pytest.mark.parametrize(
    "damage",
    ["", "no table", "round,recall_x\n1,0.5\n", "round,recall_0\n1,high\n", "\0", "round\n"],
)
def test_a_damaged_table_leaves_its_part_out(tmp_path: Path, damage: str) -> None:
    path = write_run(tmp_path / "a", [0.5])
    (path / "test_class.csv").write_text(damage)
    (path / "personal.csv").write_text(damage)
    (path / "federation.npz").write_text(damage)
    found = compare([tmp_path], Question())
    assert not {"classes", "clients", "data"} & set(made(found))


def test_pseudo_labels_by_method_and_by_model(tmp_path: Path) -> None:
    both = {"pseudo_accuracy_local": [0.4, 0.6], "pseudo_accuracy_global": [0.5, 0.7]}
    for seed in (0, 1):
        write_run(tmp_path / f"a{seed}", [0.5, 0.5], {"seed": seed})
        path = write_run(tmp_path / f"b{seed}", [0.5, 0.5], {"seed": seed} | FIXMATCH)
        add_columns(path, {"pseudo_accuracy": [None, 0.6 + 0.2 * seed], "pass_rate": [0.1, 0.3]})
        path = write_run(tmp_path / f"c{seed}", [0.5, 0.5], {"seed": seed, "client.name": "two"})
        add_columns(path, {"pseudo_accuracy": [0.5, None if seed else 0.9]} | both)
    shown = figures(compare([tmp_path], Question()), "pseudo-labels")
    assert list(shown) == ["pseudo-accuracy", "pseudo-models-3", "pass-rate"]
    lines = chart(shown["pseudo-accuracy"])
    assert [one.method for one in lines.lines] == ["fixmatch", "two"]
    np.testing.assert_allclose(line(lines, "fixmatch").y, [np.nan, 70])
    np.testing.assert_allclose(line(lines, "two").y, [50, 90])
    assert shown["pseudo-models-3"].method == "two"
    by_model = chart(shown["pseudo-models-3"])
    assert [one.label for one in by_model.lines] == ["local", "global", "selected"]
    np.testing.assert_allclose(line(by_model, "global").y, [50, 70])
    np.testing.assert_allclose(line(chart(shown["pass-rate"]), "fixmatch").y, [10, 30])


def test_terms_of_the_loss_at_the_last_reported_round(tmp_path: Path) -> None:
    for seed in (0, 1):
        path = write_run(tmp_path / f"a{seed}", [0.5] * 3, {"seed": seed})
        terms = {"loss_local": [3, 1 + seed, None], "loss_shift": [3, 0.5, None]}
        terms |= {"loss_aggregation": [3, -0.25, None], "loss_global": [9, 1.25 + seed, None]}
        add_columns(path, terms)
        write_run(tmp_path / f"b{seed}", [0.5] * 3, {"seed": seed} | FIXMATCH)
    two = {"loss_local": [0.5] * 3, "loss_gap": [1.5] * 3, "loss_global": [2.0] * 3}
    add_columns(tmp_path / "b0", two)
    shown = figures(compare([tmp_path], Question()), "decomposition")["terms"]
    bars = chart(shown)
    assert isinstance(bars, Bars)
    assert bars.stacked
    assert list(bars.x.names) == ["fedavg", "fixmatch"]
    values = {bar.label: bar.values for bar in bars.bars}
    np.testing.assert_allclose(values["local"], [1.5, 0.5])
    np.testing.assert_allclose(values["aggregation"], [-0.25, np.nan])
    np.testing.assert_allclose(values["shift and aggregation"], [np.nan, 1.5])
    assert bars.total is not None
    np.testing.assert_allclose(bars.total, [1.75, 2])


def test_costs_by_hand(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [0.3, 0.8, 0.7], seconds=2.0)
    path = write_run(tmp_path / "b", [0.3, 0.4, 0.5], FIXMATCH, seconds=4.0)
    add_columns(path, {"ok": [2, 2, 2], "empty": [1, 1, 1], "rejected": [1, 1, 1]})
    shown = figures(compare([tmp_path], Question(target=0.8)), "cost")
    first, second = chart(shown["bytes-per-update"]).bars
    np.testing.assert_allclose(first.values, [MEGABYTE / 5, MEGABYTE / 10])  # five clients a round
    np.testing.assert_allclose(second.values, [MEGABYTE / 5, MEGABYTE / 8])  # four answered
    np.testing.assert_allclose(chart(shown["bytes-moved"]).bars[0].values, [4.5 * MEGABYTE])
    assert [bar.values[0] for bar in chart(shown["seconds-per-round"]).bars] == [2, 4]
    assert "test accuracy at least 80 %" in shown["target-rounds"].title
    assert [(b.method, b.values[0]) for b in chart(shown["target-rounds"]).bars] == [("fedavg", 2)]
    assert chart(shown["target-bytes"]).bars[0].values[0] == 3 * MEGABYTE
    assert "target-rounds" not in figures(compare([tmp_path], Question()), "cost")


def test_who_holds_what_is_the_first_seed_of_the_baseline(tmp_path: Path) -> None:
    for seed in (3, 4):
        for alpha in (0.3, 1.0):
            own = {"seed": seed, "partition.alpha": alpha}
            path = write_run(tmp_path / f"a{seed}{alpha}", [0.5], own)
            add_federation(path, [[seed, 0], [0, int(10 * alpha)]])
            write_run(tmp_path / f"b{seed}{alpha}", [0.5], own | FIXMATCH)
    shown = figures(compare([tmp_path], Question()), "data")["samples-by-client"]
    assert shown.title.endswith(", seed 3")
    drawn = chart(shown, "1")
    assert isinstance(drawn, Squares)
    assert drawn.total.tolist() == [[3, 0], [0, 10]]
    assert drawn.labeled.tolist() == [[1, 0], [0, 1]]
    assert chart(shown, "0.3").total.tolist() == [[3, 0], [0, 3]]
    found = compare([tmp_path], Question(baseline="fixmatch"))
    other = figures(found, "data")["samples-by-client"]  # its own folders do not say it
    assert chart(other, "1").total.tolist() == [[3, 0], [0, 10]]
    add_federation(tmp_path / "b31.0", [[7, 7]])
    (tmp_path / "a31.0" / "federation.npz").unlink()  # the same federation would be read once
    add_federation(tmp_path / "a41.0", [[8, 8]])
    other = figures(found, "data")["samples-by-client"]
    assert chart(other, "1").total.tolist() == [[7, 7]]


def test_tables_say_whose_their_rows_are(tmp_path: Path) -> None:
    shown = figures(write_grid(tmp_path), "tables")
    assert list(shown) == ["table-cells", "table-overview", "table-differences"]
    cells, differences = shown["table-cells"].chart, shown["table-differences"].chart
    assert isinstance(cells, Markup)
    assert isinstance(differences, Markup)
    assert '<tr data-method="fixmatch" data-row="0.3\n0.05">' in cells
    assert "<strong>19.00 ± 1.41</strong>" in cells
    assert '<tr data-method="fixmatch"><td>all</td>' in differences
    overview = shown["table-overview"].chart
    assert isinstance(overview, Markup)
    assert overview.count("<tr>") == 2  # the head has a line for each setting
    assert '<tr data-method="fedavg"><td>fedavg</td>' in overview


def test_the_page_repeats_runs_without_secrets_and_places(tmp_path: Path) -> None:
    given = ["method=fixmatch", "name=two words", "dataset.root=/home/somebody", "run_dir=/x"]
    given += ["+dataset.url=https://user:secret@host/file", "tracker.uri=here"]
    write_run(tmp_path / "a", [0.5], overrides=given)
    write_run(tmp_path / "b", [0.5], {"seed": 1}, package={"fedlabels": "0.2.0"})
    found = compare([tmp_path], Question())
    text = made(found)["reproduce"].render()
    assert "python run_sim.py method=fixmatch &#x27;name=two words&#x27; +dataset.url" in text
    for hidden in ("somebody", "secret", "tracker", str(tmp_path)):
        assert hidden not in text
    assert "The manifest of 1 run names no overrides." in text
    assert "0.1.0 (1 run), 0.2.0 (1 run)" in text


def test_no_output_holds_the_folder_of_a_run(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    found = compare(write_golden(runs), Question())
    assert {run.path.parent for run in found.runs} == {runs}
    page = headline(found) + "".join(section.render() for section in sections(found))
    written = [path.read_text() for path in write_comparison(found, tmp_path / "out")]
    assert not any(str(tmp_path) in text for text in [page, *written])


def test_parts_without_data_are_left_out(tmp_path: Path) -> None:
    found = compare(write_golden(tmp_path), Question())
    assert list(made(found)) == ["overview", "curves", "cost", "tables", "methods", "reproduce"]
    assert "<h1>Comparison of 12 runs</h1>" in headline(found)
    assert "<dd>fixmatch (1.25)</dd>" in headline(found)


def test_hostile_names_are_text_wherever_they_stand(tmp_path: Path) -> None:
    names = [HOSTILE, "b"]
    for seed in (0, 1):
        for other in ({}, {"client.name": HOSTILE}):
            own = {"seed": seed, "model.name": HOSTILE, "partition.name": HOSTILE + str(seed)}
            path = tmp_path / f"<b onclick>{seed}{len(other)}"
            write_run(path, [0.4, 0.5], own | other, class_names=names, overrides=[HOSTILE])
            add_federation(path, [[4, 1], [0, 4]])
            add_recall(path, [0.8, 0.4])
            terms = ("loss_local", "loss_shift", "loss_aggregation", "loss_global")
            shares = ("pseudo_accuracy", "pseudo_accuracy_local", "pass_rate", "test_loss")
            add_columns(path, {name: [0.5, 0.5] for name in (*terms, *shares)})
    write_run(tmp_path / "<b onclick>left", [0.5], status="failed")
    found = compare([tmp_path], Question(target=0.5))
    shown = made(found)
    assert list(shown) == MADE
    page = headline(found) + "".join(section.render() for section in shown.values())
    assert "<b" not in page.replace("<body", "")
    anchors = [figure.anchor for section in shown.values() for figure in section.figures]
    assert len(anchors) == len({*anchors, *MADE}) - len(MADE)
    for section in shown.values():
        for figure in section.figures:
            assert figure.caption.endswith(".")
            if not isinstance(figure.chart, Markup):
                json.dumps(encode(figure.chart), allow_nan=False)
