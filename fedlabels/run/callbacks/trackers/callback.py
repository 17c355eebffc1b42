"""The callback that feeds a tracker, and keeps its failures away from the run."""

import logging
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from fedlabels.errors import ConfigError
from fedlabels.run.callbacks.trackers.base import (
    Subject,
    Tracker,
    metrics_of,
    metrics_of_row,
    settings_of,
)
from fedlabels.run.callbacks.trackers.mlflow import MLflow
from fedlabels.run.callbacks.trackers.tensorboard import TensorBoard
from fedlabels.run.callbacks.trackers.wandb import WandB
from fedlabels.run.folder import RunFolder
from fedlabels.settings.groups import TRACKERS

LOG = logging.getLogger(__name__)
_TRACKERS: dict[str, Callable[[str | None, str, str], Tracker]] = {
    "tensorboard": lambda uri, mode, project: TensorBoard(uri),
    "wandb": WandB,
    "mlflow": lambda uri, mode, project: MLflow(uri, project),
}
"""What ``tracker.name`` may be."""


class Tracking:
    """Tells a tracker of a run; the first failure is a warning and the last thing it hears.

    Parameters
    ----------
    name : str
        The tracker's, for messages and for the manifest.
    tracker : Tracker
        Which.
    """

    def __init__(self, name: str, tracker: Tracker) -> None:
        self._name, self._tracker = name, tracker
        self._folder: RunFolder | None = None
        self._open = False

    def on_run_start(self, *, folder: RunFolder, config: Mapping[str, Any]) -> None:
        """Begin, or go on with the tracker's run, brought to what rounds.csv says."""
        self._folder, self._open = folder, True
        self._guarded(lambda: self._start(folder, config))

    def on_round_end(self, *, record: Mapping[str, Any]) -> bool:
        """Tell of a round; never stop the run."""
        self._guarded(lambda: self._tracker.log(int(record["round"]), metrics_of(record)))
        return False

    def on_run_end(self, *, folder: RunFolder) -> None:
        """Do nothing: the run can still fail; see `close`."""

    def close(self) -> None:
        """Tell how the run ended; call it also when it raised."""
        folder = self._folder
        if folder is not None:
            self._guarded(lambda: self._tracker.close(str(folder.read_manifest()["status"])))
        self._open = False

    def _start(self, folder: RunFolder, config: Mapping[str, Any]) -> None:
        manifest = folder.read_manifest()
        subject = Subject(
            folder=folder.path,
            run_id=str(manifest["run_id"]),
            name=str(manifest["name"]),
            method=str(manifest["method"]),
            seed=int(manifest["seed"]),
            settings=settings_of(config),
        )
        rounds = {int(row["round"]): metrics_of_row(row) for row in folder.rounds.rows()}
        run = self._tracker.start(subject, rounds)
        folder.update_manifest(tracker={"name": self._name, "run": run})

    def _guarded(self, action: Callable[[], None]) -> None:
        if not self._open:
            return
        try:
            action()
        except Exception as error:  # of any library, of the disk, of the network
            self._open = False
            LOG.warning(
                "tracker %s failed and is off until the run is resumed, which makes up for what it"
                " missed; the run goes on (%s: %s)", self._name, type(error).__name__, error,
            )  # fmt: skip


def tracking_of(config: Mapping[str, Any]) -> Tracking | None:
    """Return the callback that the settings ask for; None when they ask for none.

    Raises
    ------
    ConfigError
        If the tracker is unknown, or its library is not installed.
    """
    # a run from before there were trackers has none
    wanted = dict(config.get("tracker") or {})
    name = wanted.get("name", "none")
    if name == "none":
        return None
    if name not in _TRACKERS:
        raise ConfigError(f"tracker.name must be one of {', '.join(TRACKERS)}, got '{name}'")
    if find_spec(name) is None:
        raise ConfigError(
            f"tracker={name} needs a library that is not installed: pip install 'fedlabels[{name}]'"
            " (or tracker=none)"
        )
    mode, project = wanted.get("mode", "offline"), wanted.get("project", "fedlabels")
    return Tracking(name, _TRACKERS[name](wanted.get("uri"), mode, project))
