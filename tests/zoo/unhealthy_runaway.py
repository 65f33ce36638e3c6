"""Weights that an optimizer blows up by itself, while the error signal stays bounded."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from tests.zoo import data, models
from tests.zoo.case import Case, Training
from tests.zoo.loops import sgd, supervised

cross_entropy = nn.functional.cross_entropy


def momentum_above_one(fixed: bool = False) -> Training:
    """The velocity grows by a tenth in every step, whatever the gradient says."""
    torch.manual_seed(0)
    model = models.ListMlp([64, 32, 10], nn.functional.gelu)
    optimizer = sgd(model, 0.05, momentum=0.9 if fixed else 1.1)
    return supervised(model, optimizer, data.digits(), steps=120)


def decay_of_wrong_sign(fixed: bool = False) -> Training:
    """A hand-written weight decay adds where it should subtract."""
    torch.manual_seed(1)
    model = models.mlp([2, 24, 24, 3])
    optimizer = sgd(model, 0.2, momentum=0.9)
    factor = 1 - 1e-4 if fixed else 1 + 0.1

    def run() -> list[float]:
        losses = []
        for x, y in data.batches(*data.spirals(), 64, 120):
            optimizer.zero_grad()
            loss = cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(factor)
            losses.append(loss.item())
        return losses

    return Training(model, (optimizer,), run)


def _case(name: str, build: Callable[..., Training], region: tuple[str, ...], why: str) -> Case:
    return Case(
        name, build, ("exploding",), ("nonfinite", "saturated", "dead"), "learning_rate", region,
        0, why, fixed=partial(build, fixed=True),
    )  # fmt: skip


CASES: tuple[Case, ...] = (
    _case("momentum_above_one", momentum_above_one, ("layers.*",),
          "momentum 1.1 multiplies the step by 1e4 within 100 steps"),
    _case("weight_decay_wrong_sign", decay_of_wrong_sign, ("fc*", "act*"),
          "decay that adds multiplies each weight by 1e4 within 100 steps"),
)  # fmt: skip
