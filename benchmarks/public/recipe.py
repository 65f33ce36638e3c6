"""What a public model's training is, and the list of all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

Batch = tuple[Tensor, ...]


@dataclass
class Recipe:
    """An ordinary training: a fresh batch, a loss and a step of AdamW, again and again.

    Attributes:
        model: with random weights of its package's own making.
        draw: the batch of a number of a step.
        measure_loss: of the model on a batch.
        learning_rate: of AdamW, or what ``make_optimizer`` is given.
        steps: that are enough to see it learn.
        make_optimizer: of parameters and a learning rate.
    """

    model: nn.Module
    draw: Callable[[int], Batch]
    measure_loss: Callable[[Any, Batch], Tensor]
    learning_rate: float = 1e-3
    steps: int = 100
    make_optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW

    def train(self, optimizer: torch.optim.Optimizer) -> Iterator[float]:
        """The loss of every step."""
        self.model.train()
        for step in count():
            optimizer.zero_grad()
            loss = self.measure_loss(self.model, self.draw(step))
            loss.backward()
            optimizer.step()
            yield loss.item()


@dataclass(frozen=True)
class PublicModel:
    """A model of a package that others have written.

    Attributes:
        name: of the architecture, as the package calls it.
        package: distribution on PyPI.
        build: makes the training; imports the package.
    """

    name: str
    package: str
    build: Callable[[], Recipe]

    @property
    def version(self) -> str | None:
        """Of the package that is installed; ``None`` where none is."""
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return None


MODELS: list[PublicModel] = []
"""In the order in which the modules that hold them are imported."""


def enter(name: str, package: str) -> Callable[[Callable[[], Recipe]], Callable[[], Recipe]]:
    """Put a training on the list."""

    def put(build: Callable[[], Recipe]) -> Callable[[], Recipe]:
        MODELS.append(PublicModel(name, package, build))
        return build

    return put
