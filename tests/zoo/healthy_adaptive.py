"""Steep gradient profiles that an adaptive optimizer levels: early layers do learn.

Each of these would stand still under plain SGD; under Adam the frozen early third is clearly worse.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from tests.zoo.case import Case, Training
from tests.zoo.healthy_tasks import glyphs, healthy, spirals, train, waves

_cases: list[Case] = []
_cross_entropy = nn.CrossEntropyLoss()


def _stack(activation: type[nn.Module], widths: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width_in, width in itertools.pairwise(widths):
        layers += [nn.Linear(width_in, width), activation()]
    return nn.Sequential(nn.Flatten(), *layers[:-1])


def _scale_weights(model: nn.Module, gain: float) -> nn.Module:
    """Weights of variance gain**2 / fan_in, biases zero."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.in_features))
            nn.init.zeros_(layer.bias)
    return model


@healthy(_cases, "four default sigmoid layers on glyphs under Adam: far better than frozen early")
def sigmoid_four_layers_default_adam() -> Training:
    model = _stack(nn.Sigmoid, [64, 64, 64, 64, 10])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return train(model, optimizer, glyphs(), _cross_entropy, steps=200)


@healthy(
    _cases, "five default sigmoid layers under Adam: 0.01 against 2.2 with the early third frozen"
)
def sigmoid_five_layers_default_adam() -> Training:
    model = _stack(nn.Sigmoid, [64, 64, 64, 64, 64, 10])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return train(model, optimizer, glyphs(), _cross_entropy, steps=250)


@healthy(
    _cases, "six default sigmoid layers under Adam still learn, slowly; frozen early they do not"
)
def sigmoid_six_layers_default_adam() -> Training:
    model = _stack(nn.Sigmoid, [64, 64, 64, 64, 64, 64, 10])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return train(model, optimizer, glyphs(), _cross_entropy, steps=250)


@healthy(_cases, "a default sigmoid regression net of four layers under Adam fits the waves")
def sigmoid_regression_adam() -> Training:
    model = _stack(nn.Sigmoid, [4, 48, 48, 48, 1])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return train(model, optimizer, waves(), nn.MSELoss(), steps=250)


@healthy(_cases, "seven ReLU layers at 0.3 of He's scale under Adam: weights grow, the loss falls")
def relu_small_init_adam() -> Training:
    model = _scale_weights(_stack(nn.ReLU, [64] * 7 + [10]), gain=0.3 * math.sqrt(2))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    return train(model, optimizer, glyphs(), _cross_entropy, steps=200)


@healthy(_cases, "five ReLU layers at half of He's scale under AdamW; the loss falls")
def relu_half_init_adamw() -> Training:
    model = _scale_weights(_stack(nn.ReLU, [64] * 5 + [10]), gain=0.5 * math.sqrt(2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    return train(model, optimizer, glyphs(), _cross_entropy, steps=150)


@healthy(
    _cases, "tanh weights of gain 4.5, some 65% saturated, yet early layers move and the loss falls"
)
def tanh_large_gain_partly_pinned() -> Training:
    model = _scale_weights(_stack(nn.Tanh, [2, 48, 48, 48, 2]), gain=4.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    return train(model, optimizer, spirals(), _cross_entropy, steps=200)


class LayerScaleBlock(nn.Module):
    """A pre-norm residual branch times a learned vector that starts tiny, as in CaiT."""

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.down(nn.functional.gelu(self.up(self.norm(x))))


def _layer_scale_net(scale: float) -> nn.Module:
    blocks = [LayerScaleBlock(32, scale) for _ in range(6)]
    return nn.Sequential(nn.Linear(2, 32), *blocks, nn.LayerNorm(32), nn.Linear(32, 2))


@healthy(
    _cases, "LayerScale at 1e-4: branch gradients are 1e-4 of the trunk's at first; Adam levels it"
)
def layer_scale_small() -> Training:
    model = _layer_scale_net(1e-4)
    return train(model, torch.optim.AdamW(model.parameters(), 5e-3), spirals(), _cross_entropy, 120)


@healthy(_cases, "LayerScale at 1e-6, the deepest CaiT setting, under Adam; the loss falls")
def layer_scale_tiny() -> Training:
    model = _layer_scale_net(1e-6)
    return train(model, torch.optim.Adam(model.parameters(), 5e-3), spirals(), _cross_entropy, 120)


CASES: tuple[Case, ...] = tuple(_cases)
