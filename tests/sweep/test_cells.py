"""What makes two settings one cell, and what every preset of a sweep composes to."""

import json
from itertools import product
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from fedlabels.run.config import register
from fedlabels.sweep.cells import fingerprint, make_cells, with_method
from fedlabels.sweep.launcher import resolved
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
    for override in ("rounds=7", "client.threshold=0.3", "partition.alpha=0.2", "per_round=3"):
        assert fingerprint(config_of("dataset=digits", "seed=1", override)) != base
    assert fingerprint(config_of("dataset=digits", "seed=2")) != base


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
