"""``--json``: one object, or one a round and one with the result; nothing else on the output."""

import csv
import json
import sys

import pytest
from hydra.core.global_hydra import GlobalHydra

from fedlabels.answers import alone, plain, write_json
from fedlabels.command import main
from tests.end_to_end.harness import FEDAVG


@pytest.fixture
def ask(capfd, monkeypatch, tmp_path):
    """Run a command in a folder of its own; return exit status, objects and standard error."""
    monkeypatch.setattr(sys, "argv", ["fedlabels"])
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        GlobalHydra.instance().clear()
        try:
            status = main(arguments)
        except SystemExit as ended:
            status = ended.code
        out, err = capfd.readouterr()
        return status, [json.loads(line) for line in out.splitlines()], err

    return run


def test_a_run_is_a_line_a_round_and_one_with_the_result(ask, tmp_path):
    given = (*FEDAVG, "training.steps=1", "rounds=3", "evaluate_every=2", "run_dir=run")
    status, lines, shown = ask("run", *given, "--json")
    assert status == 0
    *rounds, last = lines
    with (tmp_path / "run" / "rounds.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [entry["round"] for entry in rounds] == [1, 2, 3]
    assert all(float(r["weight"]) == e["weight"] for r, e in zip(rows, rounds, strict=True))
    assert last["result"] == rounds[-1]
    assert last["run_dir"] == str(tmp_path / "run")
    assert (last["status"], last["stopped_early"]) == ("finished", None)
    assert "round 3/3" in shown
    status, lines, shown = ask("resume", "run", "--json")
    assert (status, lines[0]["run_dir"]) == (1, str(tmp_path / "run"))
    assert "has finished its 3 rounds" in lines[0]["error"]
    status, lines, _ = ask("resume", "--json", "run", "rounds=4")
    assert (status, [entry.get("round") for entry in lines]) == (0, [4, None])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("labels.fractoin=0.1",), "did you mean labels.fraction?"),
        (("per_round=11", "clients=10"), "per_round=11 is more than clients=10"),
        (("dataset=npz",), "was not found"),
        (("-m", "seed=0,1"), "--json answers for one run"),
        (("resume=nowhere",), "resume=nowhere holds no run"),
    ],
)
def test_an_error_is_an_object(ask, given, said, tmp_path):
    status, lines, _ = ask("run", *given, "--json")
    assert (status, len(lines)) == (1, 1)
    assert said in lines[0]["error"]
    assert not (tmp_path / "runs").exists()


def test_a_preview_is_one_object(ask, tmp_path):
    given = ("dataset=digits", "clients=6", "labels=zero_label_clients", "labels.share=0.5")
    status, (facts,), _ = ask("preview", *given, "picture=look.html", "--json")
    assert status == 0
    assert (facts["clients"], facts["clients_without_labels"]) == (6, 3)
    assert sum(facts["labeled_per_class"]) == facts["labeled"]
    assert (tmp_path / facts["picture"]).exists()
    assert len(facts["hash"]) == 64
    status, (facts,), err = ask("preview", "partition=dirichlett", "--json")
    assert (status, err) == (2, "")
    assert "partition=dirichlett is not known" in facts["error"]


def test_what_json_cannot_say_is_null(capfd):
    assert plain({"a": float("nan"), "b": [float("inf"), 1.5], "c": None}) == {
        "a": None, "b": [None, 1.5], "c": None,
    }  # fmt: skip
    with alone() as answers:
        print("of a library")
        write_json({"a": float("nan")}, answers)
    assert capfd.readouterr() == ('{"a": null}\n', "of a library\n")
