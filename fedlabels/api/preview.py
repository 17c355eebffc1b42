"""A look at a federation before anything runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from fedlabels import preview
from fedlabels.api.figure import Figure, chosen, figures_by_name
from fedlabels.errors import ConfigError
from fedlabels.federation import Federation
from fedlabels.report.blocks import facts
from fedlabels.report.markup import el
from fedlabels.report.single.data import holdings_figures
from fedlabels.settings.overrides import overrides_of


@dataclass(frozen=True)
class Look:
    """Who would hold what.

    Parameters
    ----------
    federation : Federation
        Samples and labels by client.
    facts : dict of str to str
        Its numbers with their names.
    notes : sequence of str
        What is suspicious, a sentence each.
    """

    federation: Federation
    facts: dict[str, str]
    notes: Sequence[str]
    _seen: preview.Look = field(repr=False)

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """The figures of the preview, by name."""
        seen = self._seen
        return figures_by_name(holdings_figures(seen.holdings(), list(seen.train.class_names)))

    def figure(self, name: str = "samples-by-client") -> Figure:
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

    def _repr_html_(self) -> str:
        listed = el("ul", [el("li", note) for note in self.notes]) if self.notes else None
        return str(el("div", facts(list(self.facts.items())), listed))


def look(**settings: Any) -> Look:
    """Deal a federation as a run would, and say what is suspicious about it; nothing is trained.

    Parameters
    ----------
    **settings
        As for :func:`fedlabels.simulate`.

    Raises
    ------
    FedLabelsError
        If a setting is not allowed or data are missing.
    """
    try:
        seen = preview.dealt(overrides_of(settings))
    except ConfigError as error:
        raise error from None
    return Look(seen.federation, dict(seen.pairs), seen.notes, seen)
