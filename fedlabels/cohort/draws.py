"""Counter-based random numbers: the same values looped, stacked, on any device, in any order.

A draw is a hash of (run seed, purpose, round, client, step, counter); nothing is ever advanced.
The hash is the finalizer of splitmix64 (Steele, Lea and Flood, OOPSLA 2014) on wrapping int64.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

_GAMMA = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def _signed(value: int) -> int:
    """Return the two's-complement int64 of the lowest 64 bits."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


_G1, _G2, _G3 = _signed(_GAMMA), _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Shift right without copying the sign (torch shifts int64 arithmetically)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """Scramble int64 values; a bijection."""
    x = x + _G1
    x = (x ^ _shift(x, 30)) * _G2
    x = (x ^ _shift(x, 27)) * _G3
    return x ^ _shift(x, 31)


def purpose_key(purpose: str) -> int:
    """Return the signed 64-bit number that stands for a purpose."""
    return _signed(int.from_bytes(hashlib.blake2b(purpose.encode(), digest_size=8).digest(), "big"))


@dataclass(frozen=True)
class Draws:
    """A stream of random numbers that is identified by its key alone.

    Parameters
    ----------
    key : Tensor of int64, any shape
        One stream per entry; the shape of every draw is ``key.shape + shape``. Rows of a draw
        depend on their own counter only: a longer draw begins with the shorter one.
    """

    key: Tensor

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
        base = torch.full_like(client_ids, _signed(seed * _GAMMA))
        draws = Draws(_mix(base ^ purpose_key(purpose)))
        return draws.fold(round_index).fold(client_ids)

    def fold(self, number: int | Tensor) -> "Draws":
        """Return another stream, chosen by a number (or one number per key)."""
        other = torch.as_tensor(number, dtype=torch.int64, device=self.key.device)
        return Draws(_mix(self.key ^ _mix(other * _G2)))

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
