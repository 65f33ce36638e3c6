"""A small training under watch, and its report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import gradwatch

Batch = tuple[Any, torch.Tensor]


def train(
    model: nn.Module,
    batch: Callable[[int], Batch],
    steps: int = 60,
    optimizer: torch.optim.Optimizer | None = None,
    loss_fn: Callable[..., torch.Tensor] = nn.functional.cross_entropy,
    every_n_steps: int = 1,
) -> gradwatch.Report:
    """Watch an ordinary loop; fails where the watch has ended itself."""
    optimizer = optimizer or torch.optim.Adam(model.parameters(), 3e-3)
    with gradwatch.watch(model, optimizer, every_n_steps=every_n_steps) as watch:
        for step in range(steps):
            x, y = batch(step)
            loss = loss_fn(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert watch.failure is None
    return watch.report()


def make_labelled(width: int, classes: int, size: int = 32) -> Callable[[int], Batch]:
    """Vectors of a normal distribution, labelled by a fixed matrix."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(width, classes, generator=generator)

    def batch(_: int) -> Batch:
        x = torch.randn(size, width, generator=generator)
        return x, (x @ target).argmax(1)

    return batch


def list_kinds(report: gradwatch.Report) -> list[str]:
    """Kinds of the findings, worst first."""
    return [finding.kind for finding in report.findings]
