"""Labels at the server: clients hold what nobody has labeled."""

from dataclasses import dataclass

import numpy as np

from fedlabels.errors import ConfigError
from fedlabels.federation.labels import POLICIES, Mask, Shuffled
from fedlabels.federation.policies.uniform import Uniform
from fedlabels.federation.ragged import Ragged, stable_order
from fedlabels.federation.registry import check_count, register


@register(POLICIES, "server")
@dataclass(frozen=True, kw_only=True)
class Server(Uniform):
    """Move the same number of samples of each class, labeled, from the clients to the server.

    The labels-at-server scenario of FedMatch (arXiv 2006.12097) and SemiFL (arXiv 2106.01432).

    Parameters
    ----------
    per_class : int
        Samples of each class at the server, >= 1, drawn over all clients; all where there are
        fewer.
    fraction : float
        Share of labeled samples of the clients, in [0, 1].
    """

    per_class: int
    fraction: float | None = 0.0

    def __post_init__(self) -> None:
        if self.total is not None:
            raise ConfigError(
                f"labels.total={self.total} counts labels at clients, and labels=server moves "
                "labels.per_class of each class to the server; give these, and leave labels.total"
            )
        super().__post_init__()
        check_count("per_class", self.per_class, low=1)

    def at_server(self, shuffled: Shuffled, random: np.random.Generator) -> Mask:
        """Mark the entries that lie at the server; see :class:`LabelPolicy`."""
        order = random.permutation(len(shuffled.rank))
        _, first = np.unique(shuffled.shards.index[order], return_index=True)
        order = order[np.sort(first)]  # under reuse a sample has several entries
        classes = shuffled.classes[order]
        order = order[stable_order(classes, shuffled.samples.num_classes)]
        sizes = np.bincount(classes, minlength=shuffled.samples.num_classes)
        groups = Ragged(order, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
        place = np.arange(len(order)) - np.repeat(groups.offsets[:-1], groups.sizes)
        marks = np.zeros(len(shuffled.rank), dtype=bool)
        marks[order[place < self.per_class]] = True
        return marks
