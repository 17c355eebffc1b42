"""Several runs against each other, with the statistics of the report of a comparison."""

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from fedlabels.api.figure import Figure, chosen, figures_by_name
from fedlabels.api.run import Run
from fedlabels.api.table import Table, from_rows
from fedlabels.errors import ConfigError
from fedlabels.report.blocks import figures_of
from fedlabels.report.comparison import compare as comparing
from fedlabels.report.comparison.cells import show
from fedlabels.report.comparison.files import cell_rows, run_rows, write_comparison
from fedlabels.report.comparison.html import table_html
from fedlabels.report.comparison.page import sections
from fedlabels.report.comparison.tables import tables
from fedlabels.report.markup import el
from fedlabels.report.numbers import plural

Folder = str | Path | Run


class Comparison:
    """What a comparison found; :func:`fedlabels.compare` makes it.

    A notebook shows its tables.
    """

    def __init__(self, found: comparing.Comparison) -> None:
        self._found = found

    @cached_property
    def cells(self) -> Table:
        """A row for each method at each setting.

        ``n`` runs with ``seeds``; ``last_mean`` and ``last_std`` of the metric in its own unit;
        ``pairs`` with the ``baseline``, the mean paired ``difference`` with its 95 % interval
        (``interval_low``, ``interval_high``) and ``p`` of a sign-flip permutation test; the columns
        of ``comparison.csv``.
        """
        return from_rows(cell_rows(self._found))

    @cached_property
    def runs(self) -> Table:
        """A row a run, with the columns of ``runs.csv``; why one is left out is in ``left_out``."""
        return from_rows(run_rows(self._found))

    @property
    def left_out(self) -> dict[str, str]:
        """Runs that are not compared, and why."""
        return {one.label: one.reason for one in self._found.left_out}

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """The figures of the comparison's page, by name, one for each setting to choose."""
        return figures_by_name(figures_of(sections(self._found)))

    def figure(self, name: str) -> Figure:
        """Return a figure, which a notebook shows as a picture.

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

    def write(self, folder: str | Path) -> list[Path]:
        """Write the comparison's files: its page, CSV, Markdown, LaTeX.

        Parameters
        ----------
        folder : str or Path
            Made when it does not exist.

        Raises
        ------
        DataError
            If it is a file.
        """
        return write_comparison(self._found, Path(folder))

    def __repr__(self) -> str:
        left = f", {len(self.left_out)} left out" if self.left_out else ""
        found = self._found
        names = ", ".join(map(show, found.contenders))
        return f"Comparison({names}: {plural(len(found.runs), 'run')}{left})"

    def _repr_html_(self) -> str:
        parts = [el("div", el("h4", t.title), table_html(t)) for t in tables(self._found)]
        left = [el("li", f"{name}: {why}") for name, why in self.left_out.items()]
        return str(el("div", parts, el("div", "left out:", el("ul", left)) if left else None))


def compare(
    runs: Folder | Sequence[Folder],
    *,
    by: str | Sequence[str] | None = None,
    metric: str = comparing.DEFAULT_METRIC,
    baseline: str | None = None,
    last: int = 1,
    target: float | None = None,
) -> Comparison:
    """Compare finished runs.

    Parameters
    ----------
    runs : Run, folder, or sequence of them
        A folder may hold runs at any depth, such as that of a sweep.
    by : str or sequence of str or None
        Settings that make the cells; None takes the method and all others that differ.
    metric : str
        A column of ``rounds.csv``.
    baseline : str or None
        What the others are compared with; None takes the first.
    last : int
        Evaluations at the end of a run whose mean is its result, >= 1.
    target : float or None
        Value of the metric whose costs are wanted, in its own unit.

    Raises
    ------
    DataError
        If a folder holds no run, or no run can be compared.
    ConfigError
        If there is nothing to compare, or a key, the baseline or a number is not allowed.
    """
    folders = [runs] if isinstance(runs, str | os.PathLike | Run) else list(runs)
    paths = [one.path if isinstance(one, Run) else Path(one).expanduser() for one in folders]
    if not paths:
        raise ConfigError("compare needs runs, got none: give Run objects or folders")
    keys = (by,) if isinstance(by, str) else by
    question = comparing.Question(
        metric=metric,
        target=target,
        by=None if keys is None else tuple(keys),
        baseline=baseline,
        last=last,
    )
    return Comparison(comparing.compare(paths, question))
