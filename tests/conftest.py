"""Settings of all tests, and a guard: a test leaves its process as it found it."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

# A busy machine draws examples slowly, which says nothing of the code.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

# Tests that start many processes: they run beside those that compute in one.
MANY_PROCESSES = (
    "tests/deploy/test_docs.py", "tests/deploy/test_faults.py", "tests/sweep/", "tests/benchmarks/",
    "tests/docs/", "tests/simulation/test_processes.py", "tests/simulation/test_ray",
    "tests/simulation/test_scale.py", "tests/end_to_end/test_command_line.py",
)  # fmt: skip
# Variables that choose cores and kernels, for this process and for those that it starts.
KERNELS = ("FEDLABELS_", "ATEN_", "ONEDNN_", "MKL_", "NPY_", "OMP_", "OPENBLAS_")


def process_state() -> dict[str, Any]:
    """Return what the tests after this one would meet in their process."""
    umask = os.umask(0o077)
    os.umask(umask)
    return {
        "denormals": float(torch.tensor(1e-310, dtype=torch.float64) * 1) > 0,
        "torch threads": torch.get_num_threads(),
        "torch dtype": torch.get_default_dtype(),
        "torch gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "folder": Path.cwd(),
        "umask": umask,
        "kernels": {k: v for k, v in os.environ.items() if k.startswith(KERNELS)},
        "signals": [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
    }


def guard() -> Iterator[None]:
    """Fail what leaves the process otherwise than it was: the next test would be judged by it."""
    before = process_state()
    yield
    after = process_state()
    left = {k: (v, after[k]) for k, v in before.items() if after[k] != v}
    assert not left, f"left otherwise than it was (before, after): {left}"


_of_a_test = pytest.fixture(autouse=True)(guard)
_of_a_module = pytest.fixture(autouse=True, scope="module")(guard)


def pytest_configure() -> None:
    """Hear signals that a background job or ``nohup`` had ignored: tests send them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make test` runs beside all others."""
    for item in items:
        if item.nodeid.startswith(MANY_PROCESSES):
            item.add_marker(pytest.mark.processes)
