"""What the Ray backend needs beside Ray itself: addresses, folders, versions."""

import os
import platform
import shutil
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import torch

from fedlabels import __version__

REACH_SECONDS = 5.0  # for a cluster to answer at all; Ray itself tries for minutes


def software() -> str:
    """Name what decides the last bits of a result on this machine."""
    kernels = torch.backends.cpu.get_cpu_capability()
    return f"fedlabels {__version__}, torch {torch.__version__}, {platform.machine()} {kernels}"


@contextmanager
def environment_of(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def signals_kept() -> Iterator[None]:
    """Keep what this process does at SIGTERM: Ray, when it starts, has it end the process."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        ours = (before, signal.SIG_DFL)  # the second is ours after a first signal
        here = threading.current_thread() is threading.main_thread()
        if here and before is not None and signal.getsignal(signal.SIGTERM) not in ours:
            signal.signal(signal.SIGTERM, before)


def reach(address: str) -> None:
    """Fail at once where nobody answers.

    Parameters
    ----------
    address : str
        ``"host:port"``, or ``"auto"`` for ``RAY_ADDRESS``; what names no port is left to Ray.

    Raises
    ------
    OSError
        If nobody answers in `REACH_SECONDS`.
    ValueError
        If the port is no number.
    """
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", address)
    parts = urlsplit(address if "//" in address else f"//{address}")
    if parts.hostname and parts.port:
        socket.create_connection((parts.hostname, parts.port), REACH_SECONDS).close()


def remove_session(session: Path) -> None:
    """Remove the folder of a Ray that was stopped, and the link to it."""
    shutil.rmtree(session, ignore_errors=True)
    link = session.parent / "session_latest"
    if link.is_symlink() and not link.exists():
        link.unlink(missing_ok=True)
