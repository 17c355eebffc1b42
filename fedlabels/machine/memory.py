"""What a worker asks of the C library's allocator, and how much memory a process has taken."""

import ctypes
import math
import re
import sys
from contextlib import suppress
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
_KEEP = 1 << 30
_LARGEST = 32 << 20  # the most that glibc takes


def keep_memory() -> bool:
    """Let freed memory stay with this process instead of going back to the system.

    Activations are freed and taken again in every step; by default glibc gives large pieces back
    each time, and the system clears the pages when they are touched again, which costs a small net
    some percent of its step. Up to 1 GiB is kept.

    Returns
    -------
    bool
        Whether the allocator took it; False with another C library than glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(_TRIM_THRESHOLD, _KEEP)) and bool(mallopt(_MMAP_THRESHOLD, _LARGEST))
    return False


def peak_memory() -> float:
    """Return the most memory that this process has held, in bytes; nan where it is not known."""
    # not getrusage there: a process begins with the peak of the one that started it
    with suppress(OSError):
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        if peak := re.search(r"VmHWM:\s+(\d+) kB", status):
            return 1024.0 * int(peak[1])
    with suppress(ImportError):  # no such thing on Windows
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return float(unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return math.nan
