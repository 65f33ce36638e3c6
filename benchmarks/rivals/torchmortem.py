"""The package ``torchmortem``, run as it is."""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch

from benchmarks.rivals.probe import NAMED
from benchmarks.sighting import Sighting
from tests.zoo import Training

KINDS = (
    ("Vanishing gradients", "vanishing"),
    ("Gradient stalling", "vanishing"),
    ("Exploding gradients", "exploding"),
    ("Weight norm explosion", "exploding"),
    ("Training divergence", "exploding"),
    ("Dead units", "dead"),
    ("Activation saturation", "saturated"),
)
"""How titles of its findings begin -> kind. What it says of update ratios, noise, rank, plateaus
and stagnation is not counted, for or against it."""


class TorchMortem:
    """``torchmortem.Autopsy`` around the run, given the loss of every step as its manual says.

    It judges after the end of the training, so that is when it detects.

    Source: https://github.com/sebseager/torchmortem (PyPI: torchmortem).
    """

    alone = True

    def __init__(self) -> None:
        self._autopsy: Any = None
        self._loss: float | None = None
        self._steps = 0
        self._undo: list[Any] = []

    def attach(self, training: Training) -> None:
        package = import_module("torchmortem")
        self._autopsy = package.Autopsy(training.model, optimizer=training.optimizers[0])
        self._autopsy.attach()
        self._tap_loss()
        self._undo.append(training.optimizers[-1].register_step_post_hook(self._end_step).remove)

    def detach(self) -> None:
        while self._undo:
            self._undo.pop()()
        atexit.unregister(self._autopsy._atexit_handler)
        self._autopsy.detach()

    def judge(self, losses: Sequence[float]) -> list[Sighting]:
        report = self._autopsy.get_report()
        found = [_translate(finding, self._steps) for finding in report.findings]
        return [sighting for sighting in found if sighting is not None]

    def _tap_loss(self) -> None:
        """Remember the loss of each backward pass, since the training loop does not tell."""
        owner: Any = torch.Tensor
        backward = owner.backward

        def tap(loss: torch.Tensor, *arguments: Any, **named: Any) -> None:
            self._loss = loss.item() if loss.numel() == 1 else self._loss
            backward(loss, *arguments, **named)

        owner.backward = tap
        self._undo.append(lambda: setattr(owner, "backward", backward))

    def _end_step(self, *_: object) -> None:
        self._autopsy.step(**({} if self._loss is None else {"loss": self._loss}))
        self._steps += 1


def _translate(finding: Any, step: int) -> Sighting | None:
    title = str(finding.title)
    kind = next((kind for start, kind in KINDS if title.startswith(start)), None)
    return None if kind is None else Sighting(kind, tuple(finding.affected_layers[:NAMED]), step)
