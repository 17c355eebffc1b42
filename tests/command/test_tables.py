"""``fedlabels methods`` and ``fedlabels datasets``: as text and as JSON."""

import json
import re
from pathlib import Path

import pytest

from fedlabels.command import main
from fedlabels.data.registry import READERS
from fedlabels.settings.presets import presets

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def ask(capsys):
    """Run a command; return its exit status, its one object and the standard error."""

    def run(*arguments):
        status = main(arguments)
        out, err = capsys.readouterr()
        return status, json.loads(out), err

    return run


def test_methods_say_what_they_send_and_where_they_come_from(ask):
    status, facts, err = ask("methods", "--json")
    assert (status, err) == (0, "")
    methods = {entry["name"]: entry for entry in facts["methods"]}
    assert list(methods) == list(presets("method"))
    wires = {name: entry["wire"] for name, entry in methods.items()}
    assert wires["fedlabel"] == wires["fedadam"] == wires["stock"] == "model"
    assert wires["fedlabel_flute"] == "two models"
    assert wires["fedsa"] == wires["fedtgp"] == "prototypes"
    assert wires["local_training"] == "nothing"
    assert methods["fedsa"]["down"] == ["anchors", "prototypes"]
    assert {n for n, m in methods.items() if m["labels"] == "all"} == {"fully_labeled"}
    assert methods["fixmatch"]["unlabeled"]
    assert not methods["fedprox"]["unlabeled"]
    for entry in methods.values():
        page = (REPO / entry["page"]).read_text()
        numbers = re.findall(r"\d{4}\.\d{5}", entry["paper"] or "")
        pages = page + (REPO / "docs/methods/baselines.md").read_text()
        pages += (REPO / "docs/methods/fedlabel.md").read_text()
        assert entry["what"]
        assert all(number in pages for number in numbers)


def test_datasets_say_where_they_lie_without_reading_them(ask, tmp_path, monkeypatch):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for split in ("train", "t10k"):
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte.gz"):
            (folder / f"{split}-{kind}").touch()
    monkeypatch.setenv("FEDLABELS_DATA", str(tmp_path))
    status, facts, _ = ask("datasets", "--json")
    datasets = {entry["name"]: entry for entry in facts["datasets"]}
    assert status == 0
    assert list(datasets) == list(presets("dataset"))
    assert set(datasets) == set(READERS)
    assert datasets["mnist"]["found"] == str(folder)
    assert datasets["mnist"]["samples"] == "60,000 + 10,000"
    assert datasets["digits"]["found"] == "with scikit-learn"
    assert datasets["huggingface"]["get"] == "give dataset.options.path=..."
    for entry in datasets.values():
        assert entry["what"]
        assert (entry["found"] is None) == (entry["get"] is not None)


def test_one_name_has_all_that_is_known(capsys):
    assert main(["datasets", "svhn"]) == 0
    shown = capsys.readouterr().out
    assert "licence  non-commercial use" in shown
    assert "mnist" not in shown
    assert main(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "wire", "labels", "paper", "page", "what"]
    assert sum(line.startswith("fedlabel") for line in lines) == 6


def test_mistakes_name_what_there_is(ask, capsys):
    status, facts, err = ask("methods", "fedlabl", "--json")
    assert status == 1
    assert not err
    assert "did you mean fedlabel?" in facts["error"]
    assert "fedprox" in facts["error"]
    assert main(["datasets", "minst"]) == 1
    assert "did you mean mnist?" in capsys.readouterr().err
    assert main(["datasets", "--all"]) == 1
    assert capsys.readouterr() == (
        "", "error: --all is no option here; usage: fedlabels datasets [DATASET ...] [--json]\n"
    )  # fmt: skip
