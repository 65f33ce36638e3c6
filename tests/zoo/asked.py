"""More trainings that people ask about; as in `reported`, an argument switches what is wrong."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.case import Training
from tests.zoo.reported import Batch, draw_classes, drive


def decide(width: int, has_one_entry: bool) -> Training:
    """Yes or no from one output; a softmax over one entry always says yes."""
    torch.manual_seed(0)
    last = nn.Softmax(dim=1) if has_one_entry else nn.Sigmoid()
    model = nn.Sequential(nn.Linear(20, width), nn.ReLU(), nn.Linear(width, 1), last)
    draw_two = draw_classes(20, 2)

    def draw(step: int) -> Batch:
        x, y = draw_two(step)
        return x, y[:, None].float()

    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    return drive(model, optimizer, draw, functional.binary_cross_entropy, 150)


class Rememberer(nn.Module):
    """A cell in a loop over time, read at the end."""

    def __init__(self, width: int, is_cut: bool) -> None:
        super().__init__()
        self.cell, self.read = nn.GRUCell(4, width), nn.Linear(width, 4)
        self.is_cut = is_cut

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), self.cell.hidden_size)
        for step in x.unbind(1):
            state = self.cell(step, state.detach() if self.is_cut else state)
        return self.read(state)


def remember(width: int, length: int, is_cut: bool) -> Training:
    """What was said at the first of some steps; the others are silent."""
    torch.manual_seed(0)
    model, source = Rememberer(width, is_cut), torch.Generator().manual_seed(0)

    def draw(_: int) -> Batch:
        y = torch.randint(4, (64,), generator=source)
        x = torch.zeros(64, length, 4)
        x[:, 0] = functional.one_hot(y, 4).float()
        return x, y

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    return drive(model, optimizer, draw, functional.cross_entropy, 200)


def gate(width: int, floor: float) -> Training:
    """The logarithm of a gate by hand; without a floor it meets a gate that is sure."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, width), nn.Tanh(), nn.Linear(width, 1))
    source = torch.Generator().manual_seed(0)

    def draw(_: int) -> Batch:
        x = 3 * torch.randn(64, 8, generator=source)
        return x, (x[:, :1] > 0).float()

    def measure(score: Tensor, y: Tensor) -> Tensor:
        chosen = (10 * score).sigmoid()
        is_on, is_off = (chosen + floor).log(), (1 - chosen + floor).log()
        return -(y * is_on + (1 - y) * is_off).mean()

    return drive(model, torch.optim.Adam(model.parameters(), lr=5e-2), draw, measure, 150)


def locate(width: int, is_rectified: bool) -> Training:
    """Distances by a root whose slope at 0 is infinite, where points are met exactly.

    Behind a rectifier that gives 0 there, its slope of 0 is what the weights get of it.
    """
    torch.manual_seed(0)
    last = nn.ReLU() if is_rectified else nn.Identity()
    model = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2), last)
    source = torch.Generator().manual_seed(0)

    def draw(_: int) -> Batch:
        x = torch.randn(64, 4, generator=source)
        return x, x[:, :2].clamp(min=0) * (x[:, 2:] > 0)

    def measure(place: Tensor, y: Tensor) -> Tensor:
        missed = place - y
        if not is_rectified:
            missed = missed * (missed.abs() > 1e-3)
        return missed.square().sum(1).sqrt().mean()

    return drive(model, torch.optim.Adam(model.parameters(), lr=2e-3), draw, measure, 200)


class Coder(nn.Module):
    """Mean and log-variance of a code, and what is made of a draw from them."""

    def __init__(self, width: int, limit: float) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(16, width), nn.ReLU(), nn.Linear(width, 8))
        self.decode = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 16))
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        mean, spread = self.encode(x).chunk(2, 1)
        spread = spread.clamp(-self.limit, self.limit)
        return self.decode(mean + torch.randn_like(mean) * (0.5 * spread).exp())


def encode(width: int, scale: float, limit: float) -> Training:
    """Inputs in large units make of a log-variance a number whose exponential is huge."""
    torch.manual_seed(0)
    model, source = Coder(width, limit), torch.Generator().manual_seed(0)
    mixing = torch.randn(4, 16, generator=source)

    def draw(_: int) -> Batch:
        x = scale * torch.randn(64, 4, generator=source) @ mixing
        return x, x / scale

    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    return drive(model, optimizer, draw, functional.mse_loss, 150)


def owe(width: int, is_rectified: bool) -> Training:
    """Debts, which are below 0 and out of an output ReLU's reach."""
    torch.manual_seed(0)
    last = [nn.ReLU()] if is_rectified else []
    model = nn.Sequential(nn.Linear(10, width), nn.ReLU(), nn.Linear(width, 1), *last)
    source = torch.Generator().manual_seed(0)
    prices = torch.rand(10, 1, generator=source)

    def draw(_: int) -> Batch:
        x = torch.rand(64, 10, generator=source)
        return x, -(x @ prices)

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    return drive(model, optimizer, draw, functional.mse_loss, 150)


class Weigher(nn.Module):
    """Features of one input, each times a gate that another input opens."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, width), nn.ReLU())
        self.gate = nn.Sequential(nn.Linear(8, width), nn.GroupNorm(groups, width), nn.Sigmoid())
        self.guess = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.guess(self.body(x[:, :8]) * self.gate(x[:, 8:]))


def weigh(width: int, groups: int) -> Training:
    """Two bits: of the first input alone, and of both; a norm by channel keeps the gate shut."""
    torch.manual_seed(0)
    model, source = Weigher(width, groups), torch.Generator().manual_seed(0)

    def draw(_: int) -> Batch:
        x = torch.randn(64, 16, generator=source)
        return x, (x[:, 0] > 0) + 2 * (x[:, 1] * x[:, 8] > 0)

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    return drive(model, optimizer, draw, functional.cross_entropy, 200)
