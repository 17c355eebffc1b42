"""What the benchmarks have in common: where they ran, and commands that must not take for ever."""

import contextlib
import importlib.metadata
import os
import platform
import signal
import subprocess
from pathlib import Path
from typing import Any

from fedlabels.machine import allowed_cores


def run_limited(command: list[str], environment: dict[str, str], log: Path, limit: float) -> str:
    """Run a command in its log's folder; return what was wrong with its end, or ""."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=log.parent, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(limit)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            return f"took more than {limit} s"
    return f"exit status {code}" if code else ""


def processor() -> str:
    """Return the name of the processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def hardware() -> dict[str, Any]:
    """Return what it ran on."""
    facts = {"machine": platform.machine(), "cores": allowed_cores(), "cpu": processor()}
    with contextlib.suppress(ValueError, OSError, AttributeError):
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        facts["memory_gib"] = round(size / 2**30, 1)
    return facts


def versions() -> dict[str, str]:
    """Return the versions of what took part."""
    found = {"python": platform.python_version()}
    for name in ("fedlabels", "torch", "numpy", "ray", "flwr"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
