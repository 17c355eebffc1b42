"""Seeds for numpy generators: one tree keyed by what the draw is for.

Randomness is never state: a generator is made anew from the run's seed and a path of words and
numbers, such as ``generator(seed, "sample", round_index)``.
"""

import hashlib

import numpy as np


def generator(seed: int, *path: str | int) -> np.random.Generator:
    """Make the generator that belongs to a purpose.

    Parameters
    ----------
    seed : int
        The run's seed, >= 0.
    *path : str or int
        What the draws are for. The same path gives the same stream on every machine.

    Returns
    -------
    numpy.random.Generator
        PCG64 seeded through ``SeedSequence``.

    Raises
    ------
    ValueError
        If the seed is negative.

    Examples
    --------
    >>> first, again = (generator(0, "sample", 3).integers(1000) for _ in range(2))
    >>> bool(first == again)
    True
    """
    if seed < 0:
        raise ValueError(f"seed must be >= 0, got {seed}")
    text = "\x1f".join(f"{type(p).__name__}:{p}" for p in path).encode()
    words = np.frombuffer(hashlib.blake2b(text, digest_size=16).digest(), dtype="<u4")
    return np.random.default_rng(np.random.SeedSequence([seed, *words.tolist()]))
