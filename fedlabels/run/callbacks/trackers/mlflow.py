"""MLflow: a run in a store, by default a SQLite file in the run folder."""

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from fedlabels.machine.files import temporary_name
from fedlabels.run.callbacks.trackers.base import Metrics, Rounds, Subject, text_of

# Read when the library is imported. The second is what other tools agreed on.
OFF = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
# A server that is away costs a run seconds, and once; the library itself would try for minutes.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
_SQLITE = "sqlite:///"
_EVERY_ROUND = "sampled"  # a column without which there is no round: it tells which are there
_BATCH = 100  # parameters that a store takes at once; of metrics it takes more
_LONGEST = 6000  # characters of a parameter


class MLflow:
    """Writes a run of MLflow.

    Parameters
    ----------
    uri : str or None
        The store: ``sqlite:///...``, ``http://...``, a folder of the old file store; None is
        ``mlflow.db`` in the run folder.
    project : str
        MLflow's experiment.
    """

    def __init__(self, uri: str | None, project: str) -> None:
        self._uri, self._project = uri, project
        self._client: Any = None
        self._entities: Any = None
        self._run = ""
        self._there: set[int] = set()

    def start(self, subject: Subject, rounds: Rounds) -> str:
        """Find the run by its tag, or make it; add the settings and rounds that it lacks."""
        uri = self._uri or f"sqlite:///{(subject.folder / 'mlflow.db').as_posix()}"
        os.environ.update(OFF)
        for key, value in _PATIENCE.items():
            os.environ.setdefault(key, value)
        if "://" not in uri or uri.startswith("file:"):
            # new versions want to be told that the old kind of store is meant
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        client = import_module("mlflow.tracking").MlflowClient
        self._entities = import_module("mlflow.entities")
        for name in ("mlflow", "alembic"):  # a new store is database with a line for every table
            logging.getLogger(name).setLevel(logging.WARNING)
        if uri.startswith(_SQLITE):
            _make(Path(uri.removeprefix(_SQLITE).partition("?")[0]), client)
        self._client = client(tracking_uri=_absolute(uri))
        found = self._find(subject)
        self._run = found.info.run_id
        self._client.update_run(self._run, status="RUNNING")
        self._describe(subject, dict(found.data.params))
        known = self._client.get_metric_history(self._run, _EVERY_ROUND)
        self._there = {int(point.step) for point in known}
        for index, metrics in rounds.items():
            self.log(index, metrics)
        return self._run

    def log(self, index: int, metrics: Metrics) -> None:
        """Add a round, in one transaction; one that is there already stays as it is."""
        if index in self._there:
            return  # a store cannot forget: a round that was run again would be there twice
        now = int(1000 * time.time())
        points = [self._entities.Metric(key, float(v), now, index) for key, v in metrics.items()]
        self._client.log_batch(self._run, metrics=points)
        self._there.add(index)

    def close(self, status: str) -> None:
        """Say how the run ended."""
        self._client.set_terminated(self._run, _STATUS.get(status, "FAILED"))

    def _find(self, subject: Subject) -> Any:
        experiment = self._experiment(subject.folder)
        tag = f"tags.run_id = '{subject.run_id}'"
        runs = self._client.search_runs([experiment], filter_string=tag, max_results=1)
        if runs:
            return runs[0]
        tags = subject.tags()
        return self._client.create_run(experiment, tags=tags, run_name=subject.title())

    def _experiment(self, folder: Path) -> str:
        found = self._client.get_experiment_by_name(self._project)
        if found is None:
            # else files would go where the process was started
            place = None if self._uri else (folder / "mlflow").as_uri()
            try:
                return str(self._client.create_experiment(self._project, artifact_location=place))
            except Exception:  # another run of a sweep database it in the meantime: it is there now
                found = self._client.get_experiment_by_name(self._project)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _describe(self, subject: Subject, known: dict[str, str]) -> None:
        """Add the settings; MLflow changes none that it has, so those become tags."""
        run_parameters = {key: text_of(value)[:_LONGEST] for key, value in subject.settings.items()}
        new = [self._entities.Param(k, v) for k, v in run_parameters.items() if k not in known]
        for batch in _batches(new):
            self._client.log_batch(self._run, params=batch)
        for key, text in run_parameters.items():
            if known.get(key, text) != text:
                self._client.set_tag(self._run, f"resumed.{key}", text)


def _make(file: Path, client: Any) -> None:
    """Make a store of SQLite at once: runs of a sweep that make it together would break it."""
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    database, whole = temporary_name(file), temporary_name(file)
    try:
        client(tracking_uri=f"{_SQLITE}{database.as_posix()}").search_experiments(max_results=1)
        shutil.copyfile(database, whole)  # the library keeps the other one open
        with contextlib.suppress(FileExistsError):  # another run was faster: its store is whole
            os.link(whole, file)
    finally:
        database.unlink(missing_ok=True)
        whole.unlink(missing_ok=True)


def _batches(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), _BATCH):
        yield values[start : start + _BATCH]


def _absolute(uri: str) -> str:
    return uri if "://" in uri or uri.startswith("file:") else Path(uri).absolute().as_uri()
