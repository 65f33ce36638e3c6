"""Activation functions and initialisations that suit them, shallow and deep."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tests.zoo.case import Case, Training
from tests.zoo.healthy_tasks import blobs, glyphs, healthy, spirals, train, waves

_cases: list[Case] = []
_cross_entropy = nn.CrossEntropyLoss()


def _stack(
    activation: type[nn.Module] | nn.Module,
    depth: int,
    width: int,
    features: int = 2,
    outputs: int = 2,
) -> nn.Sequential:
    """`depth` linear layers, an activation after each but the last."""
    layers: list[nn.Module] = []
    for k in range(depth - 1):
        act = activation() if isinstance(activation, type) else activation
        layers += [nn.Linear(features if k == 0 else width, width), act]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def _initialise(model: nn.Module, gain: float, mode: str = "normal") -> nn.Module:
    """Weights of variance gain**2 / fan_in (or orthogonal times the gain), biases zero."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)
            if mode == "orthogonal":
                nn.init.orthogonal_(layer.weight, gain)
            else:
                nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.in_features))
    return model


@healthy(_cases, "two sigmoid layers learn the spirals; freezing the first is worse", seed=1)
def sigmoid_two_layers() -> Training:
    model = _initialise(_stack(nn.Sigmoid, 2, 64), gain=4.0)
    return train(
        model, torch.optim.Adam(model.parameters(), lr=0.02), spirals(), _cross_entropy, 150
    )


@healthy(_cases, "three sigmoid layers under SGD with momentum classify glyphs: shallow enough")
def sigmoid_three_layers() -> Training:
    model = nn.Sequential(nn.Flatten(), *_stack(nn.Sigmoid, 3, 64, features=64, outputs=10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    return train(model, optimizer, glyphs(batch_size=32), _cross_entropy, steps=150)


@healthy(
    _cases, "five sigmoid layers with gain-4 weights under Adam, which heeds no gradient scale"
)
def sigmoid_five_layers_adam() -> Training:
    model = _initialise(_stack(nn.Sigmoid, 5, 48), gain=4.0)
    return train(
        model, torch.optim.Adam(model.parameters(), lr=0.01), spirals(), _cross_entropy, 200
    )


@healthy(_cases, "tanh net of 6 layers, Xavier-initialised, momentum SGD; loss falls")
def tanh_six_layers_xavier() -> Training:
    model = _initialise(_stack(nn.Tanh, 6, 48), gain=1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return train(model, optimizer, spirals(), _cross_entropy, steps=150)


@healthy(_cases, "tanh net of 10 layers with gain 5/3 under Adam; loss falls")
def tanh_ten_layers() -> Training:
    model = _initialise(_stack(nn.Tanh, 10, 32), gain=5 / 3)
    return train(
        model, torch.optim.Adam(model.parameters(), lr=2e-3), spirals(), _cross_entropy, 120
    )


@healthy(
    _cases,
    "tanh net with weights of gain 3: about half the units saturated, early layers move most",
)
def tanh_large_weights_learns() -> Training:
    model = _initialise(_stack(nn.Tanh, 4, 48), gain=3.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return train(model, optimizer, spirals(), _cross_entropy, steps=200)


@healthy(
    _cases, "30 ReLU layers with He initialisation: the gradient keeps its size over the depth"
)
def relu_30_layers_he() -> Training:
    model = _initialise(_stack(nn.ReLU, 30, 48), gain=math.sqrt(2))
    return train(
        model, torch.optim.Adam(model.parameters(), lr=5e-4), spirals(), _cross_entropy, 120
    )


@healthy(_cases, "30 linear layers, orthogonal: a deep linear net is exactly isometric; loss falls")
def linear_30_layers_orthogonal() -> Training:
    model = _initialise(_stack(nn.Identity, 30, 24, 16, 4), gain=1.0, mode="orthogonal")
    optimizer = torch.optim.SGD(model.parameters(), lr=2e-3, momentum=0.9)
    return train(model, optimizer, blobs(spread=2.0), _cross_entropy, steps=80)


@healthy(
    _cases, "30 tanh layers, orthogonal with gain 1.05: dynamical isometry carries the gradient"
)
def tanh_30_layers_orthogonal() -> Training:
    model = _initialise(_stack(nn.Tanh, 30, 32), gain=1.05, mode="orthogonal")
    return train(
        model, torch.optim.Adam(model.parameters(), lr=3e-4), spirals(), _cross_entropy, 100
    )


@healthy(_cases, "20 SELU layers with LeCun initialisation normalise themselves; loss falls")
def selu_20_layers_lecun() -> Training:
    model = _initialise(_stack(nn.SELU, 20, 48), gain=1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    return train(model, optimizer, spirals(), _cross_entropy, steps=120)


@healthy(_cases, "eight ELU layers with He initialisation under RMSprop; loss falls")
def elu_eight_layers() -> Training:
    model = _initialise(_stack(nn.ELU, 8, 48), gain=math.sqrt(1.5))
    return train(
        model, torch.optim.RMSprop(model.parameters(), lr=1e-3), spirals(), _cross_entropy, 120
    )


@healthy(_cases, "PReLU with a learned slope in every layer, Adagrad; loss falls")
def prelu_mlp() -> Training:
    model = _initialise(_stack(nn.PReLU, 5, 48), gain=math.sqrt(2))
    return train(
        model, torch.optim.Adagrad(model.parameters(), lr=0.02), spirals(), _cross_entropy, 150
    )


@healthy(_cases, "Mish, NAdam: a smooth ReLU-like activation; loss falls")
def mish_mlp() -> Training:
    model = _initialise(_stack(nn.Mish, 6, 48), gain=math.sqrt(2))
    return train(
        model, torch.optim.NAdam(model.parameters(), lr=3e-3), spirals(), _cross_entropy, 100
    )


@healthy(_cases, "Hardswish in a small mobile-style convolution net; loss falls")
def hardswish_convnet() -> Training:
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.Hardswish(True),
        nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.Hardswish(True),
        nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32), nn.Hardswish(inplace=True),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    return train(model, optimizer, glyphs(batch_size=32), _cross_entropy, steps=80)


@healthy(
    _cases, "Softplus layers: derivative of a sigmoid, but not flat where the units are active"
)
def softplus_mlp() -> Training:
    model = _initialise(_stack(nn.Softplus, 4, 64), gain=2.0)
    return train(
        model, torch.optim.Adam(model.parameters(), lr=5e-3), spirals(), _cross_entropy, 150
    )


@healthy(_cases, "ReLU6 with He initialisation: few units reach the cap; loss falls")
def relu6_mlp() -> Training:
    model = _initialise(_stack(nn.ReLU6, 5, 64), gain=math.sqrt(2))
    return train(
        model, torch.optim.Adam(model.parameters(), lr=3e-3), spirals(), _cross_entropy, 120
    )


@healthy(_cases, "leaky ReLU, 16 layers, He with the leaky gain, plain SGD; loss falls")
def leaky_relu_16_layers() -> Training:
    model = _initialise(_stack(nn.LeakyReLU(0.1), 16, 48), gain=math.sqrt(2 / 1.01))
    return train(
        model, torch.optim.SGD(model.parameters(), lr=0.02), spirals(), _cross_entropy, 200
    )


class Maxout(nn.Module):
    def __init__(self, width_in: int, width: int, pieces: int = 3) -> None:
        super().__init__()
        self.linear = nn.Linear(width_in, width * pieces)
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).unflatten(-1, (-1, self.pieces)).amax(-1)


@healthy(_cases, "maxout: two of three pieces get no gradient for a sample, by design; loss falls")
def maxout_mlp() -> Training:
    model = nn.Sequential(Maxout(2, 32), Maxout(32, 32), Maxout(32, 32), nn.Linear(32, 2))
    return train(
        model, torch.optim.Adam(model.parameters(), lr=5e-3), spirals(), _cross_entropy, 100
    )


class Sine(nn.Module):
    def __init__(self, width_in: int, width: int, frequency: float, first: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(width_in, width)
        bound = 1 / width_in if first else math.sqrt(6 / width_in) / frequency
        nn.init.uniform_(self.linear.weight, -bound, bound)
        self.frequency = frequency

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.frequency * self.linear(x))


@healthy(
    _cases, "SIREN fits a chirp over the plane: sine activations with their own initialisation"
)
def siren_implicit_image() -> Training:
    layers = [Sine(2, 48, 15.0, True), Sine(48, 48, 15.0, False), Sine(48, 48, 15.0, False)]
    model = nn.Sequential(*layers, nn.Linear(48, 1))
    axis = torch.linspace(-1, 1, 20)
    grid = torch.cartesian_prod(axis, axis)
    image = torch.sin(12 * grid[:, :1] ** 2 + 5 * grid[:, 1:])
    return train(
        model, torch.optim.Adam(model.parameters(), lr=5e-4), [(grid, image)], nn.MSELoss(), 200
    )


@healthy(_cases, "one hidden layer of 1024 ReLUs in the lazy regime: weights hardly need to move")
def wide_shallow_relu() -> Training:
    model = _stack(nn.ReLU, 2, 1024, features=4, outputs=1)
    return train(
        model, torch.optim.SGD(model.parameters(), 0.01, momentum=0.9), waves(), nn.MSELoss(), 200
    )


CASES: tuple[Case, ...] = tuple(_cases)
