"""How well the global model serves each client, from its class mix and the recall by class."""

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]


def client_accuracy(total: NDArray[np.int64], recall: Column) -> Column:
    """Return the accuracy to expect on test samples with each client's class mix.

    It takes a client's samples of a class for as hard as those of the test set: what it says is
    whose classes the model knows, not how unusual a client's samples are.

    Parameters
    ----------
    total : ndarray, shape (clients, classes)
        Samples of known class by their true class.
    recall : ndarray, shape (classes,)
        Share of a class's test samples that the model finds; NaN where it was not measured. Such a
        class is left out of the mix of those that hold it.

    Returns
    -------
    ndarray, shape (known clients,)
        In [0, 1], in the order of the clients; those without samples of a class with a recall are
        left out.

    Examples
    --------
    >>> client_accuracy(np.array([[3, 1], [0, 0]]), np.array([1.0, 0.5])).tolist()
    [0.875]
    """
    measured = np.isfinite(recall)
    held = total[:, measured].astype(np.float64)
    sizes = held.sum(axis=1)
    known = sizes > 0
    return np.asarray(held[known] @ recall[measured] / sizes[known])
