"""Skips and branches: zero-initialised residuals, very deep stacks, parallel and shared paths."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.case import Case, Training
from tests.zoo.healthy_tasks import glyphs, healthy, spirals, train, waves

_cases: list[Case] = []
_cross_entropy = nn.CrossEntropyLoss()


class Residual(nn.Module):
    """x + branch(x)."""

    def __init__(self, *branch: nn.Module) -> None:
        super().__init__()
        self.branch = nn.Sequential(*branch)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


def _zero(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


@healthy(
    _cases, "each branch ends in a zero-initialised layer: exact zero gradients in step 1 by design"
)
def zero_init_residual_branches() -> Training:
    blocks = [
        Residual(nn.LayerNorm(48), nn.Linear(48, 48), nn.ReLU(), _zero(nn.Linear(48, 48)))
        for _ in range(6)
    ]
    model = nn.Sequential(nn.Linear(2, 48), *blocks, nn.Linear(48, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    return train(model, optimizer, spirals(), _cross_entropy, steps=100)


class ReZeroBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.alpha = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.alpha * functional.relu(self.inner(x))


@healthy(
    _cases, "ReZero: alpha = 0 hides every block's weight in the first step; then 12 blocks learn"
)
def rezero() -> Training:
    model = nn.Sequential(nn.Linear(2, 32), *(ReZeroBlock(32) for _ in range(12)), nn.Linear(32, 2))
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.05)
    return train(model, optimizer, spirals(), _cross_entropy, steps=120)


class FixupBlock(nn.Module):
    """Fixup, no norm: first weight times depth**-1/2, second zero, scalar biases and gain."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.bias1, self.bias2, self.bias3 = (nn.Parameter(torch.zeros(1)) for _ in range(3))
        self.gain = nn.Parameter(torch.ones(1))
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight)
        self.conv1.weight.data.mul_(depth**-0.5)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        h = functional.relu(self.conv1(x + self.bias1))
        return functional.relu(x + self.gain * self.conv2(h + self.bias2) + self.bias3)


@healthy(
    _cases, "Fixup initialisation: second convolution and head are zero on purpose; loss falls"
)
def fixup_resnet() -> Training:
    blocks = [FixupBlock(8, depth=6) for _ in range(6)]
    head = _zero(nn.Linear(8 * 16, 10))
    stem = nn.Conv2d(1, 8, 3, padding=1)
    model = nn.Sequential(stem, nn.ReLU(), nn.MaxPool2d(2), *blocks, nn.Flatten(), head)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return train(model, optimizer, glyphs(batch_size=32), _cross_entropy, steps=80)


class BasicBlock(nn.Module):
    """The ResNet basic block; the last BatchNorm's gamma may start at zero."""

    def __init__(self, channels: int, zero_gamma: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        if zero_gamma:
            nn.init.zeros_(self.bn2.weight)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x
        return self.relu(out)


def _resnet(blocks: int, channels: int, zero_gamma: bool) -> nn.Module:
    stem = [
        nn.Conv2d(1, channels, 3, padding=1),
        nn.BatchNorm2d(channels),
        nn.ReLU(True),
        nn.MaxPool2d(2),
    ]
    body = [BasicBlock(channels, zero_gamma) for _ in range(blocks)]
    return nn.Sequential(*stem, *body, nn.Flatten(), nn.Linear(channels * 16, 10))


@healthy(
    _cases, "zero-initialised last BatchNorm gamma: the block's convolutions wait a step by design"
)
def zero_init_batchnorm_gamma() -> Training:
    model = _resnet(blocks=4, channels=8, zero_gamma=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    return train(model, optimizer, glyphs(batch_size=32), _cross_entropy, steps=80)


@healthy(_cases, "a 22-layer ResNet: depth alone is no disease where skips carry the gradient")
def resnet_22_layers() -> Training:
    model = _resnet(blocks=10, channels=8, zero_gamma=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    return train(model, optimizer, glyphs(batch_size=32), _cross_entropy, steps=80)


@healthy(_cases, "12 pre-norm residual MLP blocks with sigmoid inside: the skips do the carrying")
def residual_sigmoid_blocks() -> Training:
    blocks = [
        Residual(nn.LayerNorm(24), nn.Linear(24, 24), nn.Sigmoid(), nn.Linear(24, 24))
        for _ in range(12)
    ]
    model = nn.Sequential(nn.Linear(2, 24), *blocks, nn.LayerNorm(24), nn.Linear(24, 2))
    return train(
        model, torch.optim.Adam(model.parameters(), lr=3e-3), spirals(), _cross_entropy, steps=100
    )


class StochasticDepth(nn.Module):
    """Residual blocks that are skipped at random in training: not called in that step at all."""

    def __init__(self, width: int, blocks: int, survival: float) -> None:
        super().__init__()
        self.stem = nn.Linear(2, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
            )
            for _ in range(blocks)
        )
        self.head = nn.Linear(width, 2)
        self.survival = survival

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        for block in self.blocks:
            if not self.training or torch.rand(()).item() < self.survival:
                h = h + block(h)
        return self.head(h)


@healthy(
    _cases, "stochastic depth: every block misses a fifth of the steps; it gets its gradient later"
)
def stochastic_depth() -> Training:
    model = StochasticDepth(width=32, blocks=8, survival=0.8)
    return train(
        model, torch.optim.AdamW(model.parameters(), lr=3e-3), spirals(), _cross_entropy, 120
    )


@healthy(_cases, "LayerDrop at one half: in any step most blocks are not called; all of them learn")
def layerdrop_half() -> Training:
    model = StochasticDepth(width=32, blocks=6, survival=0.5)
    return train(
        model, torch.optim.Adam(model.parameters(), lr=3e-3), waves_2d(), _cross_entropy, 150
    )


def waves_2d() -> list[tuple[Tensor, Tensor]]:
    return [(x, (y[:, 0] > 0).long()) for x, y in waves(features=2)]


class Scaled(nn.Module):
    """A residual branch behind a factor of its own: one number, or one for each unit."""

    def __init__(self, width: int, factor: Tensor) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.factor = nn.Parameter(factor)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.factor * self.branch(x)


def _train_scaled(factor: Tensor) -> Training:
    blocks = [Scaled(24, factor.clone()) for _ in range(6)]
    model = nn.Sequential(nn.Linear(2, 24), *blocks, nn.Linear(24, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.07, momentum=0.9)
    return train(model, optimizer, spirals(), _cross_entropy, steps=300)


@healthy(_cases, "ReZero under SGD: the factors open by themselves, the branches learn after them")
def rezero_sgd() -> Training:
    return _train_scaled(torch.zeros(1))


@healthy(_cases, "zero-initialised last layers of the branches under SGD")
def zero_init_sgd() -> Training:
    training = _train_scaled(torch.ones(1))
    for module in training.model.modules():
        if isinstance(module, Scaled):
            nn.init.zeros_(module.branch[2].weight)
            nn.init.zeros_(module.branch[2].bias)
            module.factor.requires_grad_(False)
    return training


CASES: tuple[Case, ...] = tuple(_cases)
