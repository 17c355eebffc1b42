"""The blocks of docs/python.md run as they stand, one after the other."""

import re
from pathlib import Path
from typing import Any

import pytest

from fedlabels.run import rounds_hash

PAGE = Path(__file__).resolve().parents[2] / "docs" / "python.md"


def test_every_block_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "accuracy.svg", "runs", "who-holds-what.png",
    ]  # fmt: skip
    assert names["run"].rounds["round"].tolist() == list(range(1, 9))
    cells = names["comparison"].cells
    assert cells["method"].tolist() == ["fedavg", "fixmatch"]
    assert cells["n"].tolist() == cells["pairs"].tolist()[1:] * 2 == [2, 2]
    assert len({rounds_hash(run.path / "rounds.csv") for run in names["runs"]}) == 4
    printed, errors = capsys.readouterr()
    assert "round " not in printed  # progress is not asked for
    assert errors == ""
