"""A study: cells by name, whose figures are rows of one file."""

import importlib
import json
from pathlib import Path

import pytest

from fedlabels.run import Table
from fedlabels.sweep.study import Key, Row, Study
from tests.end_to_end.harness import FEDAVG, REPO, config_of, prints, simulate

SHORT = (*FEDAVG, "rounds=2", "training.steps=2")


def last(folder: Path, key: Key) -> Row:
    row = [*Table(folder / "rounds.csv").rows()][-1]
    return {"accuracy": float(row["test_accuracy"]), "rounds": int(row["round"])}


def test_cells_run_once_and_failed_ones_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = Study(tmp_path / "runs", tmp_path / "rows.json", ("method", "seed"), {"settings": [1]})
    study.save({"method": "fedavg", "seed": 1, "accuracy": 2.0})  # of an earlier call
    study.save({"method": "another", "seed": 0, "accuracy": 0.5})
    cells = {
        ("fedavg", 1): ("fedavg-s1", [*SHORT, "seed=1"]),
        ("fedavg", 0): ("fedavg-s0", [*SHORT, "seed=0"]),
        ("lost", 0): ("lost", [*SHORT, "dataset=npz", f"dataset.root={tmp_path}/none"]),
    }
    simulate(tmp_path / "runs" / "fedavg-s1", config_of(*SHORT, "seed=1"))
    before = (tmp_path / "runs" / "fedavg-s1" / "manifest.json").read_bytes()
    assert study.run(cells, 1, last) == 1
    assert (tmp_path / "runs" / "fedavg-s1" / "manifest.json").read_bytes() == before
    simulate(tmp_path / "plain", config_of(*SHORT, "seed=0"))
    assert prints(tmp_path / "runs" / "fedavg-s0") == prints(tmp_path / "plain")
    keys = [(row["method"], row["seed"]) for row in study.rows()]
    assert keys == [("another", 0), ("fedavg", 0), ("fedavg", 1)]
    assert study.rows()[2]["accuracy"] < 2
    assert study.missing(cells) == [("lost", 0)]
    assert list(json.loads((tmp_path / "rows.json").read_text())) == [
        "hardware",
        "settings",
        "rows",
    ]
    assert "method=lost seed=0  FAILED" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["domains", "fedld", "label_scarcity", "prototypes"])
def test_results_that_are_there_stay_readable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPO / "benchmarks"))
    study = importlib.import_module(name).STUDY
    keys = [tuple(row[column] for column in study.columns) for row in study.rows()]
    assert len(keys) == len(set(keys)) > 10
    assert study.missing(keys) == []
    assert keys == sorted(keys, key=lambda key: list(map(str, key)))
