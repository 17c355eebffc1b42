"""How numbers and tables of a comparison are written, before they are Markdown or LaTeX."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fedlabels.report.comparison.statistics import smallest_p
from fedlabels.report.numbers import MISSING

MINUS = "\N{MINUS SIGN}"

Place = tuple[tuple[str, ...] | None, str]


@dataclass(frozen=True, slots=True)
class Entry:
    """One field of a table.

    Parameters
    ----------
    text : str
        Plain text.
    bold : bool
        Whether it stands out.
    heat : int or None
        In [0, 100], how dark a heat map shows it.
    """

    text: str
    bold: bool = False
    heat: int | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table with a title and what a reader must know.

    Parameters
    ----------
    anchor : str
        Short name.
    title, lead : str
        What it is, and a sentence or more.
    header : list of tuple of str
        The lines of every column's head; all columns have as many.
    rows : list of list of Entry
        As long as `header`.
    texts : int
        Columns from the left that hold text.
    places : list of (tuple of str or None, str)
        Setting and contender, as levels, that a row is about; None where it is about all settings.
        Empty where rows are about something else.
    """

    anchor: str
    title: str
    lead: str
    header: list[tuple[str, ...]]
    rows: list[list[Entry]]
    texts: int
    places: list[Place] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Scale:
    """How the metric is written.

    Parameters
    ----------
    metric : str
        Its name.
    share : bool
        Whether it is a share of one, written in percent.
    """

    metric: str
    share: bool

    @property
    def head(self) -> str:
        """The metric with its unit."""
        return f"{self.metric} (%)" if self.share else self.metric

    @property
    def points(self) -> str:
        """The unit of differences."""
        return "percentage points" if self.share else f"units of {self.metric}"

    def mean(self, mean: float, spread: float) -> str:
        """Write a mean with its deviation.

        Parameters
        ----------
        mean, spread : float
            NaN where there is none.
        """
        if math.isnan(mean):
            return MISSING
        text = self._number(mean, mean)
        return text if math.isnan(spread) else f"{text} ± {self._number(spread, mean)}"

    def difference(self, value: float, largest: float) -> str:
        """Write a difference with its sign.

        Parameters
        ----------
        value : float
            NaN gives a dash.
        largest : float
            Where the first of its digits stands.
        """
        if math.isnan(value):
            return MISSING
        text = self._number(abs(value), largest)
        if not text.strip("0."):
            return text
        return ("+" if value > 0 else MINUS) + text

    def _number(self, value: float, of: float) -> str:
        if self.share:
            return f"{100 * value:.2f}"
        digits = 3 - math.floor(math.log10(abs(of))) if of and math.isfinite(of) else 4
        return f"{value:.{min(max(digits, 0), 12)}f}".replace("-", MINUS)


def seed_text(seeds: Sequence[int]) -> str:
    """Write seeds briefly, as in 0–2, 7.

    Parameters
    ----------
    seeds : sequence of int
        Ascending.

    Examples
    --------
    >>> seed_text([0, 1, 2, 7, 8])
    '0–2, 7, 8'
    """
    spans: list[list[int]] = []
    for seed in seeds:
        if spans and seed == spans[-1][-1] + 1:
            spans[-1].append(seed)
        else:
            spans.append([seed])
    texts = [[f"{s[0]}–{s[-1]}"] if len(s) > 2 else [str(seed) for seed in s] for s in spans]
    return ", ".join(text for span in texts for text in span)


def smallest_text(pairs: Iterable[int]) -> str:
    """Say how small p can get at all.

    Parameters
    ----------
    pairs : iterable of int
        Numbers of pairs.
    """
    few = sorted({n for n in pairs if n > 0})
    if not few:
        return ""
    parts = [f"n = {n}: {smallest_p(n):.4g}" for n in few]
    text = f"The smallest p that is possible, with {'; '.join(parts)}."
    if few[0] < 6:
        text += " Below 6 pairs no difference, however large, has p < 0.05."
    return text


def plain(value: float) -> str:
    """Write a count, a size or a time without a unit.

    Parameters
    ----------
    value : float
        >= 0; NaN gives a dash.
    """
    if math.isnan(value):
        return MISSING
    whole = value == round(value) or value >= 99.95
    return f"{value:,.0f}" if whole else f"{value:.3g}"
