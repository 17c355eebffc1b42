"""Who simulates whom: clients, their model, their group."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlabels.cohort import Client
from fedlabels.cohort.types import EMPTY


@dataclass(frozen=True)
class Group:
    """Clients that run the same code on the same architecture; only they are ever stacked.

    Parameters
    ----------
    client : Client
        The method's client.
    model : str
        Name of the model.
    settings : mapping
        Settings of the model.
    """

    client: Client
    model: str
    settings: Mapping[str, Any] = field(default_factory=lambda: EMPTY)


@dataclass(frozen=True)
class Population:
    """Maps every client_id to its group.

    Parameters
    ----------
    groups : tuple of Group
        At least one; the first one's model is the global one.
    members : ndarray of int64, shape (clients,)
        Group of every client.
    """

    groups: tuple[Group, ...]
    members: NDArray[np.int64]

    @staticmethod
    def uniform(group: Group, clients: int) -> "Population":
        """Return a population of one group."""
        return Population((group,), np.zeros(clients, dtype=np.int64))
