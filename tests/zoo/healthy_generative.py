"""Densities and samplers: flows, diffusion, mixtures, coordinates."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.case import Case, Training
from tests.zoo.healthy_models import relu_mlp
from tests.zoo.healthy_tasks import Batch, glyphs, healthy, split, train

_cases: list[Case] = []


def _two_moons() -> Tensor:
    source = torch.Generator().manual_seed(22)
    angle = math.pi * torch.rand(256, generator=source)
    upper = torch.stack([angle.cos(), angle.sin()], 1)
    lower = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], 1)
    points = torch.cat([upper, lower]) + 0.05 * torch.randn(512, 2, generator=source)
    return points[torch.randperm(512, generator=source)] * 1.5


class Coupling(nn.Module):
    """An affine coupling whose last layer starts at zero, so that the flow starts as identity."""

    def __init__(self, swap: bool) -> None:
        super().__init__()
        self.net = relu_mlp(1, 32, 3, 2)
        nn.init.zeros_(self.net[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.net[-1].bias)  # type: ignore[arg-type]
        self.swap = swap

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept, changed = x.flip(1).chunk(2, 1) if self.swap else x.chunk(2, 1)
        log_scale, shift = self.net(kept).chunk(2, 1)
        log_scale = torch.tanh(log_scale)
        pair = [kept, changed * log_scale.exp() + shift]
        return torch.cat(pair[::-1] if self.swap else pair, 1), log_scale.sum(1)


class Flow(nn.Module):
    def __init__(self, couplings: int = 6) -> None:
        super().__init__()
        self.couplings = nn.ModuleList(Coupling(swap=k % 2 == 1) for k in range(couplings))

    def forward(self, x: Tensor) -> Tensor:
        volume = x.new_zeros(len(x))
        for coupling in self.couplings:
            x, added = coupling(x)
            volume = volume + added
        return 0.5 * x.square().sum(1) - volume


@healthy(
    _cases, "RealNVP with zero-initialised couplings: nets below wait a step by design; loss falls"
)
def normalising_flow() -> Training:
    points = _two_moons() * 3 + 2
    model = Flow()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    batches = split(points, points, 128)
    return train(model, optimizer, batches, lambda energy, _: energy.mean(), steps=120)


class Denoiser(nn.Module):
    """Predicts the noise in a noisy point from the point and its noise level's Fourier features."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(8, 64), nn.SiLU())
        self.point = nn.Linear(2, 64)
        self.body = nn.Sequential(nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2))
        nn.init.zeros_(self.body[-1].weight)  # type: ignore[arg-type]

    def forward(self, noisy: Tensor) -> Tensor:
        angle = noisy[:, 2:] * torch.tensor([1.0, 2.0, 4.0, 8.0])
        time = self.time(torch.cat([angle.sin(), angle.cos()], 1))
        return self.body(self.point(noisy[:, :2]) + time)


def _noisy_points() -> list[Batch]:
    source = torch.Generator().manual_seed(23)
    points = _two_moons().repeat(4, 1)
    level = torch.rand(len(points), 1, generator=source)
    noise = torch.randn(points.shape, generator=source)
    mixed = (math.pi / 2 * level).cos() * points + (math.pi / 2 * level).sin() * noise
    return split(torch.cat([mixed, level], 1), noise, 128)


@healthy(_cases, "a diffusion model's noise predictor with a zero last layer; loss falls")
def diffusion_noise_predictor() -> Training:
    model = Denoiser()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    return train(model, optimizer, _noisy_points(), nn.MSELoss(), steps=200)


@healthy(
    _cases, "a mixture density net: components that explain nothing get no gradient; loss falls"
)
def mixture_density_network() -> Training:
    source = torch.Generator().manual_seed(24)
    y = 2 * torch.rand(512, 1, generator=source) - 1
    x = y + 0.3 * torch.sin(6 * y) + 0.03 * torch.randn(512, 1, generator=source)
    model = nn.Sequential(
        nn.Linear(1, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 15)
    )

    floor = -1.5  # about the entropy of y given x; keeps the reported loss positive

    def negative_log_likelihood(output: Tensor, target: Tensor) -> Tensor:
        logit, mean, log_std = output.chunk(3, dim=1)
        component = torch.distributions.Normal(mean, functional.softplus(log_std) + 0.02)
        weighted = functional.log_softmax(logit, dim=1) + component.log_prob(target)
        return -torch.logsumexp(weighted, dim=1).mean() - floor

    batches = split(3 * x, y, 128)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    return train(model, optimizer, batches, negative_log_likelihood, steps=200)


class FourierField(nn.Module):
    """A coordinate net on fixed random Fourier features, as in NeRF: a buffer feeds it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frequencies", 4.0 * torch.randn(2, 32))
        self.net = relu_mlp(64, 64, 4, 1)

    def forward(self, xy: Tensor) -> Tensor:
        angle = xy @ self.frequencies
        return self.net(torch.cat([angle.sin(), angle.cos()], dim=1))


@healthy(_cases, "a coordinate net on Fourier features with a sigmoid-free head; loss falls")
def fourier_feature_field() -> Training:
    axis = torch.linspace(-1, 1, 20)
    grid = torch.cartesian_prod(axis, axis)
    image = torch.sign(torch.sin(5 * grid[:, :1]) * torch.cos(4 * grid[:, 1:]))
    model = FourierField()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    return train(model, optimizer, split(grid, image, 100), nn.MSELoss(), steps=120)


@healthy(_cases, "a convolutional auto-encoder with transposed convolutions, sigmoid head and BCE")
def convolutional_autoencoder_sigmoid() -> Training:
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(16, 24, 3, stride=2, padding=1), nn.ReLU(),
        nn.ConvTranspose2d(24, 16, 4, stride=2, padding=1), nn.ReLU(),
        nn.ConvTranspose2d(16, 1, 4, stride=2, padding=1), nn.Sigmoid(),
    )  # fmt: skip
    batches = [(x, (x > 0).float()) for x, _ in glyphs(noise=0.1, batch_size=32)]
    return train(model, torch.optim.Adam(model.parameters(), 0.01), batches, nn.BCELoss(), 120)


CASES: tuple[Case, ...] = tuple(_cases)
