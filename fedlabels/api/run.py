"""What a run left behind, read from its folder."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from fedlabels.api.figure import Figure, chosen, figures_by_name
from fedlabels.api.table import Table, read
from fedlabels.errors import DataError
from fedlabels.federation import Federation
from fedlabels.renamed import renamed
from fedlabels.report.blocks import figures_of
from fedlabels.report.single.headline import headline
from fedlabels.report.single.page import run_sections, write_report
from fedlabels.report.single.source import read_json, read_run
from fedlabels.settings.hashing import flatten

if TYPE_CHECKING:
    from fedlabels.use import RunModel


class Run:
    """A run folder, finished or not; every part is read when it is first asked for.

    Make one with :meth:`open`, or get it from :func:`fedlabels.simulate`. A run that goes on
    meanwhile is seen by opening it again.

    Attributes
    ----------
    path : Path
        The folder, absolute.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """Open a run folder.

        Parameters
        ----------
        folder : str or Path
            What a run wrote, of this version or an earlier one.

        Raises
        ------
        DataError
            If there is no run, or its manifest is damaged.
        """
        path = Path(folder).expanduser().absolute()
        if not (path / "manifest.json").is_file() and not (path / "rounds.csv").is_file():
            why = "it has neither manifest.json nor rounds.csv" if path.is_dir() else "no folder"
            raise DataError(f"{folder} holds no run ({why}): give the folder that the run wrote")
        run = cls(path)
        _ = run.manifest
        return run

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        """``manifest.json``: method, status, versions, hardware, hashes."""
        return read_json(self.path / "manifest.json")

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All settings, nested, under the names that they have now.

        Raises
        ------
        DataError
            If ``config.yaml`` is missing or damaged.
        """
        file = self.path / "config.yaml"
        try:
            values = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{file} cannot be read ({reason}): restore it") from error
        if not isinstance(values, dict):
            raise DataError(f"{file} holds no settings: restore it")
        return _nested(renamed(flatten(values)))

    @property
    def method(self) -> str:
        """Name of the method; empty where the manifest does not say it."""
        return str(self.manifest.get("method") or "")

    @property
    def status(self) -> str:
        """``running``, ``finished``, ``stopped`` or ``failed``; empty where it is not known."""
        return str(self.manifest.get("status") or "")

    @property
    def notes(self) -> list[str]:
        """What is odd about the data, the labels or the machine, a sentence each."""
        notes = self.manifest.get("notes")
        return [str(note) for note in notes] if isinstance(notes, list) else []

    @cached_property
    def rounds(self) -> Table:
        """``rounds.csv``: a row a round."""
        return read(self.path / "rounds.csv")

    @cached_property
    def clients(self) -> Table:
        """``clients.csv``: a row for each client that was drawn in a round."""
        return read(self.path / "clients.csv")

    @cached_property
    def test_class(self) -> Table:
        """``test_class.csv``: recall by class, a row an evaluation."""
        return read(self.path / "test_class.csv")

    @cached_property
    def test_domain(self) -> Table:
        """``test_domain.csv``: accuracy by domain; empty where the data have none."""
        return read(self.path / "test_domain.csv")

    @cached_property
    def personal(self) -> Table:
        """``personal.csv``: clients' tests on their own samples; empty where there were none."""
        return read(self.path / "personal.csv")

    @cached_property
    def decomposition(self) -> Table:
        """``decomposition.csv``; empty without ``callbacks="decomposition"``."""
        return read(self.path / "decomposition.csv")

    @cached_property
    def profile(self) -> Table:
        """``profile.csv``; empty without ``callbacks="profile"``."""
        return read(self.path / "profile.csv")

    @cached_property
    def federation(self) -> Federation:
        """Who holds what: indices of samples by client, labels, the server's samples.

        ``federation.labels`` is the truth of all training samples, shape (N,), -1 where nobody
        knows it; ``federation.labeled`` and ``.unlabeled`` have ``index``, shape (samples held,),
        and ``owners``, the client of each.

        Raises
        ------
        DataError
            If ``federation.npz`` is missing or damaged; a run on devices has none.
        """
        return Federation.load(self.path / "federation.npz")

    @property
    def accuracy(self) -> float:
        """Accuracy on the global test set at the last evaluation, in [0, 1]; NaN without one."""
        return _last(self.rounds, "test_accuracy")

    @property
    def personal_accuracy(self) -> float:
        """Mean accuracy of the clients on their own test samples, in [0, 1]; NaN without one."""
        return _last(self.rounds, "personal_accuracy")

    def model(self, client: int | None = None) -> "RunModel":
        """Return the newest model as a module that takes raw samples.

        Parameters
        ----------
        client : int or None
            Whose own model; None is the global one.

        Raises
        ------
        FedLabelsError
            See :func:`fedlabels.load_model`.
        """
        from fedlabels.use import load_model  # torch takes seconds

        return load_model(self.path, client)

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """The figures of the run's report, by name."""
        return figures_by_name(figures_of(run_sections(read_run(self.path))))

    def figure(self, name: str) -> Figure:
        """Return a figure of the run's report, which a notebook shows as a picture.

        Parameters
        ----------
        name : str
            One of `figures`.

        Raises
        ------
        ConfigError
            If there is none of that name.
        """
        return chosen(self.figures, name)

    def report(self) -> Path:
        """Write ``report.html`` into the folder anew and return its path."""
        return write_report(self.path)

    def __repr__(self) -> str:
        words = [repr(str(self.path)), self.method, self.status]
        score = f"{100 * self.accuracy:.1f} %" if np.isfinite(self.accuracy) else ""
        return f"Run({', '.join(word for word in (*words, score) if word)})"

    def _repr_html_(self) -> str:
        return str(headline(read_run(self.path)))


def _last(table: Table, name: str) -> float:
    values = table.get(name, np.zeros(0))
    if values.dtype.kind not in "if":
        return float("nan")
    known = values[np.isfinite(values)]
    return float(known[-1]) if len(known) else float("nan")


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *above, last = key.split(".")
        place = nested
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    return nested
