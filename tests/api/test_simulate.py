"""Runs from Python: the bits of the command, and a process that is left as it was."""

import asyncio
import json
import logging
import os
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.version import getbase

import fedlabels
from fedlabels.errors import CheckpointError, ConfigError, DataError, FedLabelsError, RunError
from fedlabels.settings.mistakes import composition
from fedlabels.settings.overrides import overrides_of
from tests.end_to_end.harness import config_of, prints, simulate

SETTINGS: dict[str, Any] = {
    "method": "fedavg", "dataset": "digits", "model": {"name": "mlp", "hidden": [16]}, "clients": 6,
    "per_round": 3, "rounds": 3, "training": {"lr": 0.1, "steps": 3}, "labels": {"fraction": 0.5},
}  # fmt: skip
COMMAND = (
    "method=fedavg", "dataset=digits", "model=mlp", "model.hidden=[16]", "clients=6", "per_round=3",
    "rounds=3", "training.lr=0.1", "training.steps=3", "labels.fraction=0.5", "backend=serial",
)  # fmt: skip


def state() -> dict[str, Any]:
    """What belongs to the caller, beside what every test is looked at for."""
    logger = logging.getLogger("flwr")
    return {
        "argv": list(sys.argv),
        "hydra": GlobalHydra.instance(),
        "initialized": GlobalHydra.instance().is_initialized(),
        "base": getbase(),
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
        "python": random.getstate(),
        "logger": (logger.level, logger.propagate),
        "environment": dict(os.environ),
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> fedlabels.Run:
    return fedlabels.simulate(**SETTINGS, run_dir=tmp_path_factory.mktemp("api") / "a run")


def test_bits_and_manifest_are_those_of_the_command(run: fedlabels.Run, tmp_path: Path) -> None:
    assert overrides_of(SETTINGS) == list(COMMAND[:-1])
    simulate(tmp_path / "run", config_of(*COMMAND))
    assert prints(run.path) == prints(tmp_path / "run")
    assert run.manifest["overrides"] == list(COMMAND)
    assert run.manifest["method"] == run.method == "fedavg"
    assert run.manifest["command"].endswith("labels.fraction=0.5 backend=serial")
    assert "run_dir" not in run.manifest["command"]


def test_a_resume_goes_on_with_the_runs_own_settings(tmp_path: Path) -> None:
    first = fedlabels.simulate(**{**SETTINGS, "rounds": 2}, schedule_rounds=3, run_dir=tmp_path)
    with pytest.raises(RunError, match="has finished its 2 rounds"):
        fedlabels.simulate(resume=first)
    second = fedlabels.simulate(resume=first, rounds=3)
    assert second.rounds["round"].tolist() == [1, 2, 3]
    assert second.settings["training"]["lr"] == 0.1
    with pytest.raises(CheckpointError, match="other settings"):
        fedlabels.simulate(resume=first, rounds=4, training={"lr": 0.2})


def test_the_process_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["program", "--of", "its=own"])
    configs = tmp_path / "theirs"
    configs.mkdir()
    (configs / "mine.yaml").write_text("a: 1\n")
    with initialize_config_dir(str(configs), version_base="1.2"):
        before = state()

        async def cell() -> fedlabels.Run:
            return fedlabels.simulate(**{**SETTINGS, "rounds": 1}, run_dir=tmp_path / "run")

        done = asyncio.run(cell())  # as in a notebook, whose loop runs already
        with pytest.raises(ConfigError):
            fedlabels.simulate(methd="fedavg")
        fedlabels.look(dataset="digits")
        assert state() == before
        assert compose("mine").a == 1
    assert done.status == "finished"
    assert capfd.readouterr() == ("", "")
    assert "round 1/1" in (done.path / "run.log").read_text()


def test_progress_is_shown_when_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fedlabels.simulate(**{**SETTINGS, "rounds": 1}, run_dir=tmp_path, progress=True)
    assert "round 1/1" in capsys.readouterr().out


def test_a_stopped_run_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fedlabels.run.in_process.execute", stopped)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyboardInterrupt) as caught:
        fedlabels.simulate(**SETTINGS)
    assert "fedlabels.simulate(resume=" in caught.value.__notes__[0]
    assert list(tmp_path.iterdir()) == []  # nothing came into its folder


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"methd": "x"}, "methd is no setting (did you mean method?)"),
        ({"method": "fedavgg"}, "method=fedavgg is not known (did you mean fedavg?)"),
        ({"method": {"name": "fedavg"}}, "method takes a name alone"),
        ({"training": {"lr": 0.1}, "training.lr": 0.2}, "training.lr is given twice (0.1, 0.2)"),
        ({"labels": {"name": "beta"}, "labels.name": "uniform"}, "labels is given twice"),
        ({"labels": {}}, "labels is empty"),
        ({"training": {"lr": "fast"}}, "training.lr must be a number, got 'fast'"),
        ({"training": {"lr": object()}}, "training.lr must be a text, a number"),
        ({"training": {"": 1}}, "'training.' is no name of a setting"),
        ({"+seed": 1}, "'+seed' is no name of a setting"),
        ({"name": "a\nb"}, "name must be one line"),
        ({"sweep": {"name": "x"}}, "sweep is no setting of one run"),
        ({"clients": 4, "per_round": 5}, "per_round=5 is more than clients=4"),
        ({"clients": 4, "per_round": 2, "backend": {"portable": True}}, "backend.portable=true"),
        ({"run_dir": "a", "resume": "b"}, "run_dir=a and resume=b are both the run folder"),
        ({"resume": "nowhere"}, "resume=nowhere holds no run"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    settings: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FedLabelsError) as caught:
        fedlabels.simulate(**settings)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None or not isinstance(caught.value, ConfigError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    ["a b", "it's", "C:\\new\\", "\\'", "a\\\\b", "1", "true", "null", "a,b", "[x", "", "ü/é",
     "a=b", "x'\\", 'say "x"', "$x", "a:b", "{a: 1}", "choice(1,2)"],
)  # fmt: skip
def test_texts_arrive_as_they_are(text: str) -> None:
    assert composition(overrides_of({"name": text})).config["name"] == text


def test_values_arrive_as_they_are() -> None:
    values = {
        "seed": np.int64(3), "max_client_failures": np.float32(0.5), "evaluate_clients": None,
        "run_dir": Path("a b"), "backend": {"tf32": True},
        "architectures": {"models": ("mlp", {"name": "mlp", "hidden": np.array([8, 4])})},
    }  # fmt: skip
    config = composition(overrides_of(values)).config
    assert (config["seed"], config["max_client_failures"], config["run_dir"]) == (3, 0.5, "a b")
    assert config["evaluate_clients"] is None
    assert config["backend"]["tf32"] is True
    assert config["architectures"]["models"] == ["mlp", {"name": "mlp", "hidden": [8, 4]}]


# ---- what came out


def test_tables_have_types(run: fedlabels.Run) -> None:
    assert run.rounds["round"].dtype == run.rounds["bytes_up"].dtype == np.int64
    assert run.rounds["test_accuracy"].dtype == np.float64
    assert set(run.clients["status"]) == {"ok"}
    assert run.clients["error"].dtype.kind == "U"
    assert run.test_class["recall_0"].shape == (3,)
    assert run.personal == run.profile == {}
    assert run.accuracy == run.rounds["test_accuracy"][-1]
    assert np.isnan(run.personal_accuracy)
    assert "<table>" in run.rounds._repr_html_()


def test_who_holds_what(run: fedlabels.Run) -> None:
    held = run.federation
    assert held.hash == run.manifest["federation_hash"]
    assert set(held.labeled.owners) <= set(range(6))
    assert (held.labels[held.labeled.index] >= 0).all()


def test_figures_are_pictures(run: fedlabels.Run, tmp_path: Path) -> None:
    figure = run.figure("test-accuracy")
    assert figure._repr_svg_().startswith("<?xml")
    assert "</svg>" in figure.svg
    assert figure.save(tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match=r"must end in one of \.png, \.svg, \.pdf"):
        figure.save(tmp_path / "a.gif")
    with pytest.raises(ConfigError, match=r"no figure accuracy \(did you mean test-accuracy\?\)"):
        run.figure("accuracy")
    assert "test accuracy" in run._repr_html_().lower()


def test_a_run_of_before_is_read_under_the_names_of_now(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"method": "FedAvg", "status": "running"}))
    (tmp_path / "config.yaml").write_text(
        "seed: 1\nclient: {name: fedavg, lr: 0.3, local_steps: 7}\n"
    )
    (tmp_path / "rounds.csv").write_text("round,ratio,test_accuracy\n1,0.5,\n2,,0.25\n3,0.")
    run = fedlabels.Run.open(tmp_path)
    assert run.settings["training"]["steps"] == 7
    assert run.settings["client"] == {"name": "fedavg"}
    np.testing.assert_array_equal(run.rounds["ratio"], [0.5, np.nan])  # a row is being written
    assert run.accuracy == 0.25
    assert repr(run) == f"Run({str(tmp_path)!r}, FedAvg, running, 25.0 %)"
    with pytest.raises(DataError, match=r"federation\.npz does not exist"):
        _ = run.federation


@pytest.mark.parametrize(
    ("files", "part", "said"),
    [
        ({}, "path", "holds no run"),
        ({"manifest.json": "{"}, "path", "manifest.json is no JSON"),
        ({"manifest.json": "{}"}, "settings", "config.yaml cannot be read"),
        ({"manifest.json": "{}", "config.yaml": "- 1"}, "settings", "holds no settings"),
        ({"rounds.csv": "round,x\n1\n"}, "rounds", "line 2 has 1 values, not 2"),
        ({"rounds.csv": 'round,x\n1,"\n'}, "rounds", "rounds.csv is damaged"),
    ],
)
def test_what_is_damaged_is_said(
    files: dict[str, str], part: str, said: str, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=said):
        getattr(fedlabels.Run.open(tmp_path), part)
    with pytest.raises(DataError, match="holds no run"):
        fedlabels.Run.open(tmp_path / "nowhere")


def test_pandas_is_asked_for_in_one_line(
    run: fedlabels.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match="pip install pandas"):
        run.rounds.to_pandas()


def test_a_comparison_has_the_reports_statistics(run: fedlabels.Run, tmp_path: Path) -> None:
    (tmp_path / "stopped").mkdir()
    (tmp_path / "stopped" / "manifest.json").write_text('{"status": "stopped", "rounds_done": 1}')
    other = fedlabels.simulate(**{**SETTINGS, "method": "fedprox"}, run_dir=tmp_path / "other")
    found = fedlabels.compare([run, tmp_path])
    assert repr(found) == "Comparison(fedavg, fedprox: 2 runs, 1 left out)"
    assert found.cells["method"].tolist() == ["fedavg", "fedprox"]
    assert found.cells["difference"][1] == pytest.approx(other.accuracy - run.accuracy)
    assert np.isnan(found.cells["difference"][0])
    assert [*found.left_out.values()] == ["not finished: its status is stopped after round 1"]
    assert "fedprox" in found._repr_html_()
    assert "</svg>" in next(iter(found.figures.values())).svg
    written = [path.name for path in found.write(tmp_path / "files")]
    assert "comparison.html" in written
    with pytest.raises(ConfigError, match="compare needs runs"):
        fedlabels.compare([])
    with pytest.raises(DataError, match="is no folder"):
        fedlabels.compare("nowhere")


def test_a_look_says_what_is_suspicious() -> None:
    look = fedlabels.look(dataset="digits", clients=8, labels={"name": "beta", "fraction": 0.05})
    assert len(look.federation) == 8
    assert look.facts["clients"] == "8"
    assert any("label" in note for note in look.notes)
    assert "</svg>" in look.figure().svg
    assert "<dl" in look._repr_html_()
    with pytest.raises(ConfigError, match="clients must be >= 1"):
        fedlabels.look(clients=0)
