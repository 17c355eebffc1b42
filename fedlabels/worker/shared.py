"""What all clients of a range read: the server's payloads as tensors, watched for writes."""

from collections.abc import Mapping

import torch

from fedlabels.cohort.types import Tree
from fedlabels.cohort.watch import Watch
from fedlabels.rounds.job import Arrays
from fedlabels.worker.convert import tensors


class Shared:
    """Payloads on a device.

    A client that writes into them, because it forgot ``cohort.start``, would train on from there
    for all clients after it; see `Watch` for what is seen.

    Parameters
    ----------
    arrays : mapping of str to Arrays
        The payloads; copied.
    device : torch.device
        Where the tensors are.

    Attributes
    ----------
    trees : dict of str to Tree
        What clients get.
    """

    def __init__(self, arrays: Mapping[str, Arrays], device: torch.device) -> None:
        self._arrays, self._device = arrays, device
        self.trees: dict[str, Tree] = {}
        self.restore()

    def restore(self) -> None:
        """Copy the payloads anew."""
        self.trees = {k: tensors(tree, self._device) for k, tree in self._arrays.items()}
        self._watch = Watch(self.trees.values())

    def written(self) -> str | None:
        """Name a tensor that was written to or replaced since; None without any."""
        return self._watch.written()
