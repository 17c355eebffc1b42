"""What makes two settings one cell, and what every preset of a sweep composes to."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from fedlabels.run.code import code_version
from fedlabels.settings.arguments import with_choices
from fedlabels.settings.config import register
from fedlabels.settings.hashing import config_hash
from fedlabels.sweep.cells import fingerprint, make_cells, with_method
from fedlabels.sweep.launcher import inequalities, made_by_others, resolved
from tests.end_to_end.harness import REPO, config_of

PRESETS = sorted(path.stem for path in (REPO / "configs" / "sweep").glob("*.yaml"))


def composed(*overrides):
    register()
    with initialize_config_dir(str(REPO / "configs"), version_base="1.3"):
        return compose("config", overrides=list(overrides), return_hydra_config=True)


def test_the_fingerprint_is_that_of_the_result():
    base = fingerprint(config_of("dataset=digits", "seed=1"))
    same = ("backend=serial", "backend.num_workers=2", "run_dir=/x", "sweep.jobs=3", "name=other",
            "callbacks=profile", "checkpoint_every=1")  # fmt: skip
    for override in same:
        assert fingerprint(config_of("dataset=digits", "seed=1", override)) == base
    for override in ("backend.threads=2", "backend.execution=stacked", "schedule_rounds=9"):
        assert fingerprint(config_of("dataset=digits", "seed=1", override)) != base
    for override in ("rounds=7", "client.threshold=0.3", "partition.alpha=0.2", "per_round=3"):
        assert fingerprint(config_of("dataset=digits", "seed=1", override)) != base
    assert fingerprint(config_of("dataset=digits", "seed=2")) != base


def test_the_fingerprint_and_the_check_of_a_resume_know_the_same_settings():
    base = ("dataset=mnist", "tracker=mlflow", "seed=1")
    first = config_of(*base)
    # of those that a resume may change, what says which round is the last decides what a cell is
    for override in ("backend.tf32=false", "name=x", "resume_code=any", "dataset.root=/x", "seed=2",
                     "evaluate_every=2", "tracker.project=x"):  # fmt: skip
        other = config_of(*base, override)
        assert (fingerprint(first) == fingerprint(other)) == (
            config_hash(first) == config_hash(other)
        ), override
    for override in ("rounds=7", "early_stop.patience=3"):
        other = config_of(*base, override)
        assert fingerprint(first) != fingerprint(other)
        assert config_hash(first) == config_hash(other)


def test_further_results_are_another_cell():
    plain = config_of("dataset=digits")
    asked = config_of("dataset=digits", "callbacks=decomposition")
    assert fingerprint(plain) != fingerprint(asked)
    assert fingerprint({k: v for k, v in plain.items() if k != "callbacks"}) == fingerprint(plain)


def test_other_data_are_another_cell(tmp_path):
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(40, 3)).astype(np.float32), np.arange(40) % 2

    def cell(folder, values):
        folder.mkdir(exist_ok=True)
        for split in ("train", "test"):
            np.savez(folder / f"{split}.npz", x=values, y=y)
        config = config_of("dataset=npz", f"dataset.root={folder}", "model=mlp")
        return make_cells([(("seed=0",), config)], tmp_path / "sweep")[0].folder.name

    first = cell(tmp_path / "data", x)
    assert cell(tmp_path / "moved", x) == first
    assert cell(tmp_path / "data", x + 1) != first
    config = config_of("dataset=npz", f"dataset.root={tmp_path / 'nowhere'}", "model=mlp")
    assert len(make_cells([(("seed=0",), config)], tmp_path)) == 1  # the cell says what is missing


def test_cells_of_other_code_are_named(tmp_path):
    config = config_of("dataset=digits")
    cells = make_cells([((f"seed={k}",), {**config, "seed": k}) for k in range(3)], tmp_path)
    codes = ({"version": "0.0.1"}, code_version(), {"version": "0.0.1"})
    for cell, code in zip(cells, codes, strict=True):
        cell.folder.mkdir()
        (cell.folder / "manifest.json").write_text(json.dumps({"status": "finished", "code": code}))
    (note,) = made_by_others(cells)
    assert note.startswith("2 finished cells were made with version 0.0.1, this is version")


def test_a_cell_knows_what_is_common_to_the_sweep(tmp_path):
    config = config_of("dataset=digits", "method=fedavg")
    jobs = [["method=fedavg", "sweep.name=x", f"seed={seed}"] for seed in (0, 1)]
    cells = make_cells([(job, {**config, "seed": k}) for k, job in enumerate(jobs)], tmp_path)
    assert [cell.label for cell in cells] == ["seed=0", "seed=1"]
    assert cells[1].facts["overrides"] == ["method=fedavg", "seed=1"]


def test_equal_settings_are_one_cell(tmp_path):
    jobs = [("seed=0", "per_round=10"), ("seed=0", "per_round=5"), ("seed=0", "clients=100")]
    cells = make_cells([(job, config_of("dataset=digits", *job)) for job in jobs], tmp_path)
    assert len(cells) == 2  # ten clients a round, and a hundred clients, are the defaults
    assert [cell.overrides for cell in cells] == [("per_round=10",), ("per_round=5",)]
    assert all(cell.folder.name.startswith("fedlabel-") for cell in cells)


def test_status_is_read_from_the_folder(tmp_path):
    (cell,) = make_cells([(("seed=0",), config_of("dataset=digits"))], tmp_path)
    assert cell.status() == "new"
    cell.folder.mkdir()
    assert cell.status() == "new"
    (cell.folder / "config.yaml").write_text("a: 1")
    assert cell.status() == "begun"
    (cell.folder / "manifest.json").write_text(json.dumps({"status": "finished"}))
    assert cell.status() == "begun"  # its report is missing
    (cell.folder / "report.html").write_text("")
    assert cell.status() == "finished"
    (cell.folder / "manifest.json").write_text("{")
    assert cell.status() == "begun"


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "none"])
def test_every_cell_of_a_preset_composes(preset):
    whole = composed(f"sweep={preset}")
    params = {str(k): str(v) for k, v in whole.hydra.sweeper.params.items()}
    parser = OverridesParser.create()
    choices = []
    for key, values in params.items():
        override = parser.parse_override(f"{key}={values}")
        choices.append(list(override.sweep_string_iterator()))
    jobs = [[f"{k}={v}" for k, v in zip(params, job, strict=True)] for job in product(*choices)]
    assert len(jobs) >= 10
    chosen = [jobs[0], jobs[-1], *({job[-1]: job for job in jobs}.values())]
    configs = []
    for job in chosen:
        given = with_method(whole.sweep.per_method, job)
        configs.append((job, resolved(composed(f"sweep={preset}", *given))))
    assert all(config["sweep"]["name"] == preset for _, config in configs)
    assert all(config["backend"]["name"] == "serial" for _, config in configs)
    methods = {config["client"]["name"] for _, config in configs}
    assert methods
    assert Path(REPO / "docs" / "sweeps.md").read_text().count(f"`{preset}`") >= 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("training.lr=0.05", "training.lr=choice(0.05)"),
        ("+strategy.options.x=[1,2]", "+strategy.options.x=choice([1,2])"),
        ("partition.alpha=0.1", "partition.alpha=choice(0.1)"),
        ("training.lr=0.1,0.2", "training.lr=0.1,0.2"),
        ("training.lr=choice(0.1)", "training.lr=choice(0.1)"),
        ("~training.lr", "~training.lr"),
        ("method=fedavg", "method=fedavg"),
        ("seed=1", "seed=1"),
        ("backend.num_workers=2", "backend.num_workers=2"),
        ("training.lr='0.1", "training.lr='0.1"),
    ],
)
def test_constants_of_a_group_are_part_of_each_cell(given, expected):
    assert with_choices(["-m", given]) == ["-m", expected]
    assert with_choices([given]) == [given]


def test_a_constant_setting_of_a_swept_method_composes():
    (choice,) = OverridesParser.create().parse_overrides(["training.lr=choice(0.05)"])
    assert choice.is_sweep_override()  # Hydra leaves it out of what all cells share
    assert list(choice.sweep_string_iterator()) == ["0.05"]
    for method in ("fedavg", "fedprox"):
        assert config_of(f"method={method}", "training.lr=0.05")["training"]["lr"] == 0.05


class TestInequalities:
    def cells(self, *methods, more=()):
        return [((f"method={m}",), config_of(f"method={m}", *more)) for m in methods]

    def test_methods_with_other_rates_are_named_before_a_sweep(self):
        told = "\n".join(inequalities(self.cells("fixmatch", "fedlabel_stable")))
        assert "the methods do not share all settings" in told
        assert "learning rate: fixmatch 0.1, fedlabel_stable 0.003" in told

    def test_equal_methods_are_not(self):
        assert inequalities(self.cells("fedavg", "fedavg")) == []
        varied = [
            *self.cells("fedavg", "labeled_only", more=("training.lr=0.1",)),
            *self.cells("fedavg", "labeled_only", more=("training.lr=0.2",)),
        ]
        assert not [line for line in inequalities(varied) if "learning rate" in line]


def test_settings_of_a_preset_are_those_of_its_method_alone():
    ours = config_of("preset=quickstart")
    assert ours["training"]["batch_unlabeled"] == 32
    other = config_of("preset=quickstart", "method=fedavg")
    assert other["client"] == config_of("method=fedavg")["client"]
    for config in (ours, other):
        assert {"steps": 10, "batch_size": 16, "lr": 0.1}.items() <= config["training"].items()
        assert config["clients"] == 20
