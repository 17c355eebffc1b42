"""Trackers mirror rounds.csv; none of them stops or changes a run, whatever happens to it."""

import json
import logging
import os
import struct
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from fedlabels.deploy import server
from fedlabels.errors import ConfigError
from fedlabels.run.callbacks.trackers import Rounds, Subject, Tracking, tracking_of
from fedlabels.run.callbacks.trackers import callback as module
from fedlabels.run.callbacks.trackers.base import Metrics, metrics_of, metrics_of_row, settings_of
from fedlabels.run.folder import RunFolder
from fedlabels.run.folder.checkpoint import latest_checkpoint
from fedlabels.settings.config import check
from fedlabels.settings.groups import TRACKERS
from tests.deploy.loopback import Loopback, nodes_of, write_devices
from tests.end_to_end.harness import FEDAVG, REPO, config_of, prints, simulate, table
from tests.waiting import wait_for

SETTINGS = (*FEDAVG, "training.steps=2", "checkpoint_every=2")
Points = dict[int, dict[str, float]]


def needs(library: str) -> pytest.MarkDecorator:
    reason = f"{library} is not installed: pip install 'fedlabels[{library}]'"
    return pytest.mark.skipif(find_spec(library) is None, reason=reason)


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


class Fake:
    """A tracker that remembers, and fails where it is told to."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.calls: list[str] = []
        self.rounds: dict[int, Metrics] = {}
        self.subject: Subject | None = None

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name == self.fails:
            raise OSError("no space left on device")

    def start(self, subject: Subject, rounds: Rounds) -> str:
        self._called("start")
        self.subject, self.rounds = subject, dict(rounds)
        return "here"

    def log(self, index: int, metrics: Metrics) -> None:
        self._called("log")
        self.rounds[index] = metrics

    def close(self, status: str) -> None:
        self._called(f"close {status}")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "run"
    simulate(folder, config_of(*SETTINGS))
    return folder


def fed(folder: Path) -> Points:
    """Return what a tracker must have: the numbers of rounds.csv, exactly."""
    return {int(row["round"]): dict(metrics_of_row(row)) for row in table(folder)}


def run_tracked(folder: Path, *overrides: str, resume: bool = False) -> None:
    simulate(folder, config_of(*SETTINGS, *overrides), resume=resume)


def interrupt(folder: Path, after: int, *overrides: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        simulate(folder, config_of(*SETTINGS, *overrides), callbacks=[StopAfter(after)])


def cut_checkpoint(folder: Path) -> None:
    """Make a run look as if it was killed before its last checkpoint."""
    newest = latest_checkpoint(folder)
    assert newest is not None
    for file in sorted(newest.rglob("*")) if newest.is_dir() else []:
        file.unlink()
    newest.rmdir() if newest.is_dir() else newest.unlink()


def manifest(folder: Path) -> dict[str, Any]:
    return RunFolder(folder, resume=True).read_manifest()


# ---- with a tracker that is none


def test_names_are_the_columns(tmp_path: Path, plain: Path) -> None:
    fake = Fake()
    simulate(tmp_path, config_of(*SETTINGS), callbacks=[Tracking("fake", fake)])
    rows = table(tmp_path)
    columns = {name for row in rows for name, text in row.items() if text} - {"round"}
    assert {name for metrics in fake.rounds.values() for name in metrics} == columns
    assert fake.rounds == fed(tmp_path)
    assert list(fake.rounds) == [1, 2, 3, 4]
    assert prints(tmp_path) == prints(plain)
    assert fake.subject is not None
    assert fake.subject.tags()["run_id"] == manifest(tmp_path)["run_id"]
    assert fake.subject.settings["training.lr"] == 0.1
    assert not [k for k in fake.subject.settings if k.startswith("tracker") or k == "resume"]
    assert manifest(tmp_path)["tracker"] == {"name": "fake", "run": "here"}


def close(tracking: Tracking) -> list[str]:
    tracking.close()
    fake = tracking._tracker
    assert isinstance(fake, Fake)
    return fake.calls


@pytest.mark.parametrize("fails", ["start", "log", "close finished"])
def test_a_failing_tracker_warns_once_and_changes_nothing(
    fails: str, tmp_path: Path, plain: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracking = Tracking("fake", Fake(fails))
    with caplog.at_level(logging.WARNING, logger="fedlabels"):
        simulate(tmp_path, config_of(*SETTINGS), callbacks=[tracking])
        calls = close(tracking)
    assert calls[-1] == fails
    assert calls.count(fails) == 1
    warnings = [record.message for record in caplog.records if "tracker" in record.message]
    assert len(warnings) == 1
    assert "OSError: no space left on device" in warnings[0]
    assert prints(tmp_path) == prints(plain)


def test_ends_as_the_run_does(tmp_path: Path) -> None:
    tracking = Tracking("fake", Fake())
    config = config_of(*SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path, config, callbacks=[tracking, StopAfter(3)])
    assert close(tracking) == ["start", "log", "log", "log", "close stopped"]
    assert close(tracking)[-1] == "close stopped"  # a second time nothing happens
    assert close(Tracking("fake", Fake())) == []  # nor for a run that never began


def test_a_resumed_run_brings_what_counts(tmp_path: Path) -> None:
    interrupt(tmp_path, 3)
    cut_checkpoint(tmp_path)  # round 3 is in the table, and will be run again
    fake = Fake()
    simulate(tmp_path, config_of(*SETTINGS), resume=True, callbacks=[Tracking("fake", fake)])
    assert fake.calls == ["start", "log", "log"]
    assert fake.rounds == fed(tmp_path)


def test_with_real_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake()
    monkeypatch.setattr(server, "tracking_of", lambda config: Tracking("fake", fake))
    devices = write_devices(tmp_path / "data", {0: (20, 30), 1: (0, 40)})
    grid: Any = Loopback(nodes_of(devices, tmp_path / "states"))
    given = (
        "method=fedavg dataset=digits model=mlp model.hidden=[16] training.steps=2 rounds=2"
        f" deploy.connect_seconds=0.2 run_dir={tmp_path / 'run'}"
    )
    server.execute(server.settings({"overrides": given}, REPO / "configs"), grid, given)
    assert fake.calls == ["start", "log", "log", "close finished"]
    assert fake.rounds == fed(tmp_path / "run")


def test_the_run_that_a_user_starts_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake()
    monkeypatch.setitem(module._TRACKERS, "tensorboard", lambda uri, mode, project: fake)
    monkeypatch.setattr(module, "find_spec", lambda name: "there")
    interrupt(tmp_path, 2, "tracker=tensorboard")
    assert fake.calls == ["start", "log", "close stopped"]
    run_tracked(tmp_path, "tracker=tensorboard", resume=True)
    assert fake.calls[3:] == ["start", "log", "log", "close finished"]
    assert fake.rounds == fed(tmp_path)


def test_numbers() -> None:
    record = {"round": 3, "a": 1, "b": 0.5, "c": None, "d": "x", "e": True, "f": float("inf")}
    assert metrics_of(record) == {"a": 1, "b": 0.5, "e": 1, "f": float("inf")}
    row = {"round": "3", "a": "1", "b": "0.5", "c": "", "d": "x", "e": "true", "f": "inf"}
    assert metrics_of_row(row) == metrics_of(record)


def test_settings() -> None:
    assert tracking_of({}) is None
    assert tracking_of(config_of(*FEDAVG)) is None
    secret = config_of(*FEDAVG, "tracker=mlflow", "tracker.uri=http://me:secret@example.org")
    assert "secret" not in str(settings_of(secret))
    assert set(TRACKERS) == {"none", "tensorboard", "wandb", "mlflow"}
    with pytest.raises(ConfigError, match=r"tracker\.mode must be one of offline, online"):
        check({**secret, "tracker": {"mode": "maybe"}})
    with pytest.raises(ConfigError, match=r"tracker\.name must be one of none, tensorboard"):
        tracking_of({"tracker": {"name": "paper"}})


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'fedlabels\[wandb\]' \(or tracker=none\)"):
        tracking_of(config_of(*FEDAVG, "tracker=wandb"))


# ---- TensorBoard


def events(folder: Path) -> list[Any]:
    """Read all event files of a folder."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    files = sorted(folder.glob("*tfevents*"))
    return [Event.FromString(d) for f in files for d in RawEventFileLoader(str(f)).Load()]


def scalars(folder: Path) -> Points:
    found: Points = {}
    for event in events(folder):
        values = {v.tag: v.simple_value for v in event.summary.value if "hparams" not in v.tag}
        if values:
            assert event.step not in found, "a round is there twice"
            found[event.step] = values
    return found


def single(points: Points) -> Points:
    """Round to 32 bits, as TensorBoard does."""
    return {
        step: {k: struct.unpack("f", struct.pack("f", v))[0] for k, v in values.items()}
        for step, values in points.items()
    }


@needs("tensorboard")
def test_tensorboard(tmp_path: Path, plain: Path) -> None:
    run_tracked(tmp_path, "tracker=tensorboard")
    assert prints(tmp_path) == prints(plain)
    assert scalars(tmp_path / "tensorboard") == single(fed(tmp_path))


@needs("tensorboard")
def test_tensorboard_reads_it(tmp_path: Path) -> None:
    """By the library's own way to read: scalars, and the session with its settings."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    run_tracked(tmp_path / "run", "tracker=tensorboard", f"tracker.uri={tmp_path / 'all'}")
    (folder,) = (tmp_path / "all").iterdir()
    read = EventAccumulator(str(folder))
    read.Reload()
    assert [e.step for e in read.Scalars("test_accuracy")] == [1, 2, 3, 4]
    data = {
        tag: HParamsPluginData.FromString(content)
        for tag, content in read.PluginTagToContent("hparams").items()
    }
    begun = data["_hparams_/session_start_info"].session_start_info.hparams
    assert begun["training.lr"].number_value == 0.1
    assert begun["run_id"].string_value == manifest(tmp_path / "run")["run_id"]
    assert "_hparams_/session_end_info" in data


@needs("tensorboard")
def test_tensorboard_after_a_kill(tmp_path: Path) -> None:
    interrupt(tmp_path, 3, "tracker=tensorboard")
    cut_checkpoint(tmp_path)
    folder = tmp_path / "tensorboard"
    (file,) = folder.iterdir()
    file.write_bytes(file.read_bytes()[:-7])  # killed while it wrote
    times = {e.step: e.wall_time for e in events(folder)}
    run_tracked(tmp_path, "tracker=tensorboard", resume=True)
    assert scalars(folder) == single(fed(tmp_path))
    assert len(list(folder.iterdir())) == 1
    after = {e.step: e.wall_time for e in events(folder)}
    assert (after[1], after[2]) == (times[1], times[2])


@needs("tensorboard")
def test_a_folder_that_cannot_be_made(
    tmp_path: Path, plain: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING, logger="fedlabels"):
        place = f"tracker.uri={tmp_path / 'file'}"
        run_tracked(tmp_path / "run", "tracker=tensorboard", place)
    assert "tracker tensorboard failed" in caplog.text
    assert prints(tmp_path / "run") == prints(plain)


# ---- MLflow


def stored(uri: str, folder: Path) -> tuple[Any, Points]:
    """Return the run of a store, and its points; no round may be there twice."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    run = client.get_run(manifest(folder)["tracker"]["run"])
    found: Points = {}
    for name in run.data.metrics:
        for point in client.get_metric_history(run.info.run_id, name):
            values = found.setdefault(point.step, {})
            assert name not in values, "a round is there twice"
            values[name] = point.value
    assert len(client.search_runs([run.info.experiment_id])) == 1
    return run, found


@needs("mlflow")
def test_mlflow(tmp_path: Path, plain: Path) -> None:
    interrupt(tmp_path, 3, "tracker=mlflow")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    run, before = stored(uri, tmp_path)
    assert run.info.status == "KILLED"
    assert run.data.params["training.lr"] == "0.1"
    assert run.data.tags["run_id"] == manifest(tmp_path)["run_id"]
    assert run.data.tags["method"] == "fedavg"
    assert set(before) == {1, 2}  # the user was faster than the tracker in round 3
    run_tracked(tmp_path, "tracker=mlflow", "rounds=5", resume=True)
    again, points = stored(uri, tmp_path)
    assert again.info.run_id == run.info.run_id
    assert again.info.status == "FINISHED"
    assert points == fed(tmp_path)
    assert (again.data.params["rounds"], again.data.tags["resumed.rounds"]) == ("4", "5")
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert not (tmp_path / "mlflow").exists()  # no model, no file is uploaded


@needs("mlflow")
def test_mlflow_keeps_the_first_of_a_round_that_is_run_again(tmp_path: Path) -> None:
    from fedlabels.run.callbacks.trackers.mlflow import MLflow

    subject = Subject(tmp_path, "id", "run", "fedavg", 0, {"a.b": [1], "empty": "", "no": None})
    first, second = (MLflow(str(tmp_path / "store"), "p") for _ in range(2))  # the old file store
    run = first.start(subject, {})
    first.log(1, {"sampled": 5, "x": 1.0})
    first.log(2, {"sampled": 5, "x": 2.0})
    assert second.start(subject, {1: {"sampled": 5, "x": 1.0}}) == run
    second.log(2, {"sampled": 5, "x": 99.0})
    second.log(3, {"sampled": 5, "x": float("nan")})
    history = second._client.get_metric_history(run, "x")
    assert [(p.step, p.value) for p in history[:2]] == [(1, 1.0), (2, 2.0)]
    assert len(history) == 3


def test_runs_that_make_a_store_together_share_one(tmp_path: Path) -> None:
    from fedlabels.run.callbacks.trackers.mlflow import _make

    store = tmp_path / "all" / "mlflow.db"

    class Client:
        def __init__(self, tracking_uri: str) -> None:
            Path(tracking_uri.removeprefix("sqlite:///")).write_text("second")

        def search_experiments(self, max_results: int) -> None:
            store.write_text("first")  # another run is faster

    _make(store, Client)
    assert store.read_text() == "first"
    assert [file.name for file in store.parent.iterdir()] == ["mlflow.db"]
    _make(store, None)  # what is there is left alone


@needs("mlflow")
def test_a_server_that_is_away(
    tmp_path: Path, plain: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="fedlabels"):
        run_tracked(tmp_path, "tracker=mlflow", "tracker.uri=http://127.0.0.1:9")
    assert caplog.text.count("tracker mlflow failed") == 1
    assert prints(tmp_path) == prints(plain)


# ---- Weights & Biases


def records(file: Path) -> Iterator[Any]:
    """Read the log of an offline run: LevelDB's format, with a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:  # too little for another header: zeros
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        if kind == 0 or at + 7 + size > len(data):  # not written yet
            break
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or its last part
            yield Record.FromString(parts)
            parts = b""


def offline(folder: Path) -> tuple[Any, Points]:
    """Return the run and the history of the one offline run of a folder."""
    (file,) = (folder / "wandb").glob("offline-run-*/*.wandb")

    def ends() -> bool:
        whole = list(records(file))
        return bool(whole) and whole[-1].WhichOneof("record_type") == "exit"

    wait_for(ends)  # W&B writes in a process of its own, and finishes after it said so
    run, found = None, {}
    for record in records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
        if kind == "history":
            items = {
                i.key or i.nested_key[0]: json.loads(i.value_json) for i in record.history.item
            }
            step = int(items["_step"])
            assert step not in found, "a round is there twice"
            found[step] = {k: v for k, v in items.items() if not k.startswith("_")}
    return run, found


@needs("wandb")
def test_wandb(tmp_path: Path, plain: Path) -> None:
    interrupt(tmp_path, 3, "tracker=wandb")
    cut_checkpoint(tmp_path)
    run, _ = offline(tmp_path)
    assert run.run_id == manifest(tmp_path)["run_id"]
    config = {u.key or u.nested_key[0]: u.value_json for u in run.config.update}
    assert config["training.lr"] == "0.1"
    assert "method:fedavg" in run.tags
    run_tracked(tmp_path, "tracker=wandb", resume=True)
    again, points = offline(tmp_path)  # one folder: that of before is replaced
    assert again.run_id == run.run_id
    assert points == fed(tmp_path)
    assert prints(tmp_path) == prints(plain)
    assert os.environ["WANDB_MODE"] == "offline"
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"


@needs("wandb")
def test_wandb_keeps_one_folder(tmp_path: Path) -> None:
    from fedlabels.run.callbacks.trackers.wandb import WandB

    subject = Subject(tmp_path, "0123", "run", "fedavg", 0, {"name": "run", "views": ["weak"]})
    rounds: dict[int, Metrics] = {}
    for index in (1, 2, 3):  # within a second, in which W&B gives the folders another form of name
        tracker = WandB(None, "offline", "entity/project")
        assert tracker.start(subject, rounds) == "0123"
        rounds[index] = {"x": index / 2}
        tracker.log(index, rounds[index])
        tracker.close("finished")
    run, points = offline(tmp_path)
    assert points == rounds
    assert (run.entity, run.project, run.display_name) == ("entity", "project", "run-fedavg-0")
