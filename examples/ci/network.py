"""The model of this sample repository, and data for a smoke training of it."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

DEPTH, WIDTH, CLASSES = 10, 32, 4


def build_model() -> nn.Sequential:
    """A plain chain, initialised for what stands between its layers."""
    layers: dict[str, nn.Module] = {}
    for number in range(1, DEPTH):
        linear = nn.Linear(WIDTH, WIDTH)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        nn.init.zeros_(linear.bias)
        layers[f"fc{number}"] = linear
        layers[f"act{number}"] = nn.ReLU()
    layers["head"] = nn.Linear(WIDTH, CLASSES)
    return nn.Sequential(OrderedDict(layers))


def make_batches(count: int = 8, size: int = 64) -> list[tuple[Tensor, Tensor]]:
    """Points around one centre for each class."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(CLASSES, WIDTH, generator=generator)
    batches = []
    for _ in range(count):
        y = torch.randint(CLASSES, (size,), generator=generator)
        batches.append((centres[y] + 0.5 * torch.randn(size, WIDTH, generator=generator), y))
    return batches
