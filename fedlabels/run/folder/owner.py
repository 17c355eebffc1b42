"""One process owns a run folder: from before its first write until its report is there.

The lock is the kernel's (``flock``) and ends with the process, however that ends. A file ``.lock``
carries it, says who holds it, and is removed with it.
"""

import contextlib
import json
import logging
import os
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from fedlabels.errors import RunError, writing

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None  # type: ignore[assignment]

LOG = logging.getLogger(__name__)
LOCK = ".lock"
_held = set[int]()


def _let_go() -> None:
    """Close what a forked process has inherited: a lock would live as long as any copy of it."""
    for handle in _held:
        with contextlib.suppress(OSError):
            os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


@contextlib.contextmanager
def owned(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Own a run folder inside the block.

    Parameters
    ----------
    folder : Path
        Made when it does not exist, with those above it, and removed again if nothing came into it.
    wait : bool
        Whether to wait for the process that owns it, which is logged, rather than to fail.

    Raises
    ------
    RunError
        If another process, or this one, owns it already.
    DiskError
        If the folder cannot be written.

    Notes
    -----
    Without ``flock`` (Windows, and file systems that know no locks, which is said) nothing keeps
    a second process out. On NFS it holds between machines, too.
    """
    absent = [path for path in (folder, *folder.parents) if not path.exists()]
    handle = _locked(folder, wait)
    if handle is None:
        yield
        return
    process = os.getpid()
    _held.add(handle)
    try:
        yield
    finally:
        if os.getpid() == process:  # a forked process owns nothing
            with contextlib.suppress(OSError):
                (folder / LOCK).unlink(missing_ok=True)
                for path in absent:
                    path.rmdir()
            _held.discard(handle)
            os.close(handle)


def _locked(folder: Path, wait: bool) -> int | None:
    """Lock the folder's file; None where there are no locks."""
    if fcntl is None:
        return None
    path = folder / LOCK
    while True:
        with writing(path):
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _take(handle, folder, wait)
        except RunError:
            os.close(handle)
            raise
        except OSError as error:
            os.close(handle)
            LOG.warning(
                "%s cannot be locked (%s): take care that no second process uses it",
                folder, error.strerror,
            )  # fmt: skip
            return None
        except BaseException:  # an interrupt while it waits
            os.close(handle)
            raise
        if _is_at(handle, path):
            _sign(handle)
            return handle
        os.close(handle)  # who held it has removed it meanwhile


def _take(handle: int, folder: Path, wait: bool) -> None:
    """Lock a file; who waits says so first: the owner may run for days, on another machine."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            raise RunError(_in_use(folder)) from None
        LOG.warning("%s is in use by %s: waiting until it has ended", folder, _owner(folder))
        fcntl.flock(handle, fcntl.LOCK_EX)


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _sign(handle: int) -> None:
    """Say who owns the folder; on a full disk nobody does, and the lock holds all the same."""
    owner = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().isoformat(" ", "seconds"),
    }
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps(owner).encode())


def _owner(folder: Path) -> str:
    try:
        owner = json.loads((folder / LOCK).read_bytes())
        return f"process {owner['pid']} on {owner['host']}, since {owner['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _in_use(folder: Path) -> str:
    return (
        f"{folder} is in use by {_owner(folder)}: wait until it has ended, or stop it and then"
        " resume; another run needs a folder of its own (run_dir=...)"
    )
