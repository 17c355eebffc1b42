"""A profiled run: the same bits, times that add up, a trace that can be opened."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedlabels.cohort.clock import CLOCK, Track
from fedlabels.errors import ConfigError
from fedlabels.run.callbacks.profile import Profile, profile_of, times_of, trace
from fedlabels.run.folder.table import Table
from tests.end_to_end.harness import (
    FEDAVG,
    TINY,
    config_of,
    prints,
    simulate,
    table,
    with_client,
)
from tests.end_to_end.toys import Rememberer

METHOD = (
    *TINY, "dataset.views=digits", "method=fedlabel_stable", "training.steps=5",
    "training.steps_unlabeled=3",
    "training.batch_size=8", "training.batch_unlabeled=8", "training.lr=0.1",
    "training.lr_unlabeled=0.1", "rounds=3", "evaluate_every=2", "checkpoint_every=2",
)  # fmt: skip
STACKED = ("backend.execution=stacked", "backend.block_size=4", "backend.stack_size=4")
PROFILE = "callbacks=profile"
REMEMBER = with_client(Rememberer(lr=0.1, steps=5))
Rows = list[dict[str, str]]


class StopAfter:
    """A user who presses Ctrl-C when a round is shown."""

    def __init__(self, round_index: int) -> None:
        self.round_index = round_index

    def on_run_start(self, *, folder: Any, config: Mapping[str, Any]) -> None:
        """Do nothing."""

    def on_round_end(self, *, record: Mapping[str, Any]) -> bool:
        if record["round"] == self.round_index:
            raise KeyboardInterrupt
        return False

    def on_run_end(self, *, folder: Any) -> None:
        """Do nothing."""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "run"
    simulate(folder, config_of(*METHOD))
    return folder


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("profiled") / "run"
    simulate(folder, config_of(*METHOD, PROFILE))
    return folder


def sides(folder: Path) -> Iterator[tuple[int, dict[str, dict[str, float]]]]:
    """Yield rounds with their seconds by side and phase."""
    found: dict[int, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in table(folder, "profile"):
        side = found[int(row["round"])][row["side"]]
        assert row["phase"] not in side
        side[row["phase"]] = float(row["seconds"])
    yield from found.items()


def check_sums(folder: Path, workers: int) -> None:
    """Both sides add up to the same wall time, which holds what rounds.csv says of the round."""
    totals = {int(row["round"]): float(row["seconds_total"]) for row in table(folder)}
    found = dict(sides(folder))
    assert found.keys() == totals.keys()
    for index, by_side in found.items():
        server, worker = by_side["server"], by_side["workers"]
        wall = sum(server.values())
        assert wall >= totals[index]
        assert sum(worker.values()) == pytest.approx(workers * wall, rel=1e-6)
        assert min(*server.values(), *worker.values()) >= 0
        busy = sum(worker.values()) - worker["idle"]
        assert busy >= server["work"] - 1e-9  # while there is work, at least one works
    shares = [float(row["share"]) for row in table(folder, "profile") if row["side"] == "server"]
    assert sum(shares) == pytest.approx(len(totals))


# ---- a run


def test_same_bits_with_and_without(plain: Path, profiled: Path) -> None:
    assert prints(profiled) == prints(plain)
    assert not (plain / "profile.csv").exists()
    assert not (plain / "profile.json").exists()


def test_phases_add_up(profiled: Path) -> None:
    check_sums(profiled, workers=1)
    found = dict(sides(profiled))
    worker = {
        "ship", "gather", "views", "forward_backward", "update", "reduce", "ship_back", "other",
        "idle",
    }  # fmt: skip
    server = {"configure", "ship", "work", "reduce", "ship_back", "aggregate", "write", "other"}
    for index in (1, 2, 3):
        tested = {"evaluate"} if index > 1 else set()  # every second round, and the last
        assert set(found[index]["workers"]) == worker | tested
        assert set(found[index]["server"]) == server | tested
        times = found[index]["workers"]
        assert all(times[name] > 0 for name in ("gather", "views", "forward_backward", "update"))


def test_the_table_is_shown_and_logged(profiled: Path, plain: Path) -> None:
    log = (profiled / "run.log").read_text()
    head = "where the time goes: 2 rounds without the first"
    assert head in log
    lines = log[log.index(head) :].splitlines()
    assert lines[0].endswith("s a round, 1 worker")
    assert "forward_backward" in log
    assert "idle" in log
    assert all(len(line) <= 80 for line in lines[:14])
    assert "where the time goes" not in (plain / "run.log").read_text()


def test_the_course_of_a_round(profiled: Path) -> None:
    whole = json.loads((profiled / "profile.json").read_text())
    assert whole["otherData"]["round"] == 2
    assert whole["otherData"]["left out"] == 0
    events = whole["traceEvents"]
    lanes = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert lanes == {0: "server", 1: "worker 0"}
    spans = [e for e in events if e["ph"] == "X"]
    assert spans[0]["name"] == "round 2"
    for lane in lanes:
        check_nesting([e for e in spans if e["tid"] == lane])
    sampled = [int(row["client_id"]) for row in table(profiled, "clients") if row["round"] == "2"]
    seen = [e["args"]["clients"] for e in spans if "args" in e]
    assert sorted(client for clients in seen for client in clients) == sorted(sampled)


def check_nesting(spans: list[dict[str, Any]]) -> None:
    """Every event lies inside the one that is open when it begins, or after it."""
    opened: list[float] = []
    for span in spans:
        end = span["ts"] + span["dur"]
        while opened and opened[-1] <= span["ts"] + 1e-6:
            opened.pop()
        assert not opened or end <= opened[-1] + 1e-6
        opened.append(end)


def test_stacked(tmp_path: Path) -> None:
    simulate(tmp_path / "plain", config_of(*METHOD, *STACKED))
    simulate(tmp_path / "profiled", config_of(*METHOD, *STACKED, PROFILE))
    assert prints(tmp_path / "profiled") == prints(tmp_path / "plain")
    check_sums(tmp_path / "profiled", workers=1)
    times = dict(sides(tmp_path / "profiled"))[2]["workers"]
    assert all(times[name] > 0 for name in ("gather", "views", "forward_backward", "update"))
    whole = json.loads((tmp_path / "profiled" / "profile.json").read_text())
    stacks = [e for e in whole["traceEvents"] if e["name"].endswith(" clients")]
    assert [len(e["args"]["clients"]) for e in stacks] == [4]  # and the fifth alone


@pytest.mark.ray
def test_on_ray(plain: Path, tmp_path: Path) -> None:
    import ray

    settings = ("backend=ray", "backend.num_workers=2", "backend.gpus_per_worker=0", PROFILE)
    try:
        simulate(tmp_path, config_of(*METHOD, *settings))
    finally:
        ray.shutdown()
    assert prints(tmp_path) == prints(plain)
    check_sums(tmp_path, workers=2)
    for _, by_side in sides(tmp_path):
        assert 0 < by_side["server"]["ship"] < sum(by_side["server"].values())
        assert by_side["server"]["ship_back"] > 0
    events = json.loads((tmp_path / "profile.json").read_text())["traceEvents"]
    end = next(e["dur"] for e in events if e["name"] == "round 2")
    trained = [e for e in events if e["name"] == "train"]
    assert [e["tid"] for e in trained] == [1, 2]
    assert all(0 < e["ts"] < e["ts"] + e["dur"] < end for e in trained)


def test_all_that_clients_do_to_evaluate_is_evaluation(tmp_path: Path) -> None:
    settings = (*FEDAVG, "training.steps=2", "rounds=2", "evaluate_clients=true", PROFILE)
    simulate(tmp_path, config_of(*settings))
    check_sums(tmp_path, workers=1)
    times = dict(sides(tmp_path))[2]
    assert times["server"]["evaluate"] >= times["workers"]["evaluate"] > 0
    events = json.loads((tmp_path / "profile.json").read_text())["traceEvents"]
    worker = [e for e in events if e["tid"] == 1 and e["ph"] == "X"]
    calls = [e for e in worker if e["name"] == "evaluate"]
    assert len(calls) == 2  # the global model, and the clients' own
    begin = min(e["ts"] for e in calls)
    assert [e for e in worker if e["ts"] >= begin] == calls


# ---- interrupted, resumed, wrong


def test_resumed(tmp_path: Path) -> None:
    settings = (*FEDAVG, "training.steps=2", "rounds=5", "checkpoint_every=2")
    simulate(tmp_path / "plain", config_of(*settings), REMEMBER)
    config = config_of(*settings, PROFILE)
    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path / "run", config, REMEMBER, callbacks=[StopAfter(3)])
    assert CLOCK.running is None  # also after a round that did not end
    first = list(Table(tmp_path / "run" / "profile.csv").rows())
    assert {row["round"] for row in first} == {"1", "2"}
    simulate(tmp_path / "run", config, REMEMBER, resume=True)
    assert prints(tmp_path / "run") == prints(tmp_path / "plain")
    rows = table(tmp_path / "run", "profile")
    assert rows[: len(first)] == first
    assert sorted({row["round"] for row in rows}) == ["1", "2", "4", "5"]  # 3 did not end
    assert json.loads((tmp_path / "run" / "profile.json").read_text())["otherData"]["round"] == 5


def test_switched_on_when_resumed(tmp_path: Path) -> None:
    settings = (*FEDAVG, "training.steps=2")
    simulate(tmp_path / "run", config_of(*settings, "rounds=2"))
    path = tmp_path / "run" / "config.yaml"
    old = yaml.safe_load(path.read_text())
    del old["callbacks"]  # a run from before there were any
    path.write_text(yaml.safe_dump(old))
    simulate(tmp_path / "run", config_of(*settings, "rounds=4", PROFILE), resume=True)
    simulate(tmp_path / "plain", config_of(*settings, "rounds=4"))
    assert prints(tmp_path / "run") == prints(tmp_path / "plain")
    assert {row["round"] for row in table(tmp_path / "run", "profile")} == {"3", "4"}


def test_settings() -> None:
    assert profile_of({}) is None
    assert profile_of(config_of(*FEDAVG)) is None
    chosen = profile_of(config_of(*FEDAVG, PROFILE, "callbacks.profile.trace_round=3"))
    assert chosen == Profile(3)
    with pytest.raises(ConfigError, match=r"trace_round must be >= 1 or null, got 0"):
        profile_of(config_of(*FEDAVG, PROFILE, "callbacks.profile.trace_round=0"))


def test_the_round_to_trace(tmp_path: Path) -> None:
    asked = (PROFILE, "callbacks.profile.trace_round=3")
    simulate(tmp_path, config_of(*FEDAVG, "training.steps=1", *asked))
    assert json.loads((tmp_path / "profile.json").read_text())["otherData"]["round"] == 3


# ---- the arithmetic


def test_the_way_there_and_back_is_no_work() -> None:
    """Server from 0 to 10 s, waiting from 1 to 9; one worker works 2 to 7, the other 3 to 8."""
    seconds = {"other": 2.0, "work": 8.0}
    server = Track("round", 0, 10, seconds, [("work", 1, 9, ()), ("write", 9, 10, ())])
    workers = [
        [Track("train", 2, 7, {"gather": 1.0, "other": 4.0})],
        [Track("train", 3, 8, {"gather": 5.0}), Track("evaluate", 9.5, 10, {"evaluate": 0.5})],
        [],
    ]
    times = times_of(server, workers)
    assert times.sides["server"] == {"other": 2, "work": 6, "ship": 1, "ship_back": 1}
    assert times.sides["workers"] == {"gather": 6, "other": 4, "evaluate": 0.5, "idle": 19.5}
    assert (times.wall, times.workers) == (10, 3)
    rows = list(times.plus(times).rows())
    assert rows[:2] == [("server", "ship", 2, 0.1), ("server", "work", 12, 0.6)]
    assert rows[-1] == ("workers", "idle", 39, 0.65)


def test_a_clock_that_is_wrong_makes_no_negative_times() -> None:
    server = Track("round", 0, 10, {"work": 10.0}, [("work", 0, 10, ())])
    times = times_of(server, [[Track("train", -2, 11, {"other": 13.0})]])
    assert times.sides["server"] == {"work": 10, "ship": 0, "ship_back": 0}
    assert times.sides["workers"]["idle"] == 0


def test_a_trace_says_what_it_leaves_out() -> None:
    track = Track("round", 5, 6, {"other": 1.0}, [], entries=7, dropped=3)
    whole = json.loads(trace(4, track, [[Track("train", 5.25, 5.5, entries=2)]]))
    assert whole["otherData"] == {"round": 4, "phases": 9, "left out": 3}
    spans = [(e["name"], e["ts"], e["dur"]) for e in whole["traceEvents"] if e["ph"] == "X"]
    assert spans == [("round 4", 0, 1e6), ("train", 0.25e6, 0.25e6)]
