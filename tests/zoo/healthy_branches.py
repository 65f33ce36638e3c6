"""Branches that meet again and cells that are shared: no chain of layers to compare along."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.case import Case, Training
from tests.zoo.healthy_tasks import blobs, glyphs, healthy, train

_cases: list[Case] = []
_cross_entropy = nn.CrossEntropyLoss()


class DenseBlock(nn.Module):
    def __init__(self, channels: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(channels + growth * k),
                nn.ReLU(),
                nn.Conv2d(channels + growth * k, growth, 3, padding=1),
            )
            for k in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        return x


@healthy(_cases, "DenseNet block: concatenated features, each layer's width differs; loss falls")
def densenet() -> Training:
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.MaxPool2d(2), DenseBlock(8, 4, 6),
        nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip
    return train(
        model, torch.optim.Adam(model.parameters(), 3e-3), glyphs(batch_size=32), _cross_entropy, 80
    )


class UNet(nn.Module):
    """Two levels; the bottleneck sees little gradient because the skips do most of the work."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(True))
        self.down2 = nn.Sequential(nn.Conv2d(channels, 2 * channels, 3, padding=1), nn.ReLU(True))
        self.middle = nn.Sequential(
            nn.Conv2d(2 * channels, 2 * channels, 3, padding=1), nn.ReLU(True)
        )
        self.up2 = nn.Sequential(nn.Conv2d(4 * channels, channels, 3, padding=1), nn.ReLU(True))
        self.up1 = nn.Conv2d(2 * channels, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.down1(x)
        coarse = self.down2(functional.max_pool2d(fine, 2))
        low = self.middle(functional.max_pool2d(coarse, 2))
        low = torch.cat([functional.interpolate(low, scale_factor=2), coarse], dim=1)
        high = torch.cat([functional.interpolate(self.up2(low), scale_factor=2), fine], dim=1)
        return self.up1(high)


@healthy(_cases, "U-Net denoiser: the bottleneck's gradient is the smallest by design; loss falls")
def unet_denoiser() -> Training:
    clean = [x for x, _ in glyphs(noise=0.0, batch_size=32)]
    batches = [(x + 0.8 * torch.randn_like(x), (x > 0).float()) for x in clean]
    model = UNet()
    return train(
        model, torch.optim.Adam(model.parameters(), lr=5e-3), batches, nn.BCEWithLogitsLoss(), 80
    )


class Inception(nn.Module):
    def __init__(self, channels_in: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(channels_in, 8, 1)
        self.three = nn.Sequential(
            nn.Conv2d(channels_in, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 3, padding=1)
        )
        self.five = nn.Sequential(
            nn.Conv2d(channels_in, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 5, padding=2)
        )
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(channels_in, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.one(x), self.three(x), self.five(x), self.pool(x)]
        return functional.relu(torch.cat(branches, dim=1))


@healthy(
    _cases, "Inception: narrow parallel branches get different shares of the gradient; loss falls"
)
def inception_branches() -> Training:
    model = nn.Sequential(
        Inception(1),
        nn.MaxPool2d(2),
        Inception(24),
        Inception(24),
        nn.Flatten(),
        nn.Linear(24 * 16, 10),
    )
    return train(
        model, torch.optim.Adam(model.parameters(), 3e-3), glyphs(batch_size=32), _cross_entropy, 80
    )


class Equilibrium(nn.Module):
    """One shared cell iterated towards its fixed point, with the input injected each time."""

    def __init__(self, width: int = 32, iterations: int = 6) -> None:
        super().__init__()
        self.inject = nn.Linear(16, width)
        self.cell = nn.Linear(width, width)
        self.head = nn.Linear(width, 4)
        self.iterations = iterations

    def forward(self, x: Tensor) -> Tensor:
        injected = self.inject(x)
        z = torch.zeros_like(injected)
        for _ in range(self.iterations):
            z = torch.tanh(self.cell(z) + injected)
        return self.head(z)


@healthy(
    _cases, "a contracting shared cell forgets early iterations by design: that is its fixed point"
)
def equilibrium_cell() -> Training:
    model = Equilibrium()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return train(model, optimizer, blobs(spread=2.0), _cross_entropy, steps=80)


CASES: tuple[Case, ...] = tuple(_cases)
