"""How clients with too few samples get some of the largest ones'."""

import numpy as np

from fedlabels.errors import ConfigError
from fedlabels.federation.ragged import Indices, stable_order


def even_out(
    owners: Indices, *, clients: int, min_size: int, random: np.random.Generator
) -> Indices:
    """Move samples from the largest clients to those below a minimum.

    Parameters
    ----------
    owners : ndarray of int64, shape (N,)
        Client of every sample, or -1.
    clients : int
        Number of clients K.
    min_size : int
        Smallest size allowed.
    random : numpy.random.Generator
        Chooses which samples move.

    Returns
    -------
    ndarray of int64, shape (N,)
        New owners; no client falls below the minimum, and no donor below the level to which the
        largest ones are cut.

    Raises
    ------
    ConfigError
        If the dealt samples do not suffice.

    Examples
    --------
    >>> owners = np.array([0, 0, 0, 0, 0, 1, -1])
    >>> random = np.random.default_rng(0)
    >>> evened = even_out(owners, clients=3, min_size=2, random=random)
    >>> np.bincount(evened[evened >= 0]).tolist(), int(evened[-1])
    ([2, 2, 2], -1)
    """
    sizes = np.bincount(owners[owners >= 0], minlength=clients)
    lacking = np.maximum(min_size - sizes, 0)
    need = int(lacking.sum())
    if not need:
        return owners
    if sizes.sum() < clients * min_size:
        raise ConfigError(
            f"min_size={min_size} for {clients} clients takes {clients * min_size} samples, got "
            f"{sizes.sum()}; lower min_size or clients, or set partition.reuse=true"
        )
    taken = _surplus(sizes, need)
    shuffled = random.permutation(len(owners))
    gives = np.append(taken > 0, False)  # the last entry is nobody's, -1
    shuffled = shuffled[gives[owners][shuffled]]
    order = shuffled[stable_order(owners[shuffled], clients)]  # by donor, shuffled within
    held = np.where(taken > 0, sizes, 0)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(held) - held, held)
    moved = order[rank < np.repeat(taken, held)]
    result = owners.copy()
    result[random.permutation(moved)] = np.repeat(np.arange(clients), lacking)
    return result


def _surplus(sizes: Indices, need: int) -> Indices:
    """Take ``need`` samples by lowering the highest clients to a common level."""
    low, high = 0, int(sizes.max())
    while low < high:  # the highest level that frees enough
        level = (low + high + 1) // 2
        if np.maximum(sizes - level, 0).sum() >= need:
            low = level
        else:
            high = level - 1
    taken = np.maximum(sizes - low, 0)
    spare = int(taken.sum()) - need
    # Fewer are spare than clients stand above the level, else the next level would have done.
    taken[np.flatnonzero(taken)[:spare]] -= 1
    return taken
