"""Quiet for good reason: deep sigmoids under schedules, idle bottleneck units, met margins."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo import data
from tests.zoo.case import Case, Training
from tests.zoo.healthy_tasks import glyphs, healthy, split, train

_cases: list[Case] = []
_cross_entropy = nn.CrossEntropyLoss()
_STEPS = 200


def _sigmoids(widths: list[int], gain: float | None = None) -> nn.Sequential:
    """Sigmoid layers in PyTorch's own initialisation, or with weights of gain**2 / fan_in."""
    layers: list[nn.Module] = [nn.Flatten()]
    for width_in, width in itertools.pairwise(widths):
        layer = nn.Linear(width_in, width)
        if gain is not None:
            nn.init.normal_(layer.weight, std=gain / math.sqrt(width_in))
        layers += [layer, nn.Sigmoid()]
    return nn.Sequential(*layers[:-1])


def _scheduled(model: nn.Module, lr: float, factor: Callable[[int], float]) -> Training:
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return train(model, optimizer, glyphs(), _cross_entropy, _STEPS, scheduler=schedule)


@healthy(_cases, "six sigmoid layers under Adam, warmed up from 0 over 60 steps: all layers learn")
def sigmoid_six_layers_warmup() -> Training:
    return _scheduled(_sigmoids([64] + [48] * 5 + [10]), 0.02, lambda step: min(1.0, step / 60))


@healthy(_cases, "six sigmoid layers under Adam and a cosine schedule that ends at 0")
def sigmoid_six_layers_cosine() -> Training:
    def factor(step: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * step / _STEPS))

    return _scheduled(_sigmoids([64] + [48] * 5 + [10]), 0.01, factor)


@healthy(_cases, "six sigmoid layers under Adam, whose rate decays by four decades: learnt early")
def sigmoid_six_layers_decayed() -> Training:
    model = _sigmoids([64] + [48] * 5 + [10], gain=3.0)
    return _scheduled(model, 0.02, lambda step: 10 ** (-4 * step / _STEPS))


class Excited(nn.Module):
    """Channels weighted by a bottleneck of five ReLU units, some of which never fire."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, channels, 3, 2, 1)
        self.squeeze = nn.Linear(channels, 5)
        self.excite = nn.Linear(5, channels)
        self.mix = nn.Conv2d(channels, 16, 3, 2, 1)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = functional.relu(self.conv(x))
        gate = torch.sigmoid(self.excite(functional.relu(self.squeeze(h.mean((2, 3))))))
        return self.head(functional.relu(self.mix(h * gate[:, :, None, None])).flatten(1))


@healthy(
    _cases,
    "squeeze-excite through five ReLU units, three of them always idle: leaky ones do no better",
    seed=12,
)
def squeeze_excite_idle_units() -> Training:
    model = Excited(16)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    return train(model, optimizer, glyphs(), _cross_entropy, steps=120)


@healthy(_cases, "hinge loss on the moons: in the end all margins are met and all gradients are 0")
def margins_met_on_moons() -> Training:
    model = nn.Sequential(
        nn.Linear(2, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 1)
    )
    x, y = data.moons(256)

    def hinge(score: Tensor, sign: Tensor) -> Tensor:
        return functional.relu(1 - sign * score).mean()

    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    return train(model, optimizer, split(x, 2 * y - 1, 256), hinge, steps=200)


CASES: tuple[Case, ...] = tuple(_cases)
