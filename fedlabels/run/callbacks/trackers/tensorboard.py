"""TensorBoard: one event file in the run folder, written by the library's own parts, without torch.

The library's writer hands events to a thread, and waits for ever when that thread has died of a
full disk. Here records are written in place: an error is raised where it happens.
"""

import time
from importlib import import_module
from pathlib import Path
from typing import Any

from fedlabels.run.callbacks.trackers.base import Metrics, Rounds, Subject, text_of

_PATTERN = "events.out.tfevents.*"


class TensorBoard:
    """Writes ``tensorboard/`` in the run folder, or a folder of the run's own below another one.

    Parameters
    ----------
    uri : str or None
        A folder that several runs share; None is the run folder.
    """

    def __init__(self, uri: str | None = None) -> None:
        self._uri = uri
        self._writer: Any = None
        self._event: Any = None

    def start(self, subject: Subject, rounds: Rounds) -> str:
        """Write a new file with all rounds that count, then remove those of before."""
        self._event = import_module("tensorboard.compat.proto.event_pb2").Event
        writers = import_module("tensorboard.summary.writer.record_writer")
        title = f"{subject.title()}-{subject.run_id}"
        home = Path(self._uri).expanduser() / title if self._uri else subject.folder / "tensorboard"
        home.mkdir(parents=True, exist_ok=True)
        before = sorted(home.glob(_PATTERN))
        times = self._times(before)
        now = time.time()
        name = _PATTERN.replace("*", f"{int(now):010d}.{subject.run_id}.{time.time_ns()}")
        self._writer = writers.RecordWriter((home / name).open("xb"))
        # TensorBoard reads no file that does not begin with its version
        self._write(self._event(wall_time=now, file_version="brain.Event:2"))
        self._write(self._event(wall_time=now, step=0, summary=_settings(subject)))
        for index, metrics in rounds.items():
            self._round(index, metrics, times.get(index, now))
        self._writer.flush()
        for file in before:
            file.unlink()
        return title

    def log(self, index: int, metrics: Metrics) -> None:
        """Add a round and hand it to the system."""
        self._round(index, metrics, time.time())
        self._writer.flush()

    def close(self, status: str) -> None:
        """Say how the run ended, and close the file."""
        self._write(self._event(wall_time=time.time(), summary=_ending(status)))
        self._writer.close()

    def _times(self, files: list[Path]) -> dict[int, float]:
        """Return when rounds ended, by the files of the processes before this one."""
        loaders = import_module("tensorboard.backend.event_processing.event_file_loader")
        times: dict[int, float] = {}
        for file in files:
            for data in loaders.RawEventFileLoader(str(file)).Load():
                event = self._event.FromString(data)
                times.setdefault(int(event.step), float(event.wall_time))
        return times

    def _round(self, index: int, metrics: Metrics, when: float) -> None:
        event = self._event(wall_time=when, step=index)
        for name, value in metrics.items():
            event.summary.value.add(tag=name, simple_value=value)
        self._write(event)

    def _write(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())


def _settings(subject: Subject) -> Any:
    """Make the start of a session: settings and tags, as the hyperparameter view reads them."""
    values = {key: _plain(value) for key, value in {**subject.settings, **subject.tags()}.items()}
    summary = import_module("tensorboard.plugins.hparams.summary_v2")
    return summary.hparams_pb(values, trial_id=subject.run_id)


def _ending(status: str) -> Any:
    """Make the end of a session: the library's function for it needs TensorFlow."""
    parts = "tensorboard.plugins.hparams"
    codes, data = import_module(f"{parts}.api_pb2"), import_module(f"{parts}.plugin_data_pb2")
    metadata = import_module(f"{parts}.metadata")
    code = codes.STATUS_SUCCESS if status == "finished" else codes.STATUS_FAILURE
    end = data.SessionEndInfo(status=code, end_time_secs=time.time())
    summary = import_module("tensorboard.compat.proto.summary_pb2").Summary()
    summary.value.add(
        tag=metadata.SESSION_END_INFO_TAG,
        metadata=metadata.create_summary_metadata(data.HParamsPluginData(session_end_info=end)),
        tensor=metadata.NULL_TENSOR,
    )
    return summary


def _plain(value: Any) -> bool | int | float | str:
    return value if isinstance(value, bool | int | float) else text_of(value)
