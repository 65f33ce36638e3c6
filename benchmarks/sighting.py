"""What a detector says of a training run, in words that are the same for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tests.zoo import Training


@dataclass(frozen=True)
class Sighting:
    """One thing that a detector found.

    Attributes:
        kind: one of ``gradwatch.schema.kinds.KINDS``.
        layers: the first layers or parameters that it names, at most three.
        step: optimizer steps made when it was reported.
        cause: that it names, if it names causes.
        lasting: still there when the run ended.
    """

    kind: str
    layers: tuple[str, ...]
    step: int
    cause: str | None = None
    lasting: bool = True


class Detector(Protocol):
    """Watches one training run. A new one is made for every run."""

    alone: bool
    """Whether it needs a training of its own, since it might disturb others."""

    def attach(self, training: Training) -> None:
        """Before the training starts."""

    def detach(self) -> None:
        """After it ended, also when it was broken off by an error."""

    def judge(self, losses: Sequence[float]) -> list[Sighting]:
        """What was found, the most important first; ``losses`` of every step."""
