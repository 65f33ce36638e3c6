"""The model that most healthy runs on plain features share."""

from __future__ import annotations

from torch import nn


def relu_mlp(features: int, width: int, depth: int, outputs: int) -> nn.Sequential:
    """`depth` linear layers with PyTorch's own initialisation and a ReLU between any two."""
    layers: list[nn.Module] = [nn.Linear(features, width), nn.ReLU()]
    for _ in range(depth - 2):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))
