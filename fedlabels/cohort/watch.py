"""Tensors that all clients of a worker read: who writes into them is found out."""

from collections.abc import Iterable

from fedlabels.cohort.types import Tree


class Watch:
    """Trees as they are now.

    Writes are seen by the tensors' version counters, which views share; those through ``.data`` or
    a numpy view are not.

    Parameters
    ----------
    trees : iterable of Tree
        What nobody is to write into.
    """

    def __init__(self, trees: Iterable[Tree]) -> None:
        self._trees = list(trees)
        self._known = [
            (tree, name, value, value._version)
            for tree in self._trees
            for name, value in tree.items()
        ]

    def written(self) -> str | None:
        """Name a tensor that was written to or replaced since; None without any."""
        for tree, name, value, version in self._known:
            if tree.get(name) is not value or value._version != version:
                return name
        return None if sum(map(len, self._trees)) == len(self._known) else "a new one"
