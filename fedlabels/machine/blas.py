"""Threads of numpy's linear algebra: a product of matrices has other last bits with others."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
from threadpoolctl import ThreadpoolController

ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "BLIS")} | {
    "VECLIB_MAXIMUM_THREADS": "1"
}
"""Environment of a process whose linear algebra has one thread from its start on."""


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let numpy multiply and decompose on one thread of this process, whatever it was told.

    torch has threads of its own, see `fedlabels.strategies.support.one_thread`.
    """
    with _libraries().limit(limits=1, user_api="blas"):
        yield


def blas() -> str:
    """Name the libraries of linear algebra that numpy has loaded: kind, version, kernels."""
    keys = ("internal_api", "version", "architecture")
    known = [one for one in _libraries().info() if one["user_api"] == "blas"]
    found = {" ".join(str(one[key]) for key in keys if one.get(key)) for one in known}
    return ", ".join(sorted(found)) or "unknown"


@cache
def _libraries() -> ThreadpoolController:
    np.ones((2, 2)) @ np.ones((2, 2))  # looked for among what is loaded
    return ThreadpoolController()
