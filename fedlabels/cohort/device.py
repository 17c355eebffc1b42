"""Where tensors live: the choice of a device, what it is told once, copies that wait for nothing.

A client never names a device. Its data, nets and batches are on the cohort's; new tensors go there
too, because its code runs inside `scope`.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from fedlabels.errors import ConfigError

DEVICES = ("auto", "cpu", "cuda")
CPU = torch.device("cpu")


def choose_device(name: str) -> torch.device:
    """Return the device that a setting names.

    Parameters
    ----------
    name : {"auto", "cpu", "cuda"}
        ``"auto"`` is CUDA where torch finds a GPU, else the CPU.

    Raises
    ------
    ConfigError
        If the name is unknown, or CUDA is asked for and torch finds no GPU.
    """
    if name not in DEVICES:
        raise ConfigError(f"device must be one of {', '.join(DEVICES)}, got '{name}'")
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        built = "sees no GPU" if torch.version.cuda else "is built without CUDA"
        raise ConfigError(
            f"device=cuda was asked for, but torch {torch.__version__} {built} in this process; "
            "use device=auto or device=cpu (with backend=ray a worker sees GPUs only if "
            "backend.gpus_per_worker > 0)"
        )
    return torch.device("cuda", 0) if found and name != "cpu" else CPU


def tune(device: torch.device, *, tf32: bool) -> Callable[[], None]:
    """Say once how a GPU multiplies float32; nothing on a CPU.

    Parameters
    ----------
    tf32 : bool
        Products and convolutions of float32 tensors keep 10 bits of the mantissa, which is
        several times faster on GPUs from Ampere on.

    Returns
    -------
    callable
        Puts the settings of this process back.
    """
    if device.type != "cuda":
        return lambda: None
    matmul, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, convolutions.allow_tf32

    def put(products: bool, rest: bool) -> None:
        matmul.allow_tf32, convolutions.allow_tf32 = products, rest

    put(tf32, tf32)
    return lambda: put(*before)


def scope(device: torch.device) -> AbstractContextManager[object]:
    """Let new tensors that name no device be made on this one."""
    return nullcontext() if device.type == "cpu" else device


def upload(value: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the host to a device without waiting for it.

    Only from pinned memory does the host go on while a GPU copies; the block is not used again
    before the copy is over.
    """
    if device.type == "cpu":
        return value
    if device.type == "cuda":
        value = value.pin_memory()
    return value.to(device, non_blocking=True)


def numbers(values: Sequence[Tensor]) -> list[float]:
    """Read scalars: one by one on the CPU, all in one transfer from any other device.

    Parameters
    ----------
    values : sequence of Tensor, each of one entry
        All on one device.
    """
    if not values or values[0].device.type == "cpu":
        return [float(value) for value in values]
    return _in_one(values)


def _in_one(values: Sequence[Tensor]) -> list[float]:
    kinds: dict[torch.dtype, list[int]] = {}
    for place, value in enumerate(values):
        kinds.setdefault(value.dtype, []).append(place)
    # few operations, one a type: each costs the host about as much as all their work
    parts = [torch.stack([values[p].reshape(()) for p in kind]).double() for kind in kinds.values()]
    read = iter(torch.cat(parts).tolist())
    found = {place: next(read) for kind in kinds.values() for place in kind}
    return [found[place] for place in range(len(values))]
