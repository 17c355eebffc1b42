"""What Linux says of this process and those that it started: memory, files, who is alive."""

import contextlib
import os
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

PROC = Path("/proc")
PATIENCE = 10.0  # seconds for processes to end
NAMED = 5  # names of what was left behind
WORKER = "ray::_Actor"


def status(pid: int | str) -> dict[str, int]:
    """Return the sizes that a process has, bytes; nothing of one that is gone."""
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines if line.endswith(" kB"))
    return {name: int(value.split()[0]) * 1024 for name, value in pairs}


def descendants() -> dict[int, str]:
    """Return the processes below this one that live, with their titles."""
    parents: dict[int, list[int]] = {}
    for entry in PROC.glob("[0-9]*"):
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue  # no process, or gone by now
        if state != "Z":
            parents.setdefault(int(parent), []).append(int(entry.name))
    found, waiting = {}, [os.getpid()]
    while waiting:
        for pid in parents.get(waiting.pop(), []):
            found[pid] = title(pid)
            waiting.append(pid)
    return found


def survivors(known: Collection[int] = ()) -> list[str]:
    """Return the titles of the processes below this one that do not end in some seconds.

    Parameters
    ----------
    known : collection of int
        Processes that may live.
    """
    end = time.monotonic() + PATIENCE
    while found := {k: v for k, v in descendants().items() if k not in known}:
        if time.monotonic() > end:
            break
        time.sleep(0.1)
    return sorted(found.values())


def title(pid: int) -> str:
    """Return what a process calls itself."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def private() -> int:
    """Return the resident bytes of this process that are its own."""
    return status("self")["RssAnon"]


def memory() -> dict[str, int]:
    """Return resident bytes: of this process, of all workers, and of Ray's shared memory.

    ``peak`` is this process's highest resident size so far, ``worker_peak`` that of the largest
    worker; both count shared pages, too.
    """
    mine, below = status("self"), descendants()
    workers = [status(pid) for pid, name in below.items() if name.startswith(WORKER)]
    raylets = [pid for pid, name in below.items() if "raylet/raylet " in name]
    return {
        "driver": mine["RssAnon"],
        "workers": sum(one.get("RssAnon", 0) for one in workers),
        "store": sum(map(stored, raylets)),
        "peak": mine["VmHWM"],
        "worker_peak": max((one.get("VmHWM", 0) for one in workers), default=0),
    }


def stored(pid: int) -> int:
    """Return the bytes of shared memory behind a process's open files: Ray's object store."""
    found = {}
    for entry in (PROC / str(pid) / "fd").glob("*"):
        with contextlib.suppress(OSError):
            if os.readlink(entry).startswith("/dev/shm/"):
                facts = entry.stat()
                found[facts.st_ino] = facts.st_blocks * 512
    return sum(found.values())


class Leftovers:
    """Compares what there is now with what there is after a run.

    The folder for temporary files must be this process's own.
    """

    def __init__(self) -> None:
        self._files, self._open, self._shared = files(), descriptors(), shared()

    def found(self) -> dict[str, Any]:
        """Return the number of what has come, and a few names; processes get time to end."""
        alive, new, mapped = survivors(), files() - self._files, shared() - self._shared
        return {
            "processes": len(alive),
            "temporary_files": len(new),
            "shared_memory": len(mapped),
            "open_files": descriptors() - self._open,
            "names": sorted([*alive, *new, *mapped])[:NAMED],
        }


def files() -> set[str]:
    """Return everything below the folder of temporary files, but for Ray's empty root."""
    root = Path(tempfile.gettempdir())
    return {str(path.relative_to(root)) for path in root.rglob("*")} - {"ray"}


def shared() -> set[str]:
    """Return the names in shared memory that no other process uses."""
    folder = Path("/dev/shm")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    for entry in PROC.glob("[0-9]*") if names else ():
        with contextlib.suppress(OSError):
            used = (entry / "maps").read_text() if int(entry.name) != os.getpid() else ""
            names = {name for name in names if name not in used}
    return names


def descriptors() -> int:
    """Return the number of open files and sockets."""
    return len(os.listdir(PROC / "self" / "fd"))
