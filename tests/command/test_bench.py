"""``fedlabels bench``: every backend is run, and nothing stays behind."""

import json

import pytest

from fedlabels.command import main
from tests.end_to_end.harness import FEDAVG

SETTINGS = (*(key for key in FEDAVG if not key.startswith("backend")), "training.steps=1")


def test_all_backends_are_measured(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = (*SETTINGS, "rounds=2", "backend.num_workers=1")
    assert main(["bench", *given]) == 1  # serially there are no workers
    assert "backend.num_workers=1 has no effect" in capsys.readouterr().err
    assert main(["bench", *given[:-1], "--passes", "1", "--out", "bench.json", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [mode["name"] for mode in facts["modes"]] == [
        "serial, looped", "serial, stacked", "processes"
    ]  # fmt: skip
    assert all(mode["median"] > 0 for mode in facts["modes"])
    assert facts["modes"][0]["ratio"] == 1
    assert json.loads((tmp_path / "bench.json").read_text())["fastest"] == facts["fastest"]
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("backend=ray",), "the command chooses that itself"),
        (("rounds=1",), "rounds must be >= 2 here, got 1"),
        (("--passes", "0"), "--passes must be >= 1, got 0"),
        (("--passes", "x"), "invalid int value"),
        (("quickly",), "quickly is no setting KEY=VALUE"),
    ],
)
def test_mistakes_are_one_line(given, said, capsys):
    assert main(["bench", *given]) == 1
    assert said in capsys.readouterr().err
