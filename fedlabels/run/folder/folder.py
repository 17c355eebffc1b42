"""The run folder: the whole truth of one run, laid out the same way for every method."""

import contextlib
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

from fedlabels.errors import DataError, RunError, writing
from fedlabels.machine.files import TEMPORARY, json_bytes, write_atomic
from fedlabels.run.folder.table import Table
from fedlabels.run.folder.tested import LastTest

ROUND_FIRST = ("round", "sampled", "ok", "empty", "failed", "rejected", "weight")
ROUND_LAST = (
    "test_loss",
    "test_accuracy",
    "bytes_down",
    "bytes_up",
    "seconds_train",
    "seconds_evaluate",
    "seconds_total",
)
CLIENT_FIRST = (
    "round",
    "client_id",
    "status",
    "error",
    "labeled",
    "unlabeled",
    "weight",
    "bytes_down",
    "bytes_up",
)

DECOMPOSITION_FIRST = ("round", "client_id", "samples", "weight")
PROFILE_FIRST = ("round", "side", "phase")
DOMAIN_FIRST = ("round", "domain", "samples", "accuracy")
PERSONAL_FIRST = ("round", "client_id", "status", "error", "samples", "domain")
PROFILE_LAST = ("seconds", "share")


def new_folder(wanted: Path) -> Path:
    """Make a folder that nobody else has, whoever chooses the same name at the same time.

    Parameters
    ----------
    wanted : Path
        Its name; taken, it gets a number: ``NAME-2``, ``NAME-3``, ...

    Returns
    -------
    Path
        The folder, empty.

    Raises
    ------
    DiskError
        If it cannot be made.
    """
    with writing(wanted):
        path, numbers = wanted, itertools.count(2)
        while True:
            wanted.parent.mkdir(parents=True, exist_ok=True)
            try:
                path.mkdir()
                return path
            except FileNotFoundError:
                continue  # the run that had made the folder above was refused just now
            except FileExistsError:
                path = wanted.with_name(f"{wanted.name}-{next(numbers)}")


def remove_new(path: Path) -> None:
    """Remove a folder that `new_folder` made, and the two above it, as far as they are empty."""
    with contextlib.suppress(OSError):
        for folder in (path, *path.parents[:2]):
            folder.rmdir()


class RunFolder:
    """Paths, tables and the manifest of one run.

    Parameters
    ----------
    path : Path or str
        The folder; it is made when it does not exist. It may hold other files.
    resume : bool
        Whether a run that is already there goes on. A folder without a run is fine, too.

    Attributes
    ----------
    path : Path
        The folder, absolute.
    config, federation, log, model, report : Path
        ``config.yaml``, ``federation.npz``, ``run.log``, ``model.safetensors``, ``report.html``.
    state, checkpoints, figures : Path
        Folders that exist.
    rounds, clients, test_class, test_domain, personal, decomposition, profile : Table
        ``rounds.csv``, ``clients.csv``, ``test_class.csv``, ``test_domain.csv``,
        ``personal.csv``, ``decomposition.csv``, ``profile.csv``.
    trace : Path
        ``profile.json``.
    last_test : LastTest
        ``confusion.csv``, ``calibration.csv``, ``predictions.npz``.

    Raises
    ------
    RunError
        If the folder holds a run and `resume` is False, or if `path` is a file.
    """

    def __init__(self, path: Path | str, *, resume: bool = False) -> None:
        self.path = Path(path).absolute()
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path} is a file: a run needs a folder of its own")
        self.config = self.path / "config.yaml"
        self.federation = self.path / "federation.npz"
        self.log = self.path / "run.log"
        self.model = self.path / "model.safetensors"
        self.report = self.path / "report.html"
        self.manifest = self.path / "manifest.json"
        self.state = self.path / "state"
        self.checkpoints = self.path / "checkpoints"
        self.figures = self.path / "figures"
        self.rounds = Table(self.path / "rounds.csv", first=ROUND_FIRST, last=ROUND_LAST)
        self.clients = Table(self.path / "clients.csv", first=CLIENT_FIRST)
        self.test_class = Table(self.path / "test_class.csv")
        self.test_domain = Table(self.path / "test_domain.csv", first=DOMAIN_FIRST)
        self.personal = Table(self.path / "personal.csv", first=PERSONAL_FIRST)
        self.decomposition = Table(self.path / "decomposition.csv", first=DECOMPOSITION_FIRST)
        self.profile = Table(self.path / "profile.csv", first=PROFILE_FIRST, last=PROFILE_LAST)
        self.trace = self.path / "profile.json"
        self.last_test = LastTest(self.path)
        self._tables = (
            self.rounds, self.clients, self.test_class, self.test_domain, self.personal,
            self.decomposition, self.profile,
        )  # fmt: skip
        if not resume:
            self._refuse_existing()
            self._remove_leftovers()
        for folder in (self.state, self.checkpoints, self.figures):
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)

    def cut_back(self, last: int) -> None:
        """Drop what is said of rounds after a checkpoint, and what a killed process left.

        Parameters
        ----------
        last : int
            Last round that stays; 0 empties the tables.
        """
        self._remove_leftovers()
        for table in self._tables:
            table.cut_back(last)
        self.last_test.cut_back(last)

    def _remove_leftovers(self) -> None:
        for leftover in self.path.glob(f"{TEMPORARY}*"):
            with writing(leftover):
                leftover.unlink(missing_ok=True)  # a report that is being written replaces its own
        for leftover in self.checkpoints.glob(f"{TEMPORARY}*"):
            shutil.rmtree(leftover, ignore_errors=True)  # no further checkpoint may be written

    def sync(self) -> None:
        """Flush the tables to disk: a checkpoint must not be newer than they are."""
        for table in self._tables:
            table.sync()

    def read_manifest(self) -> dict[str, Any]:
        """Read ``manifest.json``.

        Returns
        -------
        dict
            Its values; empty when there is no manifest yet.

        Raises
        ------
        DataError
            If the file is not a JSON object.
        """
        if not self.manifest.exists():
            return {}
        try:
            values = json.loads(self.manifest.read_bytes())
        except ValueError as error:
            raise DataError(
                f"{self.manifest} is no JSON ({error}): restore or delete it"
            ) from error
        if not isinstance(values, dict):
            raise DataError(f"{self.manifest} must hold a JSON object: delete it")
        return values

    def update_manifest(self, **values: Any) -> dict[str, Any]:
        """Set values in ``manifest.json``, atomically; the others stay.

        Parameters
        ----------
        **values
            JSON values by key.

        Returns
        -------
        dict
            The whole manifest as written.
        """
        manifest = self.read_manifest() | values
        write_atomic(self.manifest, json_bytes(manifest))
        return manifest

    def remove_report(self) -> None:
        """Remove the report of a run that had fewer rounds."""
        with writing(self.report):
            self.report.unlink(missing_ok=True)

    def write_config(self, text: str) -> None:
        """Write ``config.yaml``, atomically.

        Parameters
        ----------
        text : str
            The resolved settings as YAML.
        """
        write_atomic(self.config, text)

    def _refuse_existing(self) -> None:
        checkpoints = self.checkpoints.is_dir() and any(self.checkpoints.iterdir())
        if self.manifest.exists() or self.rounds.path.exists() or checkpoints:
            raise RunError(
                f"{self.path} already holds a run: go on with it (resume={self.path}), choose"
                " another folder, or move that one away"
            )
