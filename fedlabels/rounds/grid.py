"""A Flower grid as the round loop asks for it, whoever is behind it."""

from fedlabels import telemetry

telemetry.disable()  # before Flower is imported

# ruff: noqa: E402
from collections.abc import Mapping

from flwr.serverapp import Grid

from fedlabels.cohort.types import EMPTY, Reduce
from fedlabels.rounds.job import EachTerm, JobResult, Need


class RoundGrid(Grid):
    """A grid as the round loop asks for it, beside what strategies ask of it.

    Attributes
    ----------
    needs : mapping of str to {"sum", "each"}
        How terms come back; set by the run loop.
    reduces : mapping of str to {"mean", "sum"}
        How summed terms are reduced, where the strategy says so; set by the run loop.
    keep : tuple of str
        Terms of which every client's value comes back beside that; set by the run loop.
    last : list of JobResult
        What became of every client in the latest :meth:`send_and_receive`.
    kept : mapping of str to EachTerm
        The terms to keep, of that.
    """

    needs: Mapping[str, Need]
    keep: tuple[str, ...]
    last: list[JobResult]
    kept: Mapping[str, EachTerm] = EMPTY
    reduces: Mapping[str, Reduce] = EMPTY
