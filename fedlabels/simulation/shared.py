"""What all clients of a range read: the server's payloads as tensors, watched for writes."""

from collections.abc import Mapping

import torch

from fedlabels.cohort.types import Tree
from fedlabels.simulation.convert import tensors
from fedlabels.simulation.job import Arrays


class Shared:
    """Payloads on a device.

    A client that writes into them, because it forgot ``cohort.start``, would train on from there
    for all clients after it. Writes are seen by the tensors' version counters, which views share;
    those through ``.data`` or a numpy view are not.

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
        self._known = [
            (tree, name, value, value._version)
            for tree in self.trees.values()
            for name, value in tree.items()
        ]
        self._entries = sum(map(len, self.trees.values()))

    def restore_if_written(self) -> None:
        """Copy them anew after a client that failed, if it had written to them."""
        if self.written() is not None:
            self.restore()

    def written(self) -> str | None:
        """Name a tensor that was written to or replaced since; None without any."""
        for tree, name, value, version in self._known:
            if tree.get(name) is not value or value._version != version:
                return name
        return None if sum(map(len, self.trees.values())) == self._entries else "a new one"
