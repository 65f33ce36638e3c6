"""Gradients as a test, for CI.

    pytest examples/test_gradients.py

The fixture ``gradwatch_check`` comes with the package. It runs a few real training steps on a copy
of the model and fails the test, saying what, why and what to change, when a layer cannot learn.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import gradwatch

STEPS = 12


@pytest.fixture(scope="module")
def batches() -> list[tuple[Tensor, Tensor]]:
    bunch = load_digits()
    x = torch.tensor(bunch.data, dtype=torch.float32)
    x = (x - x.mean()) / x.std()
    y = torch.tensor(bunch.target)
    return list(zip(x.split(64), y.split(64), strict=True))[:STEPS]


def build_model(activation: type[nn.Module], depth: int) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(depth - 1):
        linear = nn.Linear(64, 64)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        layers += [linear, activation()]
    return nn.Sequential(*layers, nn.Linear(64, 10))


def test_gradients_reach_every_layer(
    gradwatch_check: Any, batches: list[tuple[Tensor, Tensor]]
) -> None:
    model = build_model(nn.ReLU, depth=12)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    gradwatch_check(model, batches, nn.CrossEntropyLoss(), optimizer)


def test_sigmoids_do_not_carry_twelve_layers(batches: list[tuple[Tensor, Tensor]]) -> None:
    """The same without the fixture, where an unhealthy report is what the test wants to see."""
    model = build_model(nn.Sigmoid, depth=12)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    report = gradwatch.check(model, batches, nn.CrossEntropyLoss(), optimizer)
    with pytest.raises(gradwatch.UnhealthyGradients, match="vanishing"):
        report.raise_if("vanishing")
