"""benchmarks/gpu.py runs end to end on a CPU, with nothing installed but torch and numpy."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.waiting import LIMIT

REPO = Path(__file__).resolve().parents[2]
ABSENT = (
    "flwr", "ray", "hydra", "omegaconf", "sklearn", "scipy", "PIL", "rich", "yaml", "safetensors",
)  # fmt: skip
RUN = f"""
import runpy, sys
for name in {ABSENT}:
    sys.modules[name] = None
sys.path.insert(0, "benchmarks")
runpy.run_path("benchmarks/gpu.py", run_name="__main__")
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUN, *arguments], cwd=REPO, capture_output=True, text=True,
        timeout=LIMIT, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gpu") / "gpu.json"
    done = run("--tiny", "--device", "cpu", "--out", str(out))
    assert done.returncode == 0, done.stderr
    return out


def test_every_part_runs_in_every_execution(written: Path) -> None:
    facts = json.loads(written.read_text())
    assert set(facts["parts"]) == {"pfl", "blazefl", "cohorts", "fedlabel"}
    for part, rows in facts["parts"].items():
        assert {row["execution"] for row in rows} == {"graphed", "stacked", "looped"}, part
        for row in rows:
            assert "error" not in row, row
            assert row["round"] > 0
    assert facts["hardware"]["device"] == "cpu"
    assert facts["tiny"]


def test_executions_train_the_same_model(written: Path) -> None:
    rows = json.loads(written.read_text())["parts"]["blazefl"]
    assert len({row["accuracy"] for row in rows}) == 1


def test_the_picture_shows_every_part(written: Path) -> None:
    picture = written.with_suffix(".svg").read_text()
    ElementTree.fromstring(picture)
    assert "a tiny run: these times mean nothing" in picture
    assert "x FedAvg" in picture
    assert picture.count("<polyline") == 3


def test_without_a_gpu_only_a_tiny_run_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPO / "benchmarks"))
    import gpu

    with pytest.raises(SystemExit, match="there is no GPU here"):
        gpu.main(["--device", "cpu"])
