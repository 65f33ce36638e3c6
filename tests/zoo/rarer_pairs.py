"""More of `pairs`: own activations, a burst of the rate, a recovery, units switched off, clamps."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from tests.zoo import data, models
from tests.zoo.case import Training
from tests.zoo.loops import adam, sgd, supervised


class OwnActivation(nn.Module):
    """A function of no name that torch knows: 1 / (1 + exp(-x)), or max(x, 0) by a product."""

    def __init__(self, rectifies: bool) -> None:
        super().__init__()
        self.rectifies = rectifies

    def forward(self, x: Tensor) -> Tensor:
        return x * (x > 0) if self.rectifies else 1 / (1 + torch.exp(-x))


def own_sigmoids(fixed: bool = False) -> Training:
    """A chain of sigmoids that somebody has written out."""
    torch.manual_seed(14)
    model = models.mlp([64] + [32] * 10 + [10], lambda: OwnActivation(rectifies=fixed))
    models.initialise(model, models.he if fixed else models.xavier())
    return supervised(model, sgd(model, 0.3), data.digits(), steps=250)


def burst_of_the_rate(fixed: bool = False) -> Training:
    """The first two steps are made at a hundred times the rate of all others."""
    torch.manual_seed(15)
    model = models.mlp([64] + [32] * 4 + [10], nn.Tanh if fixed else nn.Sigmoid)
    if fixed:
        models.initialise(model, models.xavier())
    optimizer = sgd(model, 0.005, momentum=0.8)
    burst = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 100.0 if step < 2 else 1.0)
    return supervised(model, optimizer, data.digits(), steps=200, scheduler=burst)


class Encoded(nn.Module):
    """A head on an encoder, which is cut off for the first calls."""

    def __init__(self, calls_cut: int) -> None:
        super().__init__()
        self.encoder, self.head = models.mlp([64, 32, 32]), nn.Linear(32, 10)
        self._calls, self._cut = itertools.count(), calls_cut

    def forward(self, x: Tensor) -> Tensor:
        code, call = self.encoder(x), next(self._calls)
        if call == self._cut:
            self.encoder.requires_grad_(True)
        return self.head(torch.relu(code.detach() if call < self._cut else code))


def attached_late(fixed: bool = False, frozen: bool = False) -> Training:
    """Somebody takes a forgotten `detach` away while the training runs, and goes on."""
    torch.manual_seed(16)
    model = Encoded(0 if fixed else 100)
    model.encoder.requires_grad_(not frozen)
    return supervised(model, sgd(model, 0.2), data.digits(), steps=200)


def units_switched_off(fixed: bool = False) -> Training:
    """Units that fire for all samples, of which the tenth step silences three in four."""
    torch.manual_seed(17)
    model = models.mlp([64, 32, 32, 10])
    nn.init.constant_(model.fc1.bias, 3.0)
    training, steps = (
        supervised(model, sgd(model, 0.1), data.digits(), steps=60),
        itertools.count(),
    )

    def switch_off(*_: object) -> None:
        if next(steps) == 9 and not fixed:
            nn.init.constant_(model.fc1.bias[:24], -30.0)

    training.optimizers[0].register_step_post_hook(switch_off)
    return training


class Levels(nn.Module):
    """A code of whole levels between two ends, brought to size again, and a readout."""

    def __init__(self, width: int, end: float) -> None:
        super().__init__()
        self.encode, self.read = models.mlp([64, 40, width]), nn.Linear(width, 10)
        self.end = end

    def forward(self, x: Tensor) -> Tensor:
        code = torch.clip(self.encode(x), -self.end, self.end) / self.end
        return self.read(code + ((5 * code).round() / 5 - code).detach())


def code_of_levels(width: int, end: float, rate: float) -> Training:
    """With ends far inside of where the code lies, one element in some hundred has a slope."""
    torch.manual_seed(width)
    model = Levels(width, end)
    return supervised(model, adam(model, rate), data.digits(), steps=140)
