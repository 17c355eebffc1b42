"""How the machines of two runs differ in what decides the last bits, by their manifests."""

from collections.abc import Mapping
from typing import Any

DECIDES = {
    "cpu": "processors",
    "instructions": "instruction sets",
    "aten": "kernels of torch",
    "onednn": "limits of oneDNN",
    "mkl": "modes of MKL",
    "numpy_off": "kernels that numpy leaves out",
    "blas": "linear algebra of numpy",
    "torch": "versions of torch",
    "numpy": "versions of numpy",
    "threads": "torch threads",
}
"""Facts of a manifest's hardware that decide the last bits, and how they are called."""


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """List how two runs' hardware differs in what decides the last bits.

    Parameters
    ----------
    one, other : mapping
        Of manifests; what either does not say is not compared.

    Returns
    -------
    list of str
        ``"kernels of torch: AVX2 -> AVX512"``. With pinned kernels in both, the processor and
        its instruction sets decide nothing.
    """
    both = bool(one.get("portable")) and bool(other.get("portable"))
    names = [name for name in DECIDES if not (both and name in ("cpu", "instructions"))]
    return [
        f"{DECIDES[name]}: {one[name]} -> {other[name]}"
        for name in names
        if name in one and name in other and one[name] != other[name]
    ]
