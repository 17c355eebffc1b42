"""Where cells of a sweep run, how many side by side, with how many workers each."""

from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from fedlabels.errors import ConfigError
from fedlabels.machine import SHARE, allowed_cores
from fedlabels.run.main import execute
from fedlabels.settings.config import register
from fedlabels.sweep import launcher, runner
from fedlabels.sweep.cells import Cell, accuracy_of, make_cells
from fedlabels.sweep.launcher import CellsLauncher, run_sweep
from fedlabels.sweep.runner import run_cell
from tests.end_to_end.harness import FEDAVG, REPO, config_of, contents


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ((), "serial"),
        (("backend.threads=2", "backend.execution=stacked"), "serial"),
        (("preset=quickstart",), "serial"),
        (("sweep=smoke",), "serial"),
        (("backend=ray",), "ray"),
        (("backend=processes", "sweep=smoke"), "processes"),
        (("backend.name=processes",), "processes"),
        (("backend.num_workers=2",), "ray"),
        (("backend.address=auto",), "ray"),
    ],
)
def test_cells_run_in_their_own_process_unless_told(overrides, name):
    register()
    cells = CellsLauncher()
    with initialize_config_dir(str(REPO / "configs"), version_base="1.3"):
        cells._config = compose("config", overrides=list(overrides), return_hydra_config=True)
        loader = GlobalHydra.instance().config_loader()
        cells._context = SimpleNamespace(config_loader=loader)
        cells._config.hydra.job.config_name = "config"
        chosen = [*cells._where(overrides), *overrides]
        assert compose("config", overrides=chosen).backend.name == name


@pytest.mark.parametrize(
    ("cores", "overrides", "jobs", "each"),
    [
        (8, ("backend=serial",), 8, 1),
        (8, ("backend=processes",), 8, 1),
        (8, ("backend=processes", "sweep.jobs=2"), 2, 4),
        (8, ("backend=ray", "sweep.jobs=3"), 3, 2),
        (8, ("backend=processes", "backend.num_workers=4"), 2, 4),
        (8, ("backend=processes", "backend.num_workers=20"), 1, 8),
        (1, ("backend=processes", "sweep.jobs=2"), 2, 1),
        (8, ("backend=serial", "backend.threads=4"), 2, 4),
        (8, ("backend=processes", "backend.num_workers=2", "backend.threads=2"), 2, 4),
    ],
)
def test_never_more_workers_than_cores(tmp_path, monkeypatch, cores, overrides, jobs, each):
    asked = []

    def here(cells, jobs, progress, cores):
        asked.append((jobs, cores))
        return 130

    monkeypatch.setattr(launcher, "run_here", here)
    monkeypatch.setattr(launcher, "allowed_cores", lambda: cores)
    config = config_of("method=fedavg", *overrides)
    cell = Cell((), config, tmp_path / "cell", {"overrides": []})
    run_sweep([cell], tmp_path, config["sweep"])
    assert asked == [(jobs, each)]


def test_a_line_that_was_not_ended_has_no_accuracy(tmp_path):
    table = tmp_path / "rounds.csv"
    for text, expected in {
        "round,test_accuracy,weight\n1,0.25,3\n2,0.5,3\n": 0.5,
        "round,test_accuracy,weight\n1,0.25,3\n2,0.": 0.25,
        "round,test_accuracy,weight\n1,0.25,3\n2": 0.25,
        "round,test_accuracy,weight\n1,0.25,3\n2\n": None,
        "round,test_accuracy,weight\n1,,3\n": None,
        "round,test_acc": None,
        "": None,
    }.items():
        table.write_text(text)
        assert accuracy_of(tmp_path) == expected, text


def test_a_cell_that_was_resumed_with_another_plan_is_none(tmp_path):
    config = config_of(*FEDAVG, "training.steps=1", "rounds=1")
    (cell,) = make_cells([((), config)], tmp_path)
    run_cell(cell.config, str(cell.folder), cell.facts)
    assert cell.status() == "finished"
    assert not cell.changes()
    more = {**config, "rounds": 2, "resume": str(cell.folder)}
    execute(more, cell.folder)
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=r"was resumed with rounds=2 and is not the cell .* away"):
        run_sweep([cell], tmp_path, config["sweep"])
    assert contents(tmp_path) == before


def test_a_cell_has_its_share_of_the_cores(tmp_path, monkeypatch):
    monkeypatch.setenv(SHARE, "")
    found = []
    monkeypatch.setattr(runner, "run_cell", lambda *given: found.append(allowed_cores()))
    monkeypatch.setattr(runner, "_end_with", lambda life: None)
    runner._child({}, str(tmp_path), {}, None, 1)
    assert found == [1]


def test_what_was_wrong_with_a_cell_is_in_its_file(tmp_path):
    folder = tmp_path / "fedavg-v1.5-abc"
    cell = Cell((), {}, folder, {"overrides": []})
    with pytest.raises(KeyError):
        runner.run_cell({}, str(folder), {})  # as a task of Ray calls it
    (error,) = tmp_path.glob("*.error")
    assert error.name == "fedavg-v1.5-abc.error"
    assert "KeyError" in error.read_text()
    assert "KeyError" in runner.error_of(cell, "a task of Ray failed")
    error.unlink()
    assert runner.error_of(cell, "its machine died") == "its machine died"
    assert error.read_text() == "its machine died"


def test_a_problem_that_cannot_be_noted_is_told_all_the_same(tmp_path):
    (tmp_path / "file").write_text("no folder can be made below it")
    cell = Cell((), {}, tmp_path / "file" / "cell", {"overrides": []})
    assert runner.error_of(cell, "exit status 1") == "exit status 1"
