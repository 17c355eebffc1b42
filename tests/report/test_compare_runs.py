"""Run folders are read strictly; what cannot be compared is named with the reason.

The helper here makes run folders with made-up numbers; the other tests of the comparison use it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import yaml

from fedlabels.errors import DataError
from fedlabels.report.comparison.cells import IGNORED
from fedlabels.report.comparison.compare import Question
from fedlabels.report.comparison.runs import find_runs, read_runs
from fedlabels.run import RunFolder
from fedlabels.settings.hashing import MAY_DIFFER, config_hash

FLAT: dict[str, Any] = {
    "name": "run",
    "clients": 20,
    "per_round": 5,
    "seed": 0,
    "dataset.name": "digits",
    "dataset.root": None,
    "partition.name": "dirichlet",
    "partition.alpha": 0.3,
    "labels.name": "uniform",
    "labels.fraction": 0.05,
    "model.name": "mlp",
    "model.norm": "none",
    "client.name": "fedavg",
    "training.lr": 0.1,
    "strategy.name": "fedavg",
    "backend.name": "serial",
}
FIXMATCH = {"client.name": "fixmatch", "client.threshold": 0.95}
SAVED = "checkpoints/round-00000003/manifest.json"
MEGABYTE = 1_000_000


def write_run(
    path: Path,
    values: Sequence[float | None],
    settings: Mapping[str, Any] | None = None,
    *,
    metric: str = "test_accuracy",
    seconds: float = 2.0,
    checkpoint: bool = True,
    **manifest: Any,
) -> Path:
    """Write a finished run: a round for each value, not evaluated where it is None.

    Every round moves 1 MB down and 0.5 MB up.
    """
    flat = FLAT | {"rounds": len(values), "run_dir": str(path)} | dict(settings or {})
    folder = RunFolder(path)
    folder.write_config(yaml.safe_dump(nested(flat)))
    row = {"sampled": 5, "ok": 5, "bytes_down": MEGABYTE, "bytes_up": MEGABYTE // 2}
    row |= {"seconds_total": seconds}
    rows = [{"round": i, **row, metric: value} for i, value in enumerate(values, start=1)]
    folder.rounds.append(rows)
    hashed = config_hash(flat)
    facts = {
        "name": "run",
        "method": flat["client.name"],
        "seed": flat["seed"],
        "status": "finished",
        "rounds_done": len(values),
        "seconds": seconds * len(values) + 1,
        "dataset": flat["dataset.name"],
        "config_hash": hashed,
        "federation_hash": f"{flat['partition.alpha']}/{flat['labels.fraction']}/{flat['seed']}",
        "package": {"fedlabels": "0.1.0"},
        "hardware": {"cores": 2},
    }
    folder.update_manifest(**(facts | manifest))
    if checkpoint:
        saved = folder.checkpoints / f"round-{len(values):08d}" / "manifest.json"
        saved.parent.mkdir()
        saved.write_text(json.dumps({"config": flat, "config_hash": hashed}))
    return path


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted keys into nested settings."""
    config: dict[str, Any] = {}
    for key, value in flat.items():
        *above, last = key.split(".")
        place = config
        for name in above:
            place = place.setdefault(name, {})
        place[last] = value
    return config


def reason(path: Path, metric: str = "test_accuracy") -> str:
    runs, left = read_runs([path], metric)
    assert not runs
    assert [one.label for one in left] == [path.name]
    return left[0].reason


def test_a_run_is_read_with_sums_up_to_each_evaluation(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a", [None, 0.5, None, 0.75, 0.625])
    (run,), left = read_runs([path], "test_accuracy")
    assert left == []
    assert run.label == "a"
    assert run.rounds.tolist() == [2, 4, 5]
    assert run.metric.tolist() == [0.5, 0.75, 0.625]
    assert run.bytes_moved.tolist() == [3 * MEGABYTE, 6 * MEGABYTE, 7.5 * MEGABYTE]
    assert run.seconds.tolist() == [4, 8, 10]
    assert (run.total_bytes, run.total_seconds) == (7.5 * MEGABYTE, 11)
    assert run.last == 0.625
    assert run.best(lower_is_better=False) == 0.75
    assert run.best(lower_is_better=True) == 0.5


def test_the_target_is_reached_in_the_first_round_that_has_it(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a", [0.2, 0.6, 0.4, 0.8])
    (run,), _ = read_runs([path], "test_accuracy")
    assert run.reached(0.6, lower_is_better=False) == (2, 3 * MEGABYTE, 4)
    assert run.reached(0.7, lower_is_better=False) == (4, 6 * MEGABYTE, 8)
    assert run.reached(0.9, lower_is_better=False) is None
    assert run.reached(0.2, lower_is_better=True) == (1, 1.5 * MEGABYTE, 2)


def test_bytes_that_a_round_does_not_say_are_not_taken_for_zero(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a", [0.2, 0.6])
    text = (path / "rounds.csv").read_text()
    (path / "rounds.csv").write_text(text.replace("500000", "", 1))
    (run,), _ = read_runs([path], "test_accuracy")
    assert np.isnan(run.bytes_moved).all()
    assert np.isnan(run.total_bytes)


def test_settings_are_the_same_from_a_checkpoint_and_from_yaml(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / name, [0.5], checkpoint=name == "a") for name in "ab"]
    (first, second), _ = read_runs(paths, "test_accuracy")
    assert {**first.settings, "run_dir": ""} == {**second.settings, "run_dir": ""}
    damaged = next(paths[0].glob("checkpoints/*/manifest.json"))
    damaged.write_text("{")
    (again,), _ = read_runs(paths[:1], "test_accuracy")
    assert again.settings == first.settings


def test_without_yaml_only_checkpoints_are_read(tmp_path: Path) -> None:
    with_one = write_run(tmp_path / "a", [0.5])
    without = write_run(tmp_path / "b", [0.5], checkpoint=False)
    with mock.patch.dict("sys.modules", {"yaml": None}):
        runs, left = read_runs([with_one, without], "test_accuracy")
    assert [run.label for run in runs] == ["a"]
    assert "pip install 'fedlabels[sim]'" in left[0].reason


def rewrite(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        (path / name).write_text(change((path / name).read_text()))

    return damage


def manifest(**values: Any) -> Callable[[Path], None]:
    return rewrite("manifest.json", lambda text: json.dumps(json.loads(text) | values))


def text_seed(text: str) -> str:
    return text.replace('"seed": 0', '"seed": "x"')


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "running": (manifest(status="running", rounds_done=2), "status is running after round 2"),
    "failed": (manifest(status="failed"), "not finished: its status is failed"),
    "no status": (manifest(status=None), "its status is missing"),
    "manifest garbled": (rewrite("manifest.json", lambda t: t[:-9]), "manifest.json is no JSON"),
    "manifest a list": (rewrite("manifest.json", lambda t: "[]"), "holds no JSON object"),
    "manifest lost": (lambda p: (p / "manifest.json").unlink(), "it has no manifest.json"),
    "rounds lost": (lambda p: (p / "rounds.csv").unlink(), "it has no rounds.csv"),
    "rounds empty": (rewrite("rounds.csv", lambda t: ""), "0 rounds, its manifest says 3"),
    "last line cut": (rewrite("rounds.csv", lambda t: t[:-12]), "line 4 of rounds.csv has"),
    "a round lost": (rewrite("rounds.csv", lambda t: t.replace("\n2,", "\n5,")), "count 1, 2, 3"),
    "fewer rounds": (manifest(rounds_done=9), "has 3 rounds, its manifest says 9"),
    "no number": (rewrite("rounds.csv", lambda t: t.replace("0.25", "0.2x")), "test_accuracy of"),
    "not finite": (rewrite("rounds.csv", lambda t: t.replace("0.75", "nan")), "is nan, in round 3"),
    "other settings": (manifest(config_hash="f"), "have other settings"),
    "no seed": (rewrite(SAVED, text_seed), "seed must be an integer, got 'x'"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "words"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_and_unfinished_runs_are_left_out_with_the_reason(
    tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    path = write_run(tmp_path / "a", [0.25, 0.5, 0.75])
    damage(path)
    assert words in reason(path)


def test_settings_that_nobody_can_read_are_damage(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a", [0.5], checkpoint=False)
    (path / "config.yaml").write_text("a: [1\nb: }")
    assert "config.yaml is no YAML" in reason(path)
    (path / "config.yaml").write_text("[]")
    assert "holds no settings" in reason(path)
    (path / "config.yaml").unlink()
    assert "no config.yaml" in reason(path)


def test_a_metric_that_the_run_lacks_is_named_with_those_it_has(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a", [0.5])
    found = reason(path, "personal_accuracy")
    assert "it has no personal_accuracy" in found
    assert "test_accuracy" in found


def test_runs_are_found_at_any_depth_but_not_inside_runs(tmp_path: Path) -> None:
    deep = write_run(tmp_path / "sweep" / "deep" / "a", [0.5])
    flat = write_run(tmp_path / "b", [0.5])
    torn = tmp_path / "torn"
    torn.mkdir()
    (torn / "rounds.csv").write_text("round\n")
    expected = sorted([deep, flat, torn])
    assert find_runs([tmp_path]) == expected
    assert find_runs([flat, tmp_path, tmp_path / "sweep", flat]) == expected
    labels = [run.label for run in read_runs([deep, flat], "test_accuracy")[0]]
    assert labels == ["sweep/deep/a", "b"]


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no run: give folders that hold a manifest\.json"):
        find_runs([tmp_path])
    with pytest.raises(DataError, match="is no folder"):
        find_runs([tmp_path / "nowhere"])
    assert find_runs([tmp_path], empty=True) == []


def test_what_is_ignored_is_what_may_differ_at_a_resume() -> None:
    # both decide which round is the last: they may differ at a resume, but not here
    ends = {"rounds", "early_stop"}
    assert set(MAY_DIFFER) - ends <= set(IGNORED)
    assert not ends & set(IGNORED)


@pytest.mark.parametrize(
    ("metric", "share", "lower"),
    [
        ("test_accuracy", True, False),
        ("test_f1_macro", True, False),
        ("test_auc", True, False),
        ("test_ece", False, True),
        ("test_loss", False, True),
        ("weight", False, False),
    ],
)
def test_which_metrics_are_shares_and_which_are_better_when_lower(
    metric: str, share: bool, lower: bool
) -> None:
    question = Question(metric=metric)
    assert (question.is_share, question.lower_is_better) == (share, lower)
