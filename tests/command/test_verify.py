"""``fedlabels verify``: what is damaged or was changed is found, and rounds come out again."""

import json
import shutil

import pytest

from fedlabels.command import main
from tests.end_to_end.harness import FEDAVG, config_of, simulate


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    simulate(folder, config_of(*FEDAVG, "training.steps=1", "rounds=3", "evaluate_every=2"))
    return folder


@pytest.fixture
def verified(capsys):
    """Verify a run; return the exit status, and the checks that failed with what they say."""

    def verify(*arguments):
        status = main(["verify", *map(str, arguments), "--json"])
        facts = json.loads(capsys.readouterr().out)
        return status, {f["name"]: f["text"] for f in facts["findings"] if not f["ok"]}

    return verify


def test_a_run_is_whole_and_comes_out_again(run, verified, capsys):
    assert verified(run, "--again") == (0, {})
    assert verified(run, "--again", "1") == (0, {})
    assert main(["verify", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "checkpoint: round 3, its files and 0 client states are whole" in shown
    assert main(["verify", str(run.parent)]) == 1
    assert "holds no run" in capsys.readouterr().err


def replaced(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("check", "file", "said"),
    [
        ("settings", "config.yaml", "was changed"),
        ("federation", "federation.npz", "federation.npz"),
        ("checkpoint", "checkpoints/round-00000003/model.safetensors", "model.safetensors"),
        ("tables", "rounds.csv", "2 rows for 3 rounds"),
        ("model", "model.safetensors", "model.safetensors"),
        ("report", "report.html", "missing"),
    ],
)
def test_what_is_wrong_is_named(check, file, said, run, verified, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    path = copy / file
    if file == "config.yaml":
        replaced(path, "seed: 0", "seed: 1")
    elif file == "rounds.csv":
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    elif file == "report.html":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(content)
    status, failed = verified(copy)
    assert status == 1
    assert said in failed[check]


def test_a_figure_that_comes_out_otherwise_is_named(run, verified, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    lines = (copy / "rounds.csv").read_text().splitlines()
    at = lines[0].split(",").index("weight")
    cells = lines[2].split(",")
    cells[at] = "1"
    lines[2] = ",".join(cells)
    (copy / "rounds.csv").write_text("\n".join(lines) + "\n")
    status, failed = verified(copy, "--again", "2")
    assert status == 1
    assert failed["again"].startswith("rounds.csv, round 2, weight: 1 in the run, ")
