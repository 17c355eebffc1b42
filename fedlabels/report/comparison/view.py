"""What the parts of a comparison's page share: cells by place, tones, axes, a chart a setting."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedlabels.report.charts import TONES, Axis, Bar, Bars, Chart, Choice, Line
from fedlabels.report.comparison.cells import Cell, Levels, order, short_names, show
from fedlabels.report.comparison.compare import Comparison
from fedlabels.report.comparison.folders import Record, read_records
from fedlabels.report.comparison.runs import Run, Values
from fedlabels.report.comparison.tables import scale_of
from fedlabels.report.numbers import plural

ANY = "*"  # in the place of a setting that a chart shows itself
_MOST_POINTS, _FEWEST_POINTS = 100, 20
_ALL_POINTS = 9000  # on one line a cell: what is drawn many times has fewer


@dataclass(frozen=True)
class View:
    """A comparison as its page's parts need it.

    Parameters
    ----------
    found : Comparison
        What was found.
    records : mapping of str to Record
        What else the runs' folders say, by label.
    rows : sequence of tuple of str
        The settings, sorted.
    contenders : sequence of str
        What is compared, sorted.
    cells : mapping of (tuple of str, str) to Cell
        By setting and contender.
    """

    found: Comparison
    records: Mapping[str, Record]
    rows: Sequence[Levels]
    contenders: Sequence[str]
    cells: Mapping[tuple[Levels, str], Cell]

    @property
    def keys(self) -> tuple[str, ...]:
        """The settings that differ beside what is compared."""
        return self.found.design.keys[1:]

    @property
    def noun(self) -> str:
        """What is compared, in a word."""
        return self.short(self.found.design.keys[0])

    @property
    def points(self) -> int:
        """How many points a line may have, so that the page stays small."""
        fair = _ALL_POINTS // max(len(self.cells), 1)
        return min(max(fair, _FEWEST_POINTS), _MOST_POINTS)

    @property
    def metric(self) -> tuple[Axis, float]:
        """The axis of the metric, and what its values are multiplied with."""
        if self.found.question.is_share:
            return Axis(readable(self.found.question.metric), "percent"), 100.0
        return column_axis(self.found.question.metric), 1.0

    def short(self, key: str) -> str:
        """Return a setting's short name.

        Parameters
        ----------
        key : str
            One of the design's keys.
        """
        return short_names(self.found.design.keys)[key]

    @property
    def repeated(self) -> bool:
        """Whether some cell has several runs, so that their spread can be shown."""
        return any(len(cell.runs) > 1 for cell in self.cells.values())

    def mean(self, drawn: str) -> str:
        """Say over what a mean is, and how its spread is drawn.

        Parameters
        ----------
        drawn : str
            What shows the spread, such as the band.
        """
        if not self.repeated:
            return "Each is a single run, so no spread is known."
        return (
            f"Mean over the seeds; {drawn} is one sample standard deviation to each side, where"
            " there are several."
        )

    def tone(self, contender: str) -> int:
        """Return a contender's color, the same everywhere.

        Parameters
        ----------
        contender : str
            One of `contenders`.
        """
        return 1 + self.contenders.index(contender) % TONES

    def levels(self, index: int) -> list[str]:
        """Return the levels of a setting, in order.

        Parameters
        ----------
        index : int
            Its place among `keys`.
        """
        return sorted({row[index] for row in self.rows}, key=order)

    def level_axis(self, index: int) -> Axis:
        """Return an axis with the levels of a setting.

        Parameters
        ----------
        index : int
            Its place among `keys`.
        """
        return Axis(self.short(self.keys[index]), names=[show(t) for t in self.levels(index)])

    def last(self, row: Levels, contender: str) -> tuple[float, float]:
        """Return mean and deviation of the metric in the unit of its axis; NaN where no cell is.

        Parameters
        ----------
        row : tuple of str
            A setting.
        contender : str
            One of `contenders`.
        """
        cell, factor = self.cells.get((row, contender)), self.metric[1]
        if cell is None:
            return np.nan, np.nan
        mean, spread = self.found.last(cell)
        return factor * mean, factor * spread

    def there(self, row: Levels) -> list[tuple[str, list[Run]]]:
        """Return the contenders with runs at a setting, in order.

        Parameters
        ----------
        row : tuple of str
            A setting.
        """
        cells = [(name, self.cells.get((row, name))) for name in self.contenders]
        return [(name, list(cell.runs.values())) for name, cell in cells if cell]

    def by_setting(self, make: Callable[[Levels], Chart | None]) -> Chart | Choice | None:
        """Make one chart for every setting.

        Parameters
        ----------
        make : callable
            From a setting to its chart, None where there is nothing to show.

        Returns
        -------
        Chart, Choice or None
            The chart itself where no setting differs; None where there is none at all.
        """
        return choice({row: make(row) for row in self.rows})

    def line(
        self, contender: str, x: Values, mean: Values, spread: Values | None = None, label: str = ""
    ) -> Line:
        """Make a contender's line.

        Parameters
        ----------
        contender : str
            One of `contenders`.
        x, mean : ndarray, shape (points,)
            The points.
        spread : ndarray, shape (points,), or None
            Half the width of the band; without a finite one there is none.
        label : str
            What the legend says; the contender's name if empty.
        """
        name = show(contender)
        low, high = edges(mean, spread)
        return Line(label or name, self.tone(contender), x, mean, low, high, method=name)

    def bars(
        self, x: Axis, y: Axis, values: Mapping[str, tuple[Values, Values | None]]
    ) -> Bars | None:
        """Make bars beside each other, one a contender at every place.

        Parameters
        ----------
        x, y : Axis
            The places, and what is shown.
        values : mapping of str to (ndarray, ndarray or None)
            Contender -> its heights and deviations, shape (places,).

        Returns
        -------
        Bars or None
            None when no height is known.
        """
        known = {name: pair for name, pair in values.items() if np.isfinite(pair[0]).any()}
        made = [
            Bar(show(name), self.tone(name), heights, *edges(heights, spread), method=show(name))
            for name, (heights, spread) in known.items()
        ]
        return Bars(x, y, made, stacked=False) if made else None

    def without(self, has: Callable[[Record], bool]) -> str:
        """Say how many runs a part of the page is without; empty when it has them all.

        Parameters
        ----------
        has : callable
            Whether a record has what the part shows.
        """
        missing = sum(not has(record) for record in self.records.values())
        return f" {plural(missing, 'run')} of {len(self.records):,} did not say it." * bool(missing)


def view(found: Comparison) -> View:
    """Read what the page of a comparison shows.

    Parameters
    ----------
    found : Comparison
        What was found.
    """
    cells = {(cell.row, cell.contender): cell for cell in found.cells}
    return View(found, read_records(found.runs), found.rows, found.contenders, cells)


def choice(charts: Mapping[Levels, Chart | None]) -> Chart | Choice | None:
    """Put charts together that a reader chooses from.

    Parameters
    ----------
    charts : mapping of tuple of str to Chart or None
        By the levels of the settings, `ANY` for those that a chart shows itself.

    Returns
    -------
    Chart, Choice or None
        A chart itself where nothing is left to choose; None where there is none.
    """
    known = {levels: chart for levels, chart in charts.items() if chart is not None}
    if not known:
        return None
    only = next(iter(known))
    if all(level == ANY for level in only):
        return known[only]
    return Choice(known)


def edges(mean: Values, spread: Values | None) -> tuple[Values | None, Values | None]:
    """Return both edges of a band, None without any.

    Parameters
    ----------
    mean : ndarray, shape (points,)
        Its middle.
    spread : ndarray, shape (points,), or None
        Half its width, NaN where there is none.
    """
    if spread is None or not np.isfinite(spread).any():
        return None, None
    return mean - spread, mean + spread


def summarized(values: Values) -> tuple[Values, Values | None]:
    """Return mean and sample standard deviation over runs.

    Parameters
    ----------
    values : ndarray, shape (runs, points)
        At least one run.

    Returns
    -------
    tuple of ndarray and ndarray or None
        Shape (points,); no deviation of a single run.
    """
    mean = np.asarray(values.mean(axis=0))
    return mean, np.asarray(values.std(axis=0, ddof=1)) if len(values) > 1 else None


def known_mean(values: Values, axis: int) -> Values:
    """Return means of the finite values, NaN where there is none.

    Parameters
    ----------
    values : ndarray
        Any numbers.
    axis : int
        Over which to take them.
    """
    finite = np.isfinite(values)
    sums, counts = np.where(finite, values, 0.0).sum(axis=axis), finite.sum(axis=axis)
    means = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    return np.asarray(means)


def readable(column: str) -> str:
    """Write the name of a column, as in test accuracy.

    Parameters
    ----------
    column : str
        Of ``rounds.csv``.
    """
    return column.replace("_", " ")


def column_axis(column: str) -> Axis:
    """Return the axis of a column that is no share.

    Parameters
    ----------
    column : str
        Of ``rounds.csv``.
    """
    if column.startswith("bytes"):
        return Axis(readable(column), "bytes")
    if column.startswith("seconds"):
        return Axis(readable(column), "seconds")
    return Axis(readable(column), "nats" if "loss" in column else "number")


def head(found: Comparison) -> str:
    """Return the metric as a title begins with it.

    Parameters
    ----------
    found : Comparison
        What was found.
    """
    text = readable(scale_of(found).metric)
    return text[:1].upper() + text[1:]
