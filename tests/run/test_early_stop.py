"""Early stop decides by what was evaluated, is kept with the round, and says so."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fedlabels.errors import ConfigError, RunError
from fedlabels.run import latest_checkpoint
from fedlabels.run.early_stop import EarlyStop
from fedlabels.run.folder.checkpoint import read_checkpoint
from fedlabels.run.round import Rounds, Scores
from tests.end_to_end.harness import FEDAVG, TINY, config_of, prints, simulate, table

SETTINGS = (*FEDAVG, "training.steps=5", "rounds=6", "checkpoint_every=2")
TARGET = (*SETTINGS, "early_stop.target=0.0001")


def manifest(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return values


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "run"
    simulate(folder, config_of(*SETTINGS))
    return folder


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that reaches its target with the first round's evaluation."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    simulate(folder, config_of(*TARGET))
    return folder


def test_course() -> None:
    stop = EarlyStop("test_accuracy", target=0.9, patience=2)
    for index, value in enumerate([0.3, 0.5, 0.5], start=1):
        stop.see(index, {"test_accuracy": value, "personal_accuracy": 1.0})
    assert stop.reason() is None
    again = EarlyStop("test_accuracy", target=0.9, patience=2)
    again.load_state(json.loads(json.dumps(stop.state())))
    for one in (stop, again):
        one.see(4, {"test_accuracy": 0.4})
        assert "has not risen for 2 evaluations" in str(one.reason())
        assert "best 0.5000 in round 2" in str(one.reason())
    again.patience = None
    assert again.reason() is None
    again.see(5, {"test_accuracy": 0.9})
    assert "has reached early_stop.target=0.9" in str(again.reason())


def test_only_known_metrics_are_chosen() -> None:
    stop = EarlyStop(target=0.5)
    stop.choose(["personal_accuracy"])
    assert stop.metric == "personal_accuracy"
    stop = EarlyStop(target=0.5)
    stop.choose(["personal_accuracy", "test_accuracy"])
    assert stop.metric == "test_accuracy"
    stop = EarlyStop("test_f1_macro", patience=1)
    stop.choose(["test_accuracy", "test_f1_macro"])
    for index in (1, 2):
        stop.see(index, {"test_accuracy": index / 4, "test_f1_macro": 0.5})
    assert "test_f1_macro has not risen" in str(stop.reason())
    with pytest.raises(ConfigError, match=r"test_auc is never.*it measures test_accuracy\)"):
        EarlyStop("test_auc", patience=1).choose(["test_accuracy"])
    EarlyStop().choose([])  # nothing is asked for
    with pytest.raises(ConfigError, match=r"never measured in this run \(it measures no accuracy"):
        EarlyStop(patience=1).choose([])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("early_stop.patience=0", "early_stop.patience must be >= 1"),
        ("early_stop.patience=-3", "early_stop.patience must be >= 1"),
        ("early_stop.target=60", r"early_stop.target is an accuracy in \(0, 1\], got 60.*0.6"),
        ("early_stop.target=0", r"in \(0, 1\]"),
        ("early_stop.target=nan", r"in \(0, 1\]"),
        ("early_stop.metric=accuracy", "early_stop.metric must be one of auto, test_accuracy"),
        ("evaluate_every=7", "evaluate_every=7 is more than rounds=6"),
    ],
)
def test_nonsense_is_refused(given: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        config_of(*TARGET, given)


def test_a_metric_that_is_never_measured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"personal_accuracy is never measured.*test_accuracy"):
        simulate(tmp_path / "run", config_of(*TARGET, "early_stop.metric=personal_accuracy"))
    assert not (tmp_path / "run").exists()


def test_it_is_said(stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    why = manifest(stopped)["stopped_early"]
    assert why["round"] == 1
    assert "has reached early_stop.target=0.0001" in why["reason"]
    assert manifest(stopped)["status"] == "finished"
    assert len(table(stopped)) == 1
    assert "stopped early in round 1: test_accuracy" in (stopped / "run.log").read_text()
    page = (stopped / "report.html").read_text()
    assert "It stopped early, after round 1 of 6 planned rounds: test_accuracy" in page


def test_it_is_finished_until_the_reason_is_gone(
    stopped: Path, plain: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(stopped, tmp_path / "run"))
    for more in ("rounds=6", "rounds=9"):
        with pytest.raises(
            RunError, match=r"it stopped early in round 1, because test_accuracy.*target=null"
        ) as refused:
            simulate(folder, config_of(*TARGET, more), resume=True)
        assert "rounds=" not in str(refused.value)  # more of them would be refused as well
    assert len(table(folder)) == 1
    simulate(folder, config_of(*SETTINGS), resume=True)
    assert prints(folder) == prints(plain)
    assert manifest(folder)["stopped_early"] is None
    assert "stopped early, after" not in (folder / "report.html").read_text()


def test_a_model_of_their_own_is_enough(tmp_path: Path) -> None:
    config = config_of(*SETTINGS, "method=local_training", "early_stop.target=0.0001")
    simulate(tmp_path / "run", config)
    assert len(table(tmp_path / "run")) == 1
    assert "personal_accuracy" in manifest(tmp_path / "run")["stopped_early"]["reason"]


def test_patience_counts_on_after_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The accuracy rises to round 3; interrupted after round 4, a resumed run stops in round 5."""

    def scores(self: Any, index: int, arrays: Any) -> Scores:
        return Scores({"test_accuracy": [0, 0.1, 0.2, 0.3, 0.3, 0.2, 0.9][index]})

    class Interrupt:
        def on_run_start(self, *, folder: Any, config: Any) -> None:
            """Do nothing."""

        def on_round_end(self, *, record: Any) -> bool:
            if record["round"] == 4:
                raise KeyboardInterrupt
            return False

        def on_run_end(self, *, folder: Any) -> None:
            """Do nothing."""

    monkeypatch.setattr(Rounds, "_test", scores)
    config = config_of(*SETTINGS, "early_stop.patience=2")
    simulate(tmp_path / "whole", config)
    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path / "run", config, callbacks=[Interrupt()])
    simulate(tmp_path / "run", config, resume=True)
    for name in ("whole", "run"):
        assert [row["round"] for row in table(tmp_path / name)] == ["1", "2", "3", "4", "5"]
        assert "best 0.3000 in round 3" in manifest(tmp_path / name)["stopped_early"]["reason"]
    assert prints(tmp_path / "run") == prints(tmp_path / "whole")


def test_a_raised_run_stops_where_one_of_all_rounds_does(tmp_path: Path) -> None:
    """The accuracy never rises; the test of round 4 is there only because that was the last."""
    config = (
        *TINY, "method=fedavg", "training.lr=1e-9", "training.steps=2", "evaluate_every=3",
        "early_stop.patience=2", "checkpoint_every=1",
    )  # fmt: skip
    simulate(tmp_path / "whole", config_of(*config, "rounds=12"))
    simulate(tmp_path / "run", config_of(*config, "rounds=4"))
    state = read_checkpoint(latest_checkpoint(tmp_path / "run") or tmp_path).manifest["early_stop"]
    assert state["test_accuracy"]["waited"] == 0
    simulate(tmp_path / "run", config_of(*config, "rounds=12"), resume=True)
    tested = [[row["round"] for row in table(tmp_path / name) if row["test_accuracy"]]
              for name in ("whole", "run")]  # fmt: skip
    assert tested == [["3", "6", "9"], ["3", "4", "6", "9"]]
    ends = [manifest(tmp_path / name)["stopped_early"] for name in ("whole", "run")]
    assert ends[0] == ends[1]
    assert ends[0]["round"] == 9


def test_rows_of_a_checkpoint_without_a_state_count_alike() -> None:
    stop = EarlyStop("test_accuracy", patience=2, every=3)
    stop.replay({"round": str(k), "test_accuracy": "0.5"} for k in (3, 4, 6))
    assert stop.state()["test_accuracy"]["waited"] == 1


class Stop:
    """A callback that has seen enough in a round."""

    def __init__(self, index: int) -> None:
        self.index = index

    def on_run_start(self, *, folder: Any, config: Any) -> None:
        """Do nothing."""

    def on_round_end(self, *, record: Any) -> bool:
        return bool(record["round"] == self.index)

    def on_run_end(self, *, folder: Any) -> None:
        """Do nothing."""


def test_a_callback_that_stops_a_run_is_part_of_its_state(plain: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    simulate(folder, config_of(*SETTINGS, "rounds=4"), callbacks=[Stop(2)])
    assert manifest(folder)["stopped_early"] == {"round": 2, "reason": "a callback asked for it"}
    with pytest.raises(RunError, match=r"a callback asked for it; to go on, give a larger rounds"):
        simulate(folder, config_of(*SETTINGS, "rounds=4"), resume=True)
    simulate(folder, config_of(*SETTINGS), resume=True)
    assert prints(folder) == prints(plain)
