"""What a program is, and the networks and loops that the families share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import gradwatch

STEPS = 60

Result = gradwatch.Watch | gradwatch.Report | None
"""What is judged live; nothing where only the log is. What lies in the directory is judged too."""

Program = Callable[[Path], Result]
"""Trains, and logs into a directory."""


@dataclass
class Family:
    """Programs that once came out green for one reason.

    Attributes:
        title: as on the page "What a pass means".
        unproven: must never pass.
        honest: their twins, which must.
    """

    title: str
    unproven: list[Program] = field(default_factory=list)
    honest: list[Program] = field(default_factory=list)

    def is_unproven(self, program: Program) -> Program:
        """A decorator."""
        self.unproven.append(program)
        return program

    def is_honest(self, program: Program) -> Program:
        """A decorator."""
        self.honest.append(program)
        return program


def build(width: int = 16, last: nn.Module | None = None) -> nn.Sequential:
    """A network that learns what ``draw`` asks of it."""
    tail = [last] if last is not None else []
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 4), *tail)


def build_deep() -> nn.Sequential:
    """Twelve sigmoids: its gradient vanishes."""
    stages = [layer for _ in range(12) for layer in (nn.Linear(8, 8), nn.Sigmoid())]
    return nn.Sequential(*stages, nn.Linear(8, 4))


def draw(step: int) -> tuple[Tensor, Tensor]:
    """A batch of its own for each step: which of four features is the largest."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(32, 8, generator=generator)
    return x, x[:, :4].argmax(1)


def sgd(model: nn.Module, rate: float = 0.1) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), rate)


def classify(model: nn.Module) -> Callable[[int], Tensor]:
    """The loss of each step."""

    def find_loss(step: int) -> Tensor:
        x, y = draw(step)
        return cross_entropy(model(x), y)

    return find_loss


def train(
    optimizer: torch.optim.Optimizer,
    find_loss: Callable[[int], Tensor],
    steps: int = STEPS,
    first: int = 0,
) -> None:
    """An ordinary loop."""
    for step in range(first, first + steps):
        optimizer.zero_grad()
        find_loss(step).backward()
        optimizer.step()


def fit(
    logdir: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    find_loss: Callable[[int], Tensor],
    steps: int = STEPS,
    first: int = 0,
) -> gradwatch.Watch:
    """The same under a watch."""
    with gradwatch.watch(model, optimizer, logdir=logdir, global_step=first) as watch:
        train(optimizer, find_loss, steps, first)
    return watch


def fit_well(logdir: Path, steps: int = STEPS) -> gradwatch.Watch:
    """A training that learns."""
    model = build()
    return fit(logdir, model, sgd(model), classify(model), steps)


def fit_badly(logdir: Path, steps: int = STEPS) -> gradwatch.Watch:
    """A training whose gradient vanishes."""
    model = build_deep()
    return fit(logdir, model, sgd(model), classify(model), steps)
