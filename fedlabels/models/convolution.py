"""A convolution that is also fast for many clients at once, each with weights of its own.

Stacked, torch computes one grouped convolution with a group a client, which on GPUs can be slower
than the convolutions one by one. The other way lays the patches out (im2col) and multiplies: one
batched product, one matrix a client. Which one is faster depends on shapes and chip, so on a GPU
each shape is timed once; on a CPU the grouped convolution is taken.
"""

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn import functional

from fedlabels.cohort.context import CONTEXT
from fedlabels.cohort.probe import fastest, seconds

PLAIN, PATCHES = "grouped", "patches"
_FORCED: ContextVar[str | None] = ContextVar("convolution", default=None)

Pair = tuple[int, int]


class Conv2d(nn.Conv2d):
    """``torch.nn.Conv2d``, with a second way for stacks of clients."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if CONTEXT.clients > 1 and self._lowering(input) == PATCHES:
            stride = (self.stride[0], self.stride[1])
            padding = (int(self.padding[0]), int(self.padding[1]))
            return by_patches(input, weight, bias, stride, padding)
        out: Tensor = super()._conv_forward(input, weight, bias)
        return out

    def _lowering(self, x: Tensor) -> str:
        forced = _FORCED.get()
        if self.groups != 1 or self.dilation != (1, 1) or self.padding_mode != "zeros":
            return PLAIN
        if isinstance(self.padding, str) or (forced is None and x.device.type != "cuda"):
            return PLAIN
        if forced is not None:
            return forced
        shape = Shape(
            CONTEXT.clients, tuple(x.shape), tuple(self.weight.shape), self.stride[0],
            self.stride[1], int(self.padding[0]), int(self.padding[1]), x.dtype, x.device,
            torch.is_autocast_enabled(x.device.type), self.training,
        )  # fmt: skip
        return chosen(shape)


@contextmanager
def forced(lowering: str) -> Iterator[None]:
    """Take one way for all stacked convolutions inside, on any device.

    Parameters
    ----------
    lowering : {"grouped", "patches"}
    """
    token = _FORCED.set(lowering)
    try:
        yield
    finally:
        _FORCED.reset(token)


def by_patches(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair = (1, 1), padding: Pair = (0, 0)
) -> Tensor:
    """Convolve by a product of patches and weights.

    Parameters
    ----------
    x : Tensor, shape (batch, channels, height, width)
    weight : Tensor, shape (outputs, channels, kernel height, kernel width)
    bias : Tensor or None, shape (outputs,)
    stride, padding : pair of int
        Along height and width.

    Returns
    -------
    Tensor, shape (batch, outputs, rows, columns)
    """
    outputs, _, high, wide = weight.shape
    if any(padding):
        x = functional.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    rows = (x.shape[2] - high) // stride[0] + 1
    columns = (x.shape[3] - wide) // stride[1] + 1
    patches: Tensor = _Patches.apply(x, (high, wide), stride)  # type: ignore[no-untyped-call]
    # channels last, as the weights lie: no copy
    flat = weight.permute(0, 2, 3, 1).reshape(outputs, -1)
    made = patches @ flat.t()
    if bias is not None:
        made = made + bias
    return made.view(x.shape[0], rows, columns, outputs).permute(0, 3, 1, 2)


class _Patches(torch.autograd.Function):
    """(batch, channels, height, width) -> (batch * rows * columns, kernel area * channels)."""

    @staticmethod
    def forward(x: Tensor, kernel: Pair, stride: Pair) -> Tensor:
        windows = x.unfold(2, kernel[0], stride[0]).unfold(3, kernel[1], stride[1])
        area = kernel[0] * kernel[1] * x.shape[1]
        return windows.permute(0, 2, 3, 4, 5, 1).reshape(-1, area)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, *ctx.geometry = inputs
        ctx.shape = tuple(x.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Overlap.apply(gradient, ctx.shape, *ctx.geometry), None, None  # type: ignore[no-untyped-call]

    @staticmethod
    def vmap(info: Any, dims: Any, x: Tensor, kernel: Pair, stride: Pair) -> Any:
        x = x.movedim(dims[0], 0)
        made: Tensor = _Patches.apply(x.flatten(0, 1), kernel, stride)  # type: ignore[no-untyped-call]
        return made.view(x.shape[0], -1, made.shape[1]), 0


class _Overlap(torch.autograd.Function):
    """The other way round: every patch is added where it was taken from."""

    @staticmethod
    def forward(patches: Tensor, shape: tuple[int, ...], kernel: Pair, stride: Pair) -> Tensor:
        batch, channels, height, width = shape
        rows, columns = (height - kernel[0]) // stride[0] + 1, (width - kernel[1]) // stride[1] + 1
        cut = patches.reshape(batch, rows, columns, *kernel, channels)
        out = patches.new_zeros(batch, height, width, channels)
        for i in range(kernel[0]):
            down = slice(i, i + stride[0] * (rows - 1) + 1, stride[0])
            for j in range(kernel[1]):
                across = slice(j, j + stride[1] * (columns - 1) + 1, stride[1])
                out[:, down, across] += cut[:, :, :, i, j]
        return out.permute(0, 3, 1, 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.geometry = inputs[2:]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Patches.apply(gradient, *ctx.geometry), None, None, None  # type: ignore[no-untyped-call]

    @staticmethod
    def vmap(
        info: Any, dims: Any, patches: Tensor, shape: tuple[int, ...], kernel: Pair, stride: Pair
    ) -> Any:
        patches = patches.movedim(dims[0], 0)
        whole = (patches.shape[0] * shape[0], *shape[1:])
        made: Tensor = _Overlap.apply(patches.flatten(0, 1), whole, kernel, stride)  # type: ignore[no-untyped-call]
        return made.view(patches.shape[0], *shape), 0


# ---- the choice


class Shape(NamedTuple):
    """What a choice depends on."""

    clients: int
    x: tuple[int, ...]
    weight: tuple[int, ...]
    stride_down: int
    stride_across: int
    pad_down: int
    pad_across: int
    dtype: torch.dtype
    device: torch.device
    lowered: bool
    training: bool


@functools.cache
def chosen(shape: Shape) -> str:
    """Return the faster way for a shape: timed once a process, with random-free data."""
    # a thread of its own: here functions of one client run under vmap, and there they do not
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_measured, shape).result()


def _measured(shape: Shape) -> str:
    ways = {
        PLAIN: lambda: seconds(_work(shape, _grouped), shape.device),
        PATCHES: lambda: seconds(_work(shape, by_patches), shape.device),
    }
    kernel = "x".join(map(str, shape.weight[2:]))
    what = f"{shape.clients} convolutions {kernel}, {shape.weight[1]} to {shape.weight[0]} channels"
    return fastest(ways, what)


def _grouped(x: Tensor, weight: Tensor, bias: None, stride: Pair, padding: Pair) -> Tensor:
    return functional.conv2d(x, weight, bias, stride, padding)


def _work(shape: Shape, way: Callable[..., Tensor]) -> Callable[[], Any]:
    """Return forward and backward pass of all clients on made-up data."""
    stride = (shape.stride_down, shape.stride_across)
    padding = (shape.pad_down, shape.pad_across)
    x, weight = (
        torch.full((shape.clients, *size), 0.01, dtype=shape.dtype, device=shape.device)
        for size in (shape.x, shape.weight)
    )

    def loss(weight: Tensor, x: Tensor) -> Tensor:
        return way(x, weight, None, stride, padding).square().mean()

    both = vmap(grad(loss, argnums=(0, 1)) if shape.training else loss)

    def run() -> Any:
        with torch.autocast(shape.device.type, torch.bfloat16, enabled=shape.lowered):
            return both(weight, x)

    return run
