"""Counter-based random numbers: the same values looped, stacked, on any device, in any order.

A draw is a hash of (run seed, purpose, round, client, step, counter); nothing is ever advanced.
The hash is the finalizer of splitmix64 (Steele, Lea and Flood, OOPSLA 2014) on wrapping int64.
"""

import hashlib
from contextlib import suppress
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlabels.cohort.context import CONTEXT
from fedlabels.cohort.device import CPU, upload

_GAMMA = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_SMALL = 4096  # values up to which numpy is the faster one


def _signed(value: int) -> int:
    """Return the two's-complement int64 of the lowest 64 bits."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


_U0, _U1, _U2 = map(np.uint64, (_GAMMA, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_U27, _U30, _U31 = np.uint64(27), np.uint64(30), np.uint64(31)
_G1, _G2, _G3 = _signed(_GAMMA), _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Shift right without copying the sign (torch shifts int64 arithmetically)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """Scramble int64 values; a bijection."""
    if x.numel() <= _SMALL and x.device.type == "cpu" and not CONTEXT.inside:
        with suppress(RuntimeError):  # a tensor under vmap cannot be read by numpy
            return _mix_few(x)
    x = x + _G1
    x = (x ^ _shift(x, 30)) * _G2
    x = (x ^ _shift(x, 27)) * _G3
    return x ^ _shift(x, 31)


def _mix_few(x: Tensor) -> Tensor:
    """Scramble a few values: numpy starts an operation in a fraction of the time of torch."""
    y = _mix_array(x.contiguous().numpy().view(np.uint64).reshape(-1))
    return torch.from_numpy(y.view(np.int64)).reshape(x.shape)


def _mix_array(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble the values of an array of at least one axis."""
    y = x + _U0
    y ^= y >> _U30
    y *= _U1
    y ^= y >> _U27
    y *= _U2
    y ^= y >> _U31
    return y


def key_of(seed: int, purpose: str, round_index: int, client_id: int) -> int:
    """Return one client's key as a number; equal to ``Draws.root(...).key``, and faster."""
    base = _mix_one(_base(seed, purpose, round_index) ^ _scaled(client_id))
    return _signed(base)


def folded(key: int, number: int) -> int:
    """Return the key of another stream, as `Draws.fold` does."""
    return _signed(_mix_one((key & _MASK) ^ _scaled(number)))


def shuffles(key: int, count: int, size: int) -> NDArray[np.int64]:
    """Return the orders ``Draws(key).fold(i).permutation(size)`` for i < count, one a row."""
    start = np.array([folded(key, i) & _MASK for i in range(count)], dtype=np.uint64)
    bits = _mix_array(start[:, None] + _counter(size))
    return bits.view(np.int64).argsort(axis=-1, kind="stable")


@lru_cache(maxsize=64)
def _counter(size: int) -> NDArray[np.uint64]:
    return np.arange(size, dtype=np.uint64) * _U0


@lru_cache(maxsize=4096)
def _scaled(number: int) -> int:
    """Return a number as it is mixed into a key."""
    return _mix_one((number * 0xBF58476D1CE4E5B9) & _MASK)


@lru_cache(maxsize=256)
def _base(seed: int, purpose: str, round_index: int) -> int:
    """Mix what is the same for every client."""
    key = _mix_one((seed * _GAMMA ^ purpose_key(purpose)) & _MASK)
    return _mix_one(key ^ _scaled(round_index))


def _mix_one(x: int) -> int:
    """Scramble one number as `_mix` does; Python is faster than a tensor of one entry."""
    x = (x + _GAMMA) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def purpose_key(purpose: str) -> int:
    """Return the signed 64-bit number that stands for a purpose."""
    return _signed(int.from_bytes(hashlib.blake2b(purpose.encode(), digest_size=8).digest(), "big"))


class Draws:
    """A stream of random numbers that is identified by its key alone.

    Parameters
    ----------
    key : Tensor of int64 of any shape, or int
        One stream per entry; the shape of every draw is ``key.shape + shape``. Rows of a draw
        depend on their own counter only: a longer draw begins with the shorter one. A number is
        a key of shape (), folded without any tensor: most streams are never drawn from.
    device : torch.device or None
        Where the numbers of an int key are made; None is the CPU.
    """

    __slots__ = ("_device", "_key", "_number")

    def __init__(self, key: Tensor | int, device: torch.device | None = None) -> None:
        self._number = key if isinstance(key, int) else None
        self._key = None if isinstance(key, int) else key
        self._device = device

    @property
    def key(self) -> Tensor:
        """The key as a tensor of int64."""
        if self._key is None:
            assert self._number is not None  # one of the two is always there
            key = torch.tensor(self._number, dtype=torch.int64, device=CPU)
            self._key = upload(key, self._device or CPU)
        return self._key

    @property
    def number(self) -> int:
        """The key of shape () as a number; waits for the device where it was given as a tensor."""
        return int(self.key) if self._number is None else self._number

    @staticmethod
    def root(seed: int, purpose: str, round_index: int, client_ids: Tensor) -> "Draws":
        """Make one stream per client.

        Parameters
        ----------
        seed : int
            The run's seed.
        purpose : str
            What the numbers are for.
        round_index : int
            Round, from 0.
        client_ids : Tensor of int64, any shape
            Partition numbers.
        """
        # The same for every client, so it is mixed as one number, not as a tensor of them.
        key = _signed(_base(seed, purpose, round_index))
        return Draws(_mix(key ^ _mix(client_ids * _G2)))

    def fold(self, number: int | Tensor) -> "Draws":
        """Return another stream, chosen by a number (or one number per key)."""
        if isinstance(number, int):
            if self._number is not None:
                return Draws(folded(self._number, number), self._device)
            return Draws(_mix(self.key ^ _signed(_scaled(number))))
        return Draws(_mix(self.key ^ _mix(number.to(self.key.device, torch.int64) * _G2)))

    def bits(self, *shape: int) -> Tensor:
        """Return hashed int64 values, shape ``key.shape + shape``, over the whole int64 range."""
        count = 1
        for size in shape:
            count *= size
        counter = torch.arange(count, dtype=torch.int64, device=self.key.device) * _G1
        return _mix(self.key.unsqueeze(-1) + counter).view(*self.key.shape, *shape)

    def uniform(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Return numbers in [0, 1) with 24 random bits: equal in float32 and float64."""
        values = _shift(self.bits(*shape), 40).to(dtype or torch.get_default_dtype())
        return values * 2.0**-24

    def normal(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Return standard normal numbers (Box-Muller; at most 5.9 in magnitude)."""
        radius = self.fold(1).uniform(*shape, dtype=dtype) + 2.0**-25
        angle = self.fold(2).uniform(*shape, dtype=dtype)
        return torch.sqrt(-2.0 * torch.log(radius)) * torch.cos(2.0 * torch.pi * angle)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Return integers in [0, high), for ``high`` far below 2**31 (bias below high / 2**31)."""
        return _shift(self.bits(*shape), 33) % high

    def permutation(self, count: int) -> Tensor:
        """Return a random order of 0 .. count - 1, shape ``key.shape + (count,)``."""
        return self.bits(count).argsort(dim=-1, stable=True)
