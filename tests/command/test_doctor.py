"""``fedlabels doctor``: a machine for simulations, or with options a device."""

import json
from importlib import metadata

import pytest

from fedlabels.command import main
from fedlabels.errors import ConfigError


def test_a_machine_that_simulates_is_well(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    found = {finding["name"]: finding["text"] for finding in facts["findings"]}
    assert facts["ok"]
    assert {"python", "torch", "flwr", "ray", "hydra-core", "cores", "gpu", "disk"} <= set(found)
    assert "supported: " in found["flwr"]
    assert "digits (with scikit-learn)" in found["data"]
    assert str(tmp_path) in found["disk"]


@pytest.mark.parametrize("fault", ["missing", "old", "cores"])
def test_what_must_be_solved_is_a_status_and_says_how(fault, capsys, monkeypatch):
    version = metadata.version
    lacking = {"missing": "ray", "old": "flwr"}.get(fault)

    def other(name):
        if name != lacking:
            return version(name)
        if fault == "old":
            return "1.0"
        raise metadata.PackageNotFoundError(name)

    def refused():
        raise ConfigError("FEDLABELS_CORES=none is no number")

    monkeypatch.setattr("importlib.metadata.version", other)
    if fault == "cores":
        monkeypatch.setattr("fedlabels.command.doctor.allowed_cores", refused)
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    (problem,) = [line for line in lines if line.startswith("PROBLEM")]
    said = {"missing": "ray: not installed: pip", "old": 'pip install "flwr', "cores": "FEDLABELS_"}
    assert said[fault] in problem
    assert lines[-1] == "1 to solve"


def test_with_options_it_is_that_of_a_device(capsys):
    assert main(["doctor", "--node-config", "client-id=0", "--insecure"]) == 1
    assert "--superlink, which is missing" in capsys.readouterr().err
