"""Ordinary training loops that the factories close over."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests.zoo.case import Training
from tests.zoo.data import batches

Loss = Callable[[Tensor, Tensor], Tensor]


def sgd(model: nn.Module, lr: float = 0.1, **options: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr, **options)


def adam(model: nn.Module, lr: float = 1e-3, **options: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=lr, **options)


def supervised(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: tuple[Tensor, Tensor],
    loss_fn: Loss = nn.functional.cross_entropy,
    *,
    steps: int = 100,
    batch_size: int = 64,
    accumulate: int = 1,
    clip_norm: float | None = None,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
) -> Training:
    """A loop of `steps` optimizer steps; each step averages `accumulate` mini-batches."""

    def run() -> list[float]:
        losses: list[float] = []
        total = 0.0
        optimizer.zero_grad()
        for index, (x, y) in enumerate(batches(*data, batch_size, steps * accumulate)):
            loss = loss_fn(model(x), y) / accumulate
            loss.backward()
            total += loss.item()
            if (index + 1) % accumulate:
                continue
            if clip_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
            optimizer.step()
            optimizer.zero_grad()
            if scheduler is not None:
                scheduler.step()
            losses.append(total)
            total = 0.0
        return losses

    return Training(model, (optimizer,), run)
