"""Which kernels compute here: equal settings have equal bits only where these are equal."""

import contextlib
import os
import platform
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedlabels.machine.blas import blas
from fedlabels.machine.cores import allowed_cores
from fedlabels.machine.portable import instructions, pinned

_TOLD = (
    "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "asimd", "sve",
    "bf16",
)  # fmt: skip
_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}


def hardware(threads: int = 1) -> dict[str, Any]:
    """Return what a run computes on, for its manifest.

    Parameters
    ----------
    threads : int
        torch threads of a worker.
    """
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA")
    found = instructions()
    return {
        "machine": platform.machine(),
        "cores": allowed_cores(),
        "cpu": processor(),
        "instructions": " ".join(name for name in _TOLD if name in found),
        "aten": torch.backends.cpu.get_cpu_capability(),
        "onednn": limit or "none",
        "mkl": os.environ.get("MKL_CBWR") or "none",
        "numpy_off": os.environ.get("NPY_DISABLE_CPU_FEATURES") or "none",
        "blas": blas(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "threads": threads,
        "portable": pinned(),
    }


def processor() -> str:
    """Return the name of the processor."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def has_bfloat16() -> bool:
    """Say whether the processor calculates in bfloat16, and may: kernels can be pinned below."""
    limited = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in ("SSE41", "AVX", "AVX2")
    return bool(_BF16 & instructions()) and not limited


def cost_of_bfloat16() -> float:
    """Measure a step of a small convolutional net: time in bfloat16 over time in float32."""
    image = torch.linspace(-1, 1, 16 * 16 * 16 * 16).reshape(16, 16, 16, 16)
    kernel = torch.linspace(-1, 1, 32 * 16 * 9).reshape(32, 16, 3, 3).requires_grad_()
    head = torch.linspace(-1, 1, 64 * 32 * 14 * 14).reshape(64, -1).requires_grad_()

    def step() -> None:
        features = torch.conv2d(image, kernel).relu().flatten(1)
        loss: Tensor = (features @ head.t()).float().square().mean()
        torch.autograd.grad(loss, [kernel, head])

    def seconds(low: bool) -> float:
        best = float("inf")
        for _ in range(4):  # the first one prepares
            began = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                step()
            best = min(best, time.perf_counter() - began)
        return best

    with torch.enable_grad():
        return seconds(True) / seconds(False)
