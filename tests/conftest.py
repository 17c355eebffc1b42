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
    "tests/command/", "tests/docs/", "tests/simulation/test_processes.py",
    "tests/simulation/test_ray", "tests/simulation/test_scale.py",
    "tests/end_to_end/test_command_line.py",
)  # fmt: skip
# Unit tests that take seconds: `make fast` leaves them out.
SLOW = (
    "tests/clients/test_fedbn.py::TestEvaluation",
    "tests/clients/test_fedlabel.py::test_switched_off_it_is_fedavg_bit_for_bit",
    "tests/cohort/test_device.py", "tests/cohort/test_graphed.py", "tests/machine/test_kernels.py",
    "tests/data/test_reader_icons.py::test_module_runs_without_a_warning",
    "tests/models/test_wsconv.py",
    "tests/report/test_browser.py", "tests/report/test_figure_files.py",
    "tests/rounds/test_judge.py::test_a_malformed_result_is_rejected_by_name",
    "tests/rounds/test_judge.py::test_most_clients_decide_for_any_number_of_workers",
    "tests/settings/test_reference.py::test_every_key_of_every_composed_config_is_on_the_page",
    "tests/strategies/test_stock.py",
    "tests/strategies/test_stock_values.py::test_a_foreign_order_changes_nothing",
    "tests/test_layers.py::test_clients_run_without_flower_ray_and_hydra",
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
    """Mark what `make test` runs beside all others, and what `make fast` leaves out."""
    for item in items:
        if item.nodeid.startswith(MANY_PROCESSES):
            item.add_marker(pytest.mark.processes)
        if item.nodeid.startswith(SLOW):
            item.add_marker(pytest.mark.slow)
