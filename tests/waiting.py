"""Waiting for what a test has started: for the event itself, however busy the machine is."""

import subprocess
import time
from collections.abc import Callable
from typing import Any

LIMIT = 1800.0  # seconds: only what hangs needs them, a quiet machine a hundredth


def wait_for(
    event: Callable[[], object],
    process: "subprocess.Popen[Any] | None" = None,
    pause: float = 0.05,
) -> None:
    """Return once something is true; fail if the process that is to bring it about has ended."""
    until = time.monotonic() + LIMIT
    while True:
        ended = process is not None and process.poll() is not None  # before the last look
        if event():
            return
        assert not ended, f"ended before it happened: {process and process.communicate()}"
        assert time.monotonic() < until, f"did not happen within {LIMIT:g} s"
        time.sleep(pause)
