"""The figures of the reports, as a notebook shows them: pictures without a browser."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

from fedlabels.errors import ConfigError
from fedlabels.machine.files import write_atomic
from fedlabels.report.blocks import Figure as Card
from fedlabels.report.blocks import named_charts
from fedlabels.report.charts import Chart, describe
from fedlabels.report.figure_files import FORMATS, draw_figure


@dataclass(frozen=True)
class Figure:
    """A chart of a report; it is drawn when it is looked at.

    Parameters
    ----------
    name : str
        As the file of ``fedlabels report --figures`` is called.
    title, caption : str
        What is shown, and how to read it.
    """

    name: str
    title: str
    caption: str
    _card: Card = field(repr=False)
    _chart: Chart = field(repr=False)

    @cached_property
    def svg(self) -> str:
        """The picture.

        Raises
        ------
        ConfigError
            If matplotlib is not installed.
        """
        return draw_figure(self._card, self._chart, "svg").decode("utf-8")

    def save(self, path: str | Path) -> Path:
        """Write the picture into a file.

        Parameters
        ----------
        path : str or Path
            Its ending says the format: ``.png``, ``.svg`` or ``.pdf``.

        Raises
        ------
        ConfigError
            If the format is none of these, or matplotlib is not installed.
        DiskError
            If it cannot be written.
        """
        path = Path(path)
        kind = path.suffix.removeprefix(".").lower()
        if kind not in FORMATS:
            endings = ", ".join(f".{one}" for one in FORMATS)
            raise ConfigError(f"{path} must end in one of {endings}, which says the format")
        return write_atomic(path, draw_figure(self._card, self._chart, kind))

    def __str__(self) -> str:
        return describe(self._chart)

    def _repr_svg_(self) -> str:
        return self.svg


def figures_by_name(cards: Iterable[Card]) -> dict[str, Figure]:
    """Name the figures of a report.

    Parameters
    ----------
    cards : iterable of Card
        Those with a table instead of a chart are left out.
    """
    return {
        name: Figure(name, card.title, card.caption, card, chart)
        for name, card, chart in named_charts(cards)
    }


def chosen(figures: Mapping[str, Figure], name: str) -> Figure:
    """Return a figure by its name.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    if name in figures:
        return figures[name]
    near = get_close_matches(name, figures, n=1, cutoff=0.4)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise ConfigError(f"there is no figure {name}{hint}; there are: {', '.join(figures) or 'none'}")
