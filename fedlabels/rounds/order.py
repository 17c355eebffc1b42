"""What a worker is asked for and what it answers: a contiguous range of a cohort."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedlabels.cohort.types import Reduce, Scalar
from fedlabels.rounds.job import Arrays, ClientRow, Need
from fedlabels.rounds.judge import Form, Votes, counted
from fedlabels.rounds.reduce import Key, Node

Made = tuple[int, int, float, Arrays]
"""Position, client_id, weight and values of one client's term."""


@dataclass(frozen=True)
class Item:
    """One client of a range: its position in the cohort, payload and committed state."""

    position: int
    client_id: int
    own: Mapping[str, Arrays]
    state: Arrays | None


@dataclass(frozen=True)
class Order:
    """A contiguous range of a cohort.

    Parameters
    ----------
    exchange, round, rounds, settings, needs
        Of the job.
    items : tuple of Item
        In ascending position.
    block_size : int
        Stacks never cross a multiple of it.
    cohort : int
        Positions of the whole cohort.
    keep : tuple of str
        Terms that also come back one by one, whatever is needed.
    reveal : bool
        Whether the clients see the hidden labels, too.
    chosen : mapping of int to str
        Executions by group that an earlier range has measured; the others are the worker's choice.
    reduces
        Of the job.
    like : mapping of str to Form
        What terms must look like; of the others the first client of the range decides.
    """

    exchange: str
    round: int
    rounds: int
    settings: Mapping[str, Scalar]
    needs: Mapping[str, Need]
    items: tuple[Item, ...]
    block_size: int
    cohort: int
    keep: tuple[str, ...] = ()
    reveal: bool = False
    chosen: Mapping[int, str] = field(default_factory=dict)
    reduces: Mapping[str, Reduce] = field(default_factory=dict)
    like: Mapping[str, Form] = field(default_factory=dict)


@dataclass
class Report:
    """What a worker sends back for a range.

    Parameters
    ----------
    rows : list of ClientRow
        One per item.
    nodes : dict of term to subtrees
        Of terms needed as sums.
    each : dict of term to list of (position, client_id, weight, Arrays)
        Of terms needed one by one.
    kept : dict of term to list of (position, client_id, weight, Arrays)
        Of terms to keep, whole: with the tensors that never leave a client.
    states : dict of client_id to Arrays
        New states, flat.
    votes : dict of term to forms
        What the clients sent, whether it was taken or not.
    taken : dict of term to set of Form
        What was taken: one form, or more where parts of the range were run by themselves.
    seconds : float
        Time of work.
    chosen : dict of int to str
        Executions by group that were measured.
    """

    rows: list[ClientRow] = field(default_factory=list)
    nodes: dict[str, dict[Key, Node | None]] = field(default_factory=dict)
    each: dict[str, list[Made]] = field(default_factory=dict)
    kept: dict[str, list[Made]] = field(default_factory=dict)
    states: dict[int, Arrays] = field(default_factory=dict)
    votes: Votes = field(default_factory=dict)
    taken: dict[str, set[Form]] = field(default_factory=dict)
    seconds: float = 0.0
    chosen: dict[int, str] = field(default_factory=dict)

    def add(self, other: "Report") -> None:
        """Take in the report of a later part of the same range."""
        self.rows += other.rows
        self.states.update(other.states)
        self.chosen.update(other.chosen)
        self.seconds += other.seconds
        for name, forms in other.taken.items():
            self.taken.setdefault(name, set()).update(forms)
        self.votes = counted([self.votes, other.votes])
        for name, nodes in other.nodes.items():
            self.nodes.setdefault(name, {}).update(nodes)
        for own, others in ((self.each, other.each), (self.kept, other.kept)):
            for name, entries in others.items():
                own.setdefault(name, []).extend(entries)
