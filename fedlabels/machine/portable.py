"""One set of instructions on all x86-64 machines: kernels are pinned before torch and numpy load.

Libraries choose their kernels by the processor, and kernels differ in the order of additions.
"""

import contextlib
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

from fedlabels.errors import ConfigError

_CPUINFO = Path("/proc/cpuinfo")


def environment() -> dict[str, str]:
    """Return the variables that pin the kernels of torch, oneDNN, MKL, numpy and OpenBLAS to AVX2.

    Notes
    -----
    MKL has one level that processors of every maker follow: ``COMPATIBLE`` (Intel, oneMKL
    Developer Guide, conditional numerical reproducibility). numpy's names of features are those of
    its release.
    """
    major, minor = (int(part) for part in version("numpy").split(".")[:2])
    old = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"
    above = "X86_V4 AVX512_ICL AVX512_SPR" if (major, minor) >= (2, 4) else old
    return {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "DNNL_MAX_CPU_ISA": "AVX2",
        "MKL_CBWR": "COMPATIBLE",
        "NPY_DISABLE_CPU_FEATURES": above,
        "OPENBLAS_CORETYPE": "Haswell",
    }


def pinned() -> bool:
    """Say whether this process was started with the variables of `environment`."""
    return all(_STARTED.get(name) == value for name, value in environment().items())


def instructions() -> frozenset[str]:
    """Return the flags of the processor, empty where the system does not list them."""
    with contextlib.suppress(OSError):
        for line in _CPUINFO.read_text(encoding="utf-8").splitlines():
            name, _, flags = line.partition(":")
            if name.strip() in ("flags", "Features"):
                return frozenset(flags.split())
    return frozenset()


def check_processor() -> None:
    """Refuse a processor without the instructions that are pinned.

    Raises
    ------
    ConfigError
        If it is no x86-64 processor, or has no AVX2.
    """
    machine = platform.machine()
    if machine not in ("x86_64", "AMD64"):
        raise ConfigError(
            f"backend.portable=true pins instruction sets of x86-64, this machine is {machine}: "
            "set backend.portable=false"
        )
    if not {"avx2", "fma"} <= instructions():
        raise ConfigError(
            "backend.portable=true needs AVX2 and FMA, which this machine's processor does not say "
            "it has: set backend.portable=false"
        )


def check_pinned() -> None:
    """Refuse a process whose kernels are not pinned.

    Raises
    ------
    ConfigError
        If the variables were not set when the process began.
    """
    check_processor()
    if not pinned():
        variables = " ".join(f"{name}='{value}'" for name, value in environment().items())
        raise ConfigError(
            "backend.portable=true counts from the start of a process on: run it with run_sim.py, "
            f"or start this program with {variables}"
        )


def restart() -> None:
    """Start this program again with pinned kernels; return if they are.

    Raises
    ------
    ConfigError
        See `check_processor`.
    """
    check_processor()
    if not pinned():
        sys.stdout.flush()
        arguments = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, arguments, {**os.environ, **environment()})


# As it was when the program began to load: what is set later comes too late for libraries.
_STARTED = dict(os.environ)
