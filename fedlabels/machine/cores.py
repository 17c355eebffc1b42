"""How many cores this process may use: of the machine, of its container, of its sweep."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from fedlabels.errors import ConfigError

SHARE = "FEDLABELS_CORES"
"""Environment variable: cores of this process at most; a sweep sets it for its cells."""

_GROUPS = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")


def allowed_cores() -> int:
    """Return how many cores may be used, >= 1.

    The least of: the cores that the system lets this process run on (its affinity, as ``taskset``,
    Slurm and cpusets set it), the whole cores of a container's quota of time, and `SHARE`.

    Raises
    ------
    ConfigError
        If `SHARE` is no number of cores.
    """
    limits = [_affinity(), quota(_GROUPS, _MOUNT), share_of_cores()]
    return max(1, min(limit for limit in limits if limit is not None))


def share_of_cores() -> int | None:
    """Return the cores that `SHARE` leaves to this process, >= 1; None where it does not say.

    Raises
    ------
    ConfigError
        If it is no number of cores.
    """
    text = os.environ.get(SHARE, "")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal()):
        raise ConfigError(
            f"{SHARE}={text!r} in the environment must be a whole number of cores, such as 2; unset"
            " it to use all that there are"
        )
    return max(1, int(text))


def _affinity() -> int:
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def quota(groups: Path, mount: Path) -> int | None:
    """Return the whole cores that the control groups of a process give it, None for any number.

    Parameters
    ----------
    groups : Path
        Which groups it is in, as ``/proc/self/cgroup`` tells.
    mount : Path
        Where they are mounted, ``/sys/fs/cgroup``.

    Notes
    -----
    A group has no more than those above it. A container may see only what is below its own group:
    then that is the mount itself. Formats: Linux, Documentation/admin-guide, cgroup-v2 (cpu.max)
    and cgroup-v1 (cpu.cfs_quota_us).
    """
    found = []
    with contextlib.suppress(OSError):
        for line in groups.read_text(encoding="utf-8").splitlines():
            number, controllers, path = line.split(":", 2)
            if number == "0" and not controllers:
                found += [_v2(folder) for folder in _upwards(mount, path)]
            elif "cpu" in controllers.split(","):
                for root in (mount / controllers, mount / "cpu"):
                    found += [_v1(folder) for folder in _upwards(root, path)]
    limits = [limit for limit in found if limit is not None]
    return max(1, int(min(limits))) if limits else None


def _upwards(root: Path, path: str) -> Iterator[Path]:
    """Yield the folder of a group and those above it."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for length in range(len(parts), -1, -1):
        yield root.joinpath(*parts[:length])


def _v2(folder: Path) -> float | None:
    with contextlib.suppress(OSError, ValueError):
        time, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        return None if time == "max" else int(time) / int(period)
    return None


def _v1(folder: Path) -> float | None:
    with contextlib.suppress(OSError, ValueError):
        time = int((folder / "cpu.cfs_quota_us").read_text(encoding="utf-8"))
        period = int((folder / "cpu.cfs_period_us").read_text(encoding="utf-8"))
        return time / period if time > 0 else None
    return None
