"""Random batches in float64 for tests of losses."""

import torch
from torch import Tensor


def logits(*shape: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    """Draw normal logits."""
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def probs(*shape: int, seed: int = 0) -> Tensor:
    """Draw probability rows."""
    return logits(*shape, seed=seed).softmax(dim=-1)
