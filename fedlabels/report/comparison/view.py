"""What the parts of a comparison's page share: cells by place, tones, axes, a chart a setting."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from fedlabels.report.blocks import Figure
from fedlabels.report.charts import TONES, Axis, Bar, Bars, Chart, Choice, Line
from fedlabels.report.comparison.cells import Cell, Levels, show
from fedlabels.report.comparison.compare import Comparison
from fedlabels.report.comparison.folders import Record, read_records
from fedlabels.report.comparison.runs import Values
from fedlabels.report.numbers import plural

ANY = "*"  # in the place of a setting that a chart shows itself
_MOST_POINTS, _FEWEST_POINTS = 100, 20
_ALL_POINTS = 9000  # on one line a cell: what is drawn many times has fewer

Reading = TypeVar("Reading")


@dataclass(frozen=True)
class View:
    """A comparison as its page's parts need it.

    Parameters
    ----------
    comparison : Comparison
        What was compared.
    records : mapping of str to Record
        What else the runs' folders say, by label.
    rows : sequence of tuple of str
        The settings, sorted.
    contenders : sequence of str
        What is compared, sorted.
    cells : mapping of (tuple of str, str) to Cell
        By setting and contender.
    """

    comparison: Comparison
    records: Mapping[str, Record]
    rows: Sequence[Levels]
    contenders: Sequence[str]
    cells: Mapping[tuple[Levels, str], Cell]

    @classmethod
    def of(cls, comparison: Comparison) -> "View":
        """Read what the page of a comparison shows; its runs' folders are read again.

        Parameters
        ----------
        comparison : Comparison
            What was compared.
        """
        cells = {(cell.row, cell.contender): cell for cell in comparison.cells}
        records = read_records(comparison.runs)
        return cls(comparison, records, comparison.rows, comparison.contenders, cells)

    @property
    def keys(self) -> tuple[str, ...]:
        """The settings that differ beside what is compared."""
        return self.comparison.design.settings

    @property
    def noun(self) -> str:
        """What is compared, in a word."""
        return self.comparison.design.noun

    @property
    def points(self) -> int:
        """How many points a line may have, so that the page stays small."""
        fair = _ALL_POINTS // max(len(self.cells), 1)
        return min(max(fair, _FEWEST_POINTS), _MOST_POINTS)

    @property
    def metric(self) -> tuple[Axis, float]:
        """The axis of the metric, and what its values are multiplied with."""
        question = self.comparison.question
        if question.is_share:
            return Axis(readable(question.metric), "percent"), 100.0
        return column_axis(question.metric), 1.0

    @property
    def metric_title(self) -> str:
        """The metric as a title begins with it."""
        text = readable(self.comparison.question.metric)
        return text[:1].upper() + text[1:]

    def short(self, key: str) -> str:
        """Return a setting's short name.

        Parameters
        ----------
        key : str
            One of the design's keys.
        """
        return self.comparison.design.names[key]

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

    def level_axis(self, index: int) -> Axis:
        """Return an axis with the levels of a setting.

        Parameters
        ----------
        index : int
            Its place among `keys`.
        """
        return Axis(
            self.short(self.keys[index]), names=[show(t) for t in self.comparison.levels(index)]
        )

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
        mean, spread = self.comparison.last(cell)
        return factor * mean, factor * spread

    def records_at(self, row: Levels) -> dict[str, list[Record]]:
        """Return what the folders of the runs at a setting say, by contender, in order.

        Parameters
        ----------
        row : tuple of str
            A setting.
        """
        cells = {name: self.cells.get((row, name)) for name in self.contenders}
        return {
            name: [self.records[run.label] for run in cell.runs.values()]
            for name, cell in cells.items()
            if cell
        }

    def readings(
        self, row: Levels, read: Callable[[Record], Reading | None]
    ) -> dict[str, list[Reading]]:
        """Read something of the runs at a setting.

        Parameters
        ----------
        row : tuple of str
            A setting.
        read : callable
            From what a run's folder says to what is wanted of it; None where it does not say it.

        Returns
        -------
        dict of str to list
            Contender -> what is known of its runs, in order; without those of which nothing is.
        """
        known = {
            name: [one for record in records if (one := read(record)) is not None]
            for name, records in self.records_at(row).items()
        }
        return {name: values for name, values in known.items() if values}

    def figure(
        self,
        anchor: str,
        title: str,
        caption: str,
        draw: Callable[[Levels], Chart | None],
        *,
        wide: bool = False,
        method: str = "",
    ) -> Figure | None:
        """Make a figure with a chart for every setting; None where there is nothing to show.

        Parameters
        ----------
        anchor, title, caption, wide, method
            As the figure has them.
        draw : callable
            From a setting to its chart, None where there is nothing to show.
        """
        chart = choice({row: draw(row) for row in self.rows})
        if chart is None:
            return None
        return Figure(anchor, title, caption, chart, wide=wide, method=method)

    def line(self, contender: str, x: Values, mean: Values, spread: Values | None = None) -> Line:
        """Make a contender's line.

        Parameters
        ----------
        contender : str
            One of `contenders`.
        x, mean : ndarray, shape (points,)
            The points.
        spread : ndarray, shape (points,), or None
            Half the width of the band; without a finite one there is none.
        """
        name = show(contender)
        low, high = edges(mean, spread)
        return Line(name, self.tone(contender), x, mean, low, high, method=name)

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
        bars = [
            Bar(show(name), self.tone(name), heights, *edges(heights, spread), method=show(name))
            for name, (heights, spread) in values.items()
            if np.isfinite(heights).any()
        ]
        return Bars(x, y, bars, stacked=False) if bars else None

    def mean_bars(
        self, row: Levels, x: Axis, y: Axis, read: Callable[[Record], Sequence[float] | None]
    ) -> Bars | None:
        """Make bars of means over the runs at a setting, one a contender at every place.

        Parameters
        ----------
        row : tuple of str
            A setting.
        x, y : Axis
            The places, and what is shown.
        read : callable
            From what a run's folder says to its heights, one a place; None where it has none.
        """
        readings = self.readings(row, read)
        return self.bars(x, y, {name: summarized(np.array(v)) for name, v in readings.items()})

    def without(self, has: Callable[[Record], bool]) -> str:
        """Say how many runs a part of the page is without; empty when it has them all.

        Parameters
        ----------
        has : callable
            Whether a record has what the part shows.
        """
        missing = sum(not has(record) for record in self.records.values())
        return f" {plural(missing, 'run')} of {len(self.records):,} did not say it." * bool(missing)


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
