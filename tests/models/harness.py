"""The awkward cohort with a model and samples of a shape, seen through real views."""

from collections.abc import Callable

import torch
from torch import nn

from fedlabels.clients import build
from fedlabels.cohort import DataSpec, TensorSource
from fedlabels.data import make_views
from tests.cohort.harness import CLASSES, SIZES, World

FIXMATCH = {"name": "fixmatch", "batch_size": 4, "batch_unlabeled": 5, "steps": 2,
            "threshold": 0.22}  # fmt: skip


def world(
    model: Callable[[DataSpec], nn.Module], shape: tuple[int, ...], views: str = "natural"
) -> World:
    """Make the cohort of tests/cohort with a model of this part, trained by FixMatch."""
    spec = DataSpec(shape, CLASSES)
    out = World(build(FIXMATCH), nets=lambda: {"model": model(spec)})
    samples = sum(map(sum, SIZES))
    random = torch.Generator().manual_seed(1)
    x = torch.rand(samples, *shape, generator=random, dtype=torch.float64)
    half = torch.tensor(0.5, dtype=torch.float64)
    # Looped and stacked execution see the same samples: a view is exact to the last bit.
    out.source = TensorSource(x, half, half / 2, make_views(views))
    return out


def train(model: nn.Module, x: torch.Tensor, y: torch.Tensor, *, steps: int, lr: float) -> float:
    """Train on all samples at once by plain SGD with momentum; return the last loss."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    return loss.item()
