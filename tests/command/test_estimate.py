"""``fedlabels run ... --estimate``: what a run would take is said, and nothing of it begins."""

import json

import pytest

from fedlabels.command import main
from fedlabels.run.estimate import estimate
from tests.end_to_end.harness import FEDAVG, config_of

SETTINGS = (*FEDAVG, "training.steps=1", "rounds=7", "evaluate_every=3")


def test_it_is_said_what_the_estimate_is_made_of(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["run", *SETTINGS, "--estimate"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("about ")
    assert " for 7 rounds, " in out
    assert "testing       3 times" in out
    assert "Tried here: 1 client of middle size" in out
    assert not err
    assert main(["run", *SETTINGS, "--estimate", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["rounds"] == 7
    assert facts["evaluations"] == 3
    assert facts["memory"] > 1e7
    assert facts["seconds"] > facts["client"] > 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "tried"),
    [
        (("backend.execution=stacked", "method=fedavg"), 4),
        (("method=fedbn", "model.norm=batch"), 1),  # clients test models of their own
        (("method=fedlabel",), 1),
        (("method=fedavg", "strategy=stock", "strategy.rule=Krum"), 1),
        (("method=fedavg", "backend=processes", "backend.num_workers=2"), 1),
    ],
    ids=["stacked", "personal", "fedlabel", "every model", "workers"],
)
def test_methods_and_backends(given, tried):
    small = ("dataset=digits", "clients=6", "per_round=4", "rounds=2", "training.steps=1")
    where = () if any(key == "backend=processes" for key in given) else ("backend=serial",)
    found = estimate(config_of(*given, *small, *where))
    assert found.tried == tried
    assert found.clients_per_round == 4
    assert found.seconds > 0
    assert (found.own_test > 0) == ("method=fedbn" in given)
    assert found.workers <= 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("-m", "seed=1,2"), "-m does not go with --estimate"),
        (("training.lr=-1",), "training.lr must be"),
        (("no_such=1",), "no_such is no setting"),
    ],
)
def test_mistakes_are_one_line(given, said, capsys):
    assert main(["run", *SETTINGS, *given, "--estimate"]) == 1
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
