"""Weights & Biases: a run kept on this machine, uploaded only by who asks for it."""

import os
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

from fedlabels.run.callbacks.trackers.base import Metrics, Rounds, Subject

# Read when the library is imported: no reports of errors and use, no lines on the screen.
OFF = {"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true", "DO_NOT_TRACK": "true"}
_WAIT = 20  # seconds that a run waits for a server that is away, once
# What a run is, is in its settings; of the machine, its code and its load nothing is collected.
_SETTINGS = {
    "silent": True,
    "console": "off",
    "disable_git": True,
    "disable_code": True,
    "save_code": False,
    "disable_job_creation": True,
    "init_timeout": _WAIT,
    "finish_timeout": _WAIT,
    "login_timeout": _WAIT,  # a question for a key on a screen that nobody looks at
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_disable_machine_info": True,
    "x_disable_viewer": True,
    "x_save_requirements": False,
    "x_stats_self_usage": False,
    "x_transaction_log_flush_interval": 1.0,  # what a kill can cost, in seconds
}


class WandB:
    """Writes ``wandb/`` in the run folder.

    Parameters
    ----------
    uri : str or None
        A server of one's own, for ``mode="online"``.
    mode : str
        ``"offline"`` or ``"online"``.
    project : str
        Of Weights & Biases; may be ``entity/project``.
    """

    def __init__(self, uri: str | None, mode: str, project: str) -> None:
        self._uri, self._mode, self._project = uri, mode, project
        self._run: Any = None

    def start(self, subject: Subject, rounds: Rounds) -> str:
        """Begin or go on under the run's own id; offline, replace what was written before."""
        os.environ.update({**OFF, "WANDB_MODE": self._mode})
        wandb = import_module("wandb")
        before = [] if self._mode == "online" else _kept(subject)
        entity, _, project = self._project.rpartition("/")
        self._run = wandb.init(
            dir=str(subject.folder),
            id=subject.run_id,
            resume="allow",
            name=subject.title(),
            entity=entity or None,
            project=project,
            config={**subject.settings, **_missing(subject)},
            tags=[f"{key}:{value}"[:64] for key, value in subject.tags().items()],
            reinit="create_new",
            allow_val_change=True,  # more rounds than before
            settings=self._settings(wandb),
        )
        for index, metrics in rounds.items():
            self.log(index, metrics)
        for folder in before:
            if folder != Path(self._run.settings.sync_dir):
                shutil.rmtree(folder)
        return subject.run_id

    def log(self, index: int, metrics: Metrics) -> None:
        """Add a round; one that the server has already stays as it is."""
        if index >= self._run.step:
            self._run.log(dict(metrics), step=index, commit=True)

    def close(self, status: str) -> None:
        """Say how the run ended."""
        self._run.finish(exit_code=0 if status == "finished" else 1)

    def _settings(self, wandb: Any) -> Any:
        known = getattr(wandb.Settings, "model_fields", _SETTINGS)  # they come and go by version
        chosen = {key: value for key, value in _SETTINGS.items() if key in known}
        chosen["mode"] = self._mode
        if self._uri:
            chosen["base_url"] = self._uri
        return wandb.Settings(**chosen)


def _kept(subject: Subject) -> list[Path]:
    """Return the folders of the processes before this one: each would be a part of the run."""
    return sorted((subject.folder / "wandb").glob(f"offline-run-*-{subject.run_id}*"))


def _missing(subject: Subject) -> dict[str, str]:
    return {key: value for key, value in subject.tags().items() if key not in subject.settings}
