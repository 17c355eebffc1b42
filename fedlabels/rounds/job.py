"""What goes from the grid to a backend and back: plain values, numpy only, nothing of Flower."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fedlabels.cohort.types import EMPTY, Reduce, Scalar

Arrays = dict[str, NDArray[Any]]
"""State-dict names -> array."""

Need = Literal["sum", "each"]
Status = Literal["ok", "empty", "failed", "rejected"]


@dataclass(frozen=True)
class Task:
    """One client's part of a job.

    Parameters
    ----------
    client_id : int
        The partition's number, >= 0.
    own : mapping of str to Arrays
        Payloads of this client alone.
    """

    client_id: int
    own: Mapping[str, Arrays] = field(default_factory=lambda: EMPTY)


@dataclass(frozen=True)
class Job:
    """One exchange with some clients.

    Parameters
    ----------
    exchange : str
        Name of the exchange, such as ``"train"`` or ``"evaluate"``.
    round : int
        Round index, from 1.
    rounds : int
        Rounds planned.
    tasks : tuple of Task
        The clients, by client_id.
    shared : mapping of str to Arrays
        Payloads that are the same for all, ``"model"`` among them. Read only.
    settings : mapping of str to Scalar
        Scalars sent along.
    needs : mapping of str to {"sum", "each"}
        Per term: reduced where it is made, or every client's value.
    reduces : mapping of str to {"mean", "sum"}
        How the strategy reduces terms, where it says so; a client that says otherwise is rejected.
    keep : tuple of str
        Terms of which every client's value comes back, too, whole: with the tensors that never
        leave a client. In simulation only; nothing else of the result depends on it.
    reveal : bool
        Whether the clients see the hidden labels, too; in simulation only.
    """

    exchange: str
    round: int
    rounds: int
    tasks: tuple[Task, ...]
    shared: Mapping[str, Arrays]
    settings: Mapping[str, Scalar] = field(default_factory=lambda: EMPTY)
    needs: Mapping[str, Need] = field(default_factory=lambda: EMPTY)
    reduces: Mapping[str, Reduce] = field(default_factory=lambda: EMPTY)
    keep: tuple[str, ...] = ()
    reveal: bool = False


@dataclass
class ClientRow:
    """What became of one client.

    Parameters
    ----------
    client_id : int
        The partition's number.
    status : {"ok", "empty", "failed", "rejected"}
        ``"empty"``: took part, but has no terms or weight 0; ``"failed"``: raised, or its worker
        died; ``"rejected"``: what it returned cannot be used, see `fedlabels.rounds.judge`.
    error : str or None
        Why it failed or was rejected.
    weight : float
        Number of examples, >= 0.
    metrics : dict of str to (float, float)
        Name -> (sum, count).
    bytes_up, bytes_down : int
        Bytes of arrays that this client would send and receive.
    """

    client_id: int
    status: Status
    error: str | None = None
    weight: float = 0.0
    metrics: dict[str, tuple[float, float]] = field(default_factory=dict)
    bytes_up: int = 0
    bytes_down: int = 0


@dataclass
class SumTerm:
    """A term summed over clients.

    Parameters
    ----------
    total : Arrays
        Sum of weight times value, float64.
    weight : float or Arrays
        Sum of the weights; arrays (float64) broadcast to the entries of each tensor.
    reduce : {"mean", "sum"}
        What :meth:`value` makes of it.
    count : int
        Clients in it.
    """

    total: Arrays
    weight: float | Arrays
    reduce: Reduce = "mean"
    count: int = 0

    def value(self, keep: Mapping[str, NDArray[Any]] | None = None) -> Arrays:
        """Reduce to one value per tensor.

        Parameters
        ----------
        keep : mapping of str to ndarray or None
            What the entries of a mean that nobody has a weight for are set to, such as the
            server's values; without it, or where it has no such name, they are 0.

        Returns
        -------
        Arrays
            float64: ``total`` of a sum, ``total / weight`` of a mean. Never nan by division.
        """
        if self.reduce == "sum":
            return {name: total.copy() for name, total in self.total.items()}
        kept = {} if keep is None else keep
        return {
            name: _mean(total, self._weight_of(name), kept.get(name))
            for name, total in self.total.items()
        }

    def has_weight(self) -> bool:
        """Whether anybody has a weight for any entry; a sum has one as soon as it has a client."""
        if not self.total:
            return False
        if self.reduce == "sum":
            return self.count > 0
        if isinstance(self.weight, Mapping):
            return any(bool(np.any(w > 0)) for w in self.weight.values())
        return self.weight > 0

    def _weight_of(self, name: str) -> NDArray[np.float64]:
        weight = self.weight[name] if isinstance(self.weight, Mapping) else self.weight
        return np.asarray(weight, dtype=np.float64)


@dataclass
class EachTerm:
    """A term of every client, stacked.

    Parameters
    ----------
    client_ids : list of int
        Clients in the order of the rows.
    values : Arrays
        Per tensor one array of shape (clients, ...), in the dtype it was made in.
    weights : list of float
        One per client.
    """

    client_ids: list[int]
    values: Arrays
    weights: list[float]

    def row(self, index: int) -> Arrays:
        """Return views of one client's tensors."""
        # The ellipsis keeps the row of a 0-d tensor an array.
        return {name: value[index, ...] for name, value in self.values.items()}


@dataclass
class JobResult:
    """What a backend returns.

    Parameters
    ----------
    rows : list of ClientRow
        One per task, by client_id.
    sums : dict of str to SumTerm
        Terms needed as ``"sum"``; a term that nobody made is absent.
    each : dict of str to EachTerm
        Terms needed as ``"each"``, without clients that made none.
    kept : dict of str to EachTerm
        Terms to keep, of the clients that count.
    seconds : dict of str to float
        Wall clock by phase.
    """

    rows: list[ClientRow]
    sums: dict[str, SumTerm] = field(default_factory=dict)
    each: dict[str, EachTerm] = field(default_factory=dict)
    kept: dict[str, EachTerm] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


class Backend(Protocol):
    """Runs jobs: in this process, or on workers."""

    def run(self, job: Job) -> JobResult:
        """Run a job to its end; a client that fails is a row, not an exception."""
        ...

    def close(self) -> None:
        """Free what the backend holds; a second call does nothing."""
        ...


def num_bytes(arrays: Mapping[str, NDArray[Any]]) -> int:
    """Count the bytes of named arrays.

    Examples
    --------
    >>> num_bytes({"w": np.zeros((2, 3), np.float32)})
    24
    """
    return sum(int(value.nbytes) for value in arrays.values())


def _mean(
    total: NDArray[Any], weight: NDArray[np.float64], keep: NDArray[Any] | None
) -> NDArray[np.float64]:
    mean = np.zeros(total.shape) if keep is None else np.array(keep, dtype=np.float64)
    np.divide(total, weight, out=mean, where=np.broadcast_to(weight > 0, total.shape))
    return mean
