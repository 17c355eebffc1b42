"""Cells, differences, ranks and targets of made-up runs, against numbers worked out by hand.

The golden runs: test accuracy in the last round,

    alpha   method     seed 0   1     2     mean   deviation
    0.3     fedavg     .70     .72   .74    .72    .02
    0.3     fixmatch   .73     .74   .78    .75    sqrt(.0007) = .026458
    1       fedavg     .80     .82   .84    .82    .02
    1       fixmatch   .79     .83   .84    .82    sqrt(.0007)

fixmatch - fedavg: .03 .02 .04 at 0.3 (mean .03, p 2/8) and -.01 .01 0 at 1 (mean 0, p 1). Over both
settings the sum is .09; of the signs of 3 2 4 1 1 only all alike (11) or with one 1 turned (9) come
that far: 3 of 32 patterns and their mirror images, so p = 6/32. Ranks: 2 and 1 at 0.3, a tie at 1.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedlabels.errors import ConfigError, DataError
from fedlabels.renamed import renamed
from fedlabels.report.comparison.cells import level, show
from fedlabels.report.comparison.compare import Comparison, Question, compare
from fedlabels.report.comparison.files import cell_rows, run_rows
from fedlabels.report.comparison.notes import notes
from fedlabels.report.comparison.text import latex, markdown
from tests.report.test_compare_runs import FIXMATCH, FLAT, write_run

GOLDEN = {
    (0.3, "fedavg"): (0.70, 0.72, 0.74),
    (0.3, "fixmatch"): (0.73, 0.74, 0.78),
    (1.0, "fedavg"): (0.80, 0.82, 0.84),
    (1.0, "fixmatch"): (0.79, 0.83, 0.84),
}


def write_golden(folder: Path) -> list[Path]:
    """Write the twelve golden runs: three rounds each, the second one the best by 0.05."""
    paths = []
    for (alpha, method), values in GOLDEN.items():
        for seed, last in enumerate(values):
            own = {"partition.alpha": alpha, "seed": seed} | (
                FIXMATCH if method != "fedavg" else {}
            )
            path = folder / f"{method}-{alpha}-{seed}"
            paths.append(write_run(path, [0.1, last + 0.05, last], own))
    return paths


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_golden(tmp_path_factory.mktemp("golden"))


def write_pair(folder: Path, other: dict[str, Any], **manifest: Any) -> list[Path]:
    """Write two seeds of FedAvg and two of something else."""
    paths = []
    for seed in (0, 1):
        paths.append(write_run(folder / f"a{seed}", [0.5 + seed / 10], {"seed": seed}))
        given_settings = {"seed": seed} | other
        paths.append(write_run(folder / f"b{seed}", [0.6], given_settings, **manifest))
    return paths


def names(levels: Sequence[str]) -> list[str]:
    return [show(text) for text in levels]


def told(found: Comparison) -> str:
    return "\n".join(notes(found))


def test_cells_by_hand(golden: list[Path]) -> None:
    found = compare(golden, Question())
    assert found.design.keys == ("method", "partition.alpha")
    assert [(names(c.row), show(c.contender), c.seeds) for c in found.cells] == [
        (["0.3"], "fedavg", [0, 1, 2]),
        (["0.3"], "fixmatch", [0, 1, 2]),
        (["1"], "fedavg", [0, 1, 2]),
        (["1"], "fixmatch", [0, 1, 2]),
    ]
    spread = 0.0007**0.5
    expected = [(0.72, 0.02), (0.75, spread), (0.82, 0.02), (0.82, spread)]
    for cell, (mean, deviation) in zip(found.cells, expected, strict=True):
        assert found.last(cell) == pytest.approx((mean, deviation))
        assert found.best(cell) == pytest.approx((mean + 0.05, deviation))
    assert found.left_out == []
    assert notes(found) == []


def test_the_mean_of_the_last_evaluations(golden: list[Path]) -> None:
    found = compare(golden, Question(last=2))
    assert found.last(found.cells[0]) == pytest.approx(
        (0.745, 0.02)
    )  # .05 more in the round before
    assert found.differences[0].result.mean == pytest.approx(0.03)
    every = compare(golden, Question(last=1000))
    assert every.last(every.cells[0])[0] == pytest.approx((0.1 + 0.77 + 0.72) / 3)
    assert "mean of the last 2 evaluated rounds" in markdown(found)
    with pytest.raises(ConfigError, match="last must be >= 1"):
        Question(last=0)


def test_differences_by_hand(golden: list[Path]) -> None:
    found = compare(golden, Question())
    low, high, both = found.differences
    assert show(found.baseline) == "fedavg"
    assert [one.row and names(one.row) for one in found.differences] == [["0.3"], ["1"], None]
    assert low.result.mean == pytest.approx(0.03)
    assert (low.result.low, low.result.high) == pytest.approx((0.0051586, 0.0548414), abs=1e-7)
    assert low.result.p_value == 0.25
    assert (high.result.mean, high.result.p_value) == (pytest.approx(0), 1.0)
    assert both.result.pairs == 6
    assert both.result.mean == pytest.approx(0.015)
    assert both.result.p_value == 6 / 32
    assert [one.doubt for one in found.differences] == ["", "", ""]


def test_another_baseline_turns_the_signs(golden: list[Path]) -> None:
    found = compare(golden, Question(baseline="fixmatch"))
    assert found.differences[0].result.mean == pytest.approx(-0.03)
    assert found.differences[-1].result.p_value == 6 / 32
    with pytest.raises(ConfigError, match="give one of fedavg, fixmatch"):
        compare(golden, Question(baseline="fedprox"))


def test_ranks_by_hand(golden: list[Path]) -> None:
    ranking = compare(golden, Question()).ranking
    assert {show(name): rank for name, rank in ranking.mean.items()} == {
        "fedavg": 1.75,
        "fixmatch": 1.25,
    }


def test_ranks_leave_out_settings_that_someone_lacks(golden: list[Path]) -> None:
    found = compare([p for p in golden if "fixmatch-1.0" not in p.name], Question())
    assert [names(row) for row in found.ranking.rows] == [["0.3"]]
    assert list(found.ranking.mean.values()) == [2, 1]


def test_targets_by_hand(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [0.3, 0.8, 0.7], {"seed": 0})  # round 2, 3 MB, 4 s
    write_run(tmp_path / "b", [0.3, 0.4, 0.5, 0.8], {"seed": 1})  # round 4, 6 MB, 8 s
    write_run(tmp_path / "c", [0.3, 0.4, 0.5, None, 0.6], {"seed": 2})
    found = compare([tmp_path], Question(target=0.8, by=("method",)))
    (cell,) = found.cells
    reach = found.reach(cell)
    assert (reach.reached, reach.rounds, reach.bytes_moved, reach.seconds) == (2, 3, 4.5e6, 6)
    (row,) = cell_rows(found)
    assert (row["reached"], row["not_reached"], row["target_megabytes_median"]) == (2, 1, 4.5)
    nobody = compare([tmp_path], Question(target=0.9, by=("method",)))
    assert nobody.reach(nobody.cells[0]).reached == 0
    assert "0 of 3" in markdown(nobody)


def test_a_loss_is_better_when_lower(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [2.0, 0.5, 1.0], metric="test_loss")
    write_run(tmp_path / "b", [2.0, 1.5, 1.25], FIXMATCH, metric="test_loss")
    found = compare([tmp_path], Question(metric="test_loss", target=1.25))
    assert [found.best(cell)[0] for cell in found.cells] == [0.5, 1.25]
    assert [found.reach(cell).rounds for cell in found.cells] == [2, 3]
    assert list(found.ranking.mean.values()) == [1, 2]
    text = markdown(found)
    assert "lower is better" in text
    assert "**1.000**" in text
    assert "test_loss at most 1.25" in text


@given(seed=st.integers(0, 2**32))
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_order_of_arguments_changes_nothing(golden: list[Path], seed: int) -> None:
    question = Question(target=0.8)
    expected = compare(golden, question)
    shuffled = random.Random(seed).sample(golden, len(golden))
    found = compare([*shuffled, shuffled[0]], question)
    assert markdown(found) == markdown(expected)
    assert latex(found) == latex(expected)
    assert run_rows(found) == run_rows(expected)
    assert markdown(compare([golden[0].parent], question)) == markdown(expected)


def test_what_changes_no_result_makes_no_cells(tmp_path: Path) -> None:
    elsewhere = {"backend.name": "ray", "dataset.root": "/data", "name": "other", "callbacks.x": 1}
    write_pair(tmp_path, elsewhere | {"client.name": "fixmatch"}, hardware={"cores": 9})
    found = compare([tmp_path], Question())
    assert found.design.keys == ("method",)
    assert found.differences[0].result.pairs == 2
    assert "different machines, settings of backend.name" in told(found)
    by_backend = compare([tmp_path], Question(by=("backend.name",)))
    assert names(by_backend.contenders) == ["ray", "serial"]


def test_what_changes_the_last_bits_is_said(tmp_path: Path) -> None:
    machine = {"aten": "AVX2", "threads": 1}
    write_run(tmp_path / "a", [0.5], {"backend.tf32": False}, hardware=machine)
    other = {"backend.tf32": True, "client.name": "fixmatch"}
    write_run(tmp_path / "b", [0.6], other, hardware={**machine, "threads": 2})
    write_run(tmp_path / "c", [0.6], other | {"backend.tf32": False}, hardware=machine)
    found = compare([tmp_path / "a", tmp_path / "b"], Question())
    assert found.design.keys == ("method",)
    assert "kernels (torch threads: 1 -> 2; backend.tf32: false, true): equal" in told(found)
    alike = compare([tmp_path / "a", tmp_path / "c"], Question())
    assert "different kernels" not in told(alike)


def test_the_number_of_rounds_makes_cells(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [0.5])
    write_run(tmp_path / "b", [0.5, 0.6])
    assert compare([tmp_path], Question()).design.keys == ("method", "rounds")


def test_one_and_one_point_zero_are_the_same_setting(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [0.5], {"partition.alpha": 1})
    write_run(tmp_path / "b", [0.5], {"partition.alpha": 1.0, "seed": 1})
    assert compare([tmp_path], Question()).cells[0].seeds == [0, 1]


def test_settings_that_go_together_make_one_key(tmp_path: Path) -> None:
    watch = {"dataset.name": "watch", "dataset.views": "timeseries", "model.name": "cnn1d"}
    write_run(tmp_path / "a", [0.5])
    write_run(tmp_path / "b", [0.5], watch)
    found = compare([tmp_path], Question())
    assert found.design.keys == ("method", "dataset.name")
    assert "together with the settings above: model.name, dataset.views." in told(found)


def test_methods_with_one_name_are_told_apart_by_their_settings(tmp_path: Path) -> None:
    for index, rate in enumerate((0.1, 0.01)):
        own = {"training.lr": rate, "client.decay": rate / 10}
        write_run(tmp_path / f"a{index}", [0.5], own)
    write_run(tmp_path / "b", [0.5], FIXMATCH | {"training.lr": 0.01}, method="fixmatch_short")
    found = compare([tmp_path], Question())
    assert names(found.contenders) == [
        "fedavg (decay=0.001)",
        "fedavg (decay=0.01)",
        "fixmatch_short",
    ]
    own = found.design.methods[level("fedavg (decay=0.01)")]
    assert own == {"client.decay": "0.01", "training.lr": "0.1", "client.name": '"fedavg"'}


def test_local_training_is_part_of_the_method(tmp_path: Path) -> None:
    by_epochs = {"client.name": "fedproto", "training.lr": 0.01, "training.epochs": 1}
    paths = [write_run(tmp_path / "a", [0.5]), write_run(tmp_path / "b", [0.6], by_epochs)]
    found = compare(paths, Question())
    assert found.design.keys == ("method",)
    assert names([cell.contender for cell in found.cells]) == ["fedavg", "fedproto"]


def test_runs_of_before_are_compared_with_those_of_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {"client.lr": 0.1, "client.local_steps": 10}
    now = write_run(tmp_path / "now", [0.5], renamed(before))
    monkeypatch.delitem(FLAT, "training.lr")
    paths = [now, write_run(tmp_path / "old", [0.6], before | {"seed": 1})]
    assert len(compare(paths, Question()).cells) == 1


def test_a_method_without_local_training_shares_the_settings_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"client.name": "teacher", "client.lr": 0.1, "training": {}}
    plain = write_run(tmp_path / "a", [0.5])
    monkeypatch.delitem(FLAT, "training.lr")
    found = compare([plain, write_run(tmp_path / "b", [0.6], own)], Question())
    assert found.design.keys == ("method",)
    assert names([cell.contender for cell in found.cells]) == ["fedavg", "teacher"]


def test_a_client_with_a_foreign_strategy_is_named_by_both(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [0.5], {"strategy.name": "fedadam"}, method=None)
    assert names(compare([tmp_path], Question()).contenders) == ["fedavg + fedadam"]


def test_by_chooses_the_keys(golden: list[Path]) -> None:
    found = compare(golden, Question(by=("partition.alpha", "method")))
    assert found.design.keys == ("method", "partition.alpha")
    alone = compare(golden, Question(by=("partition.alpha", "client.name")))
    assert names(alone.contenders) == ["0.3", "1"]
    assert [names(row) for row in alone.rows] == [["fedavg"], ["fixmatch"]]
    assert "Not the same federation" in told(alone)


def test_what_by_leaves_out_is_paired_and_told(golden: list[Path]) -> None:
    found = compare(golden, Question(by=("method",)))
    assert [len(cell.runs) for cell in found.cells] == [6, 6]
    assert found.last(found.cells[0])[0] == pytest.approx((0.72 + 0.82) / 2)
    (only,) = found.differences
    assert (only.result.pairs, only.result.p_value) == (6, 6 / 32)
    assert "Within cells other settings differ" in told(found)
    assert "partition.alpha: 0.3, 1" in told(found)


def test_by_pools_methods_only_when_told(golden: list[Path]) -> None:
    found = compare(golden, Question(by=("partition.alpha",)))
    assert found.design.inside == ("method",)
    assert "method: fedavg, fixmatch" in told(found)
    assert found.differences[0].result.pairs == 6


@pytest.mark.parametrize(
    ("by", "words"),
    [
        (("alpha",), r"these differ: partition\.alpha, client\.name, client\.threshold"),
        (("seed",), "makes the replicates"),
        (("method", "method"), "twice"),
        (("",), "is no setting"),
    ],
)
def test_keys_that_are_none_are_refused(
    golden: list[Path], by: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        compare(golden, Question(by=by))


def test_another_federation_is_told_and_marked(tmp_path: Path) -> None:
    write_pair(tmp_path, FIXMATCH, federation_hash="other")
    found = compare([tmp_path], Question())
    assert found.differences[0].doubt == "not the same federation"
    assert "Not the same federation: at seed 0, 1." in told(found)
    assert "not the same federation" in markdown(found).split("## Differences")[1]
    assert cell_rows(found)[1]["remark"] == "not the same federation"


def test_another_data_set_is_told_and_marked(tmp_path: Path) -> None:
    write_pair(tmp_path, FIXMATCH, dataset="a file that was replaced")
    found = compare([tmp_path], Question())
    assert found.differences[0].doubt == "not the same data set"
    assert "Not the same data set" in told(found)


def test_a_federation_that_nobody_knows_is_told(tmp_path: Path) -> None:
    write_pair(tmp_path, FIXMATCH, federation_hash=None)
    assert "Federation not known" in told(compare([tmp_path], Question()))


def test_what_a_method_brings_along_is_told(tmp_path: Path) -> None:
    write_pair(tmp_path, {"client.name": "fedbn", "model.norm": "batch"})
    found = compare([tmp_path], Question())
    assert found.design.keys == ("method",)
    assert "model.norm: fedavg none, fedbn batch" in told(found)


def test_other_settings_of_a_method_keep_it_from_being_paired(tmp_path: Path) -> None:
    write_pair(tmp_path, FIXMATCH | {"per_round": 9})
    found = compare([tmp_path], Question())
    assert [one.result.pairs for one in found.differences] == [0, 0]
    assert "nothing is tested" in told(found)
    across = compare([tmp_path], Question(by=("method",)))
    assert across.differences[0].result.pairs == 2
    assert "per_round: fedavg 5, fixmatch 9" in told(across)


def test_only_common_seeds_are_paired(tmp_path: Path) -> None:
    write_pair(tmp_path, FIXMATCH)
    write_run(tmp_path / "c", [0.9], {"seed": 7})
    found = compare([tmp_path], Question())
    assert [len(cell.runs) for cell in found.cells] == [3, 2]
    assert found.differences[0].result.pairs == 2
    # means .5 .6 .9 and .6 .6: of the common seeds alone fixmatch is the better one
    assert found.ranking.mean == {level("fedavg"): 2, level("fixmatch"): 1}
    assert "Not every cell has the same seeds" in told(found)


def test_a_repeated_run_counts_once(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [0.5])
    write_run(tmp_path / "b", [0.5])
    write_run(tmp_path / "c", [0.6])
    found = compare([tmp_path], Question())
    assert [run.label for run in found.runs] == ["a"]
    assert [(one.label, one.reason) for one in found.left_out] == [
        ("b", "the same settings, seed and results as a"),
        ("c", "the same settings and seed as a, but another result: 0.6 at the end, not 0.5"),
    ]


def test_early_stops_and_other_versions_are_told(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [0.5, 0.6], {"rounds": 9})
    write_run(tmp_path / "b", [0.5], {"rounds": 9, "seed": 1}, package={"torch": "3"})
    text = told(compare([tmp_path], Question()))
    assert "the last evaluated round is not the same for all: 1, 2." in text
    assert text.count("different versions") == 2


def test_who_stopped_early_is_told(tmp_path: Path) -> None:
    why = {"round": 2, "reason": "test_accuracy has not risen for 1 evaluations"}
    write_run(tmp_path / "a", [0.5, 0.4], {"rounds": 9}, stopped_early=why)
    write_run(tmp_path / "b", [0.5] * 9, {"rounds": 9, "seed": 1}, stopped_early=None)
    found = compare([tmp_path], Question())
    assert "1 run stopped early (fedavg 1 of 2): not all planned rounds were run" in told(found)
    assert [row["stopped_early"] for row in run_rows(found)] == [why["reason"], None]


def test_unfinished_runs_are_listed_and_left_out(golden: list[Path], tmp_path: Path) -> None:
    write_run(tmp_path / "going", [0.5], status="running")
    found = compare([*golden, tmp_path], Question())
    assert len(found.runs) == 12
    assert "status is running after round 1" in markdown(found)
    assert "status is running" in latex(found)
    (row,) = [row for row in run_rows(found) if row["left_out"]]
    assert str(row["run"]).endswith("going")


def test_nothing_to_compare_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    for index in range(7):
        write_run(tmp_path / f"r{index}", [0.5], status="failed")
    with pytest.raises(DataError, match=r"r4: not finished: its status is failed.*; and 2 more"):
        compare([tmp_path], Question())


@pytest.mark.parametrize("target", [0.0, 80.0, float("nan")])
def test_targets_out_of_range_are_refused(target: float) -> None:
    with pytest.raises(ConfigError, match="target"):
        Question(target=target)


@pytest.mark.slow
def test_real_runs_are_compared(tmp_path: Path) -> None:
    from tests.end_to_end.harness import TINY, config_of, simulate

    for method in ("labeled_only", "fixmatch"):
        config = config_of(*TINY, f"method={method}", "training.steps=2", "rounds=2")
        simulate(tmp_path / method, config)
    found = compare([tmp_path], Question(target=0.01))
    assert found.left_out == []
    assert found.design.keys == ("method",)
    assert found.design.fixed["partition.alpha"] == "1"
    assert [one.doubt for one in found.differences] == [""]
    assert all(found.reach(cell).bytes_moved > 0 for cell in found.cells)
    assert all(run.total_seconds > 0 for run in found.runs)
