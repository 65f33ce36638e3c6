"""Trainings in which every layer is well, and what acts on the weights or the loss is not.

Each takes the number that spoils it, so that a run and its twin differ in nothing else.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo import data, models
from tests.zoo.case import Training
from tests.zoo.loops import adam, sgd, supervised
from tests.zoo.reported import drive


def penalise(power: int, strength: float, width: int) -> Training:
    """A penalty on the weights' size stands in the loss; what is returned is the task's part."""
    torch.manual_seed(31)
    model = models.mlp([64, width, width, 10])
    optimizer = sgd(model, 0.1) if power == 2 else adam(model, 3e-3)

    def run() -> list[float]:
        losses = []
        for x, y in data.batches(*data.digits(), 64, 200):
            task = functional.cross_entropy(model(x), y)
            sizes = [p.abs().pow(power).sum() for p in model.parameters() if p.dim() > 1]
            optimizer.zero_grad()
            (task + strength * torch.stack(sizes).sum()).backward()
            optimizer.step()
            losses.append(task.item())
        return losses

    return Training(model, (optimizer,), run)


def decay(weight_decay: float, rate: float = 1e-2) -> Training:
    """AdamW takes its rate times its weight decay of each weight at each step."""
    torch.manual_seed(32)
    model = models.mlp([64, 48, 48, 10])
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=weight_decay)
    return supervised(model, optimizer, data.digits(), steps=200)


def clamp_likelihood(least: float, width: int) -> Training:
    """The likelihood of the right class, at first a tenth, is clamped from below."""
    torch.manual_seed(33)
    model = models.mlp([64, width, 10])

    def loss_fn(logits: Tensor, target: Tensor) -> Tensor:
        likelihood = logits.softmax(1).gather(1, target[:, None])
        return -likelihood.clamp(least, 1).log().mean()

    return supervised(model, adam(model, 1e-2), data.digits(), loss_fn, steps=150)


def reinforce(own_share: float) -> Training:
    """The baseline of each reward is the reward itself, or the mean over the batch."""
    torch.manual_seed(34)
    model, source = models.mlp([4, 32, 3]), torch.Generator().manual_seed(34)
    target = torch.randn(4, 3, generator=source)

    def draw(_: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(64, 4, generator=source)
        return x, (x @ target).argmax(1)

    def loss_fn(logits: Tensor, best: Tensor) -> Tensor:
        policy = torch.distributions.Categorical(logits=logits)
        action = torch.multinomial(policy.probs.detach(), 1, generator=source)[:, 0]
        reward = (action == best).float()
        baseline = own_share * reward + (1 - own_share) * reward.mean()
        gain = -(policy.log_prob(action) * (reward - baseline)).mean()
        return gain - gain.detach() + 1 - reward.mean()  # as a value, the share of wrong actions

    return drive(model, adam(model, 1e-2), draw, loss_fn, 200)


class GatedBranch(nn.Module):
    """A line plus a branch behind a gate."""

    def __init__(self, width: int, gate: float) -> None:
        super().__init__()
        self.line, self.branch = nn.Linear(4, 1), models.mlp([4, width, 1], nn.Tanh)
        self.gate = nn.Parameter(torch.tensor(gate))

    def forward(self, x: Tensor) -> Tensor:
        return self.line(x) + torch.sigmoid(self.gate) * self.branch(x)


def shut_branch(gate: float, width: int) -> Training:
    """What the branch has to learn is even, so that the line cannot; plain gradient descent."""
    torch.manual_seed(35)
    model, source = GatedBranch(width, gate), torch.Generator().manual_seed(35)
    direction = torch.randn(4, generator=source) / 2

    def draw(_: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(64, 4, generator=source)
        return x, (x[:, 0] + 1.5 * torch.cos(2 * x @ direction))[:, None]

    return drive(model, sgd(model, 0.1), draw, functional.mse_loss, 250)


class TwoTasks(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, width), nn.ReLU())
        self.kind, self.size = nn.Linear(width, 10), models.mlp([width, 16, 1])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(x)
        return self.kind(h), self.size(h)


def weigh_second(weight: float, width: int) -> Training:
    """The second of two tasks has a weight in the loss; what is returned is its own loss."""
    torch.manual_seed(36)
    model, losses = TwoTasks(width), []
    optimizer = sgd(model, 0.1)
    x, y = data.digits()

    def run() -> list[float]:
        for chosen in torch.randint(0, len(x), (250, 64), generator=torch.Generator()):
            kinds, sizes = model(x[chosen])
            second = functional.mse_loss(sizes[:, 0], y[chosen] / 9)
            optimizer.zero_grad()
            (functional.cross_entropy(kinds, y[chosen]) + weight * second).backward()
            optimizer.step()
            losses.append(second.item())
        return losses

    return Training(model, (optimizer,), run)


def feed(scale: float, width: int) -> Training:
    """Inputs multiplied by a number; biases begin at 0."""
    torch.manual_seed(37)
    model = models.mlp([64, width, width, 10], nn.Tanh)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)
    x, y = data.digits()
    return supervised(model, sgd(model, 0.1, momentum=0.9), (scale * x, y), steps=200)


class Experts(nn.Module):
    """Experts mixed by a softmax of a router's scores."""

    def __init__(self, width: int, scale: float, favour: float) -> None:
        super().__init__()
        self.router, self.scale, self.favour = nn.Linear(8, 4), scale, favour
        self.experts = nn.ModuleList(models.mlp([8, width, 1], nn.Tanh) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        scores = self.scale * self.router(x)
        scores = scores + self.favour * torch.tensor([1.0, 0.0, 0.0, 0.0])
        answers = torch.cat([expert(x) for expert in self.experts], 1)
        return (answers * scores.softmax(1)).sum(1, keepdim=True)


def route(scale: float, favour: float, width: int) -> Training:
    """Which of four functions is asked for, two inputs say."""
    torch.manual_seed(38)
    model, source = Experts(width, scale, favour), torch.Generator().manual_seed(38)
    functions = torch.randn(4, 8, generator=source)

    def draw(_: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(64, 8, generator=source)
        which = (x[:, :2] > 0).long() @ torch.tensor([1, 2])
        return x, 2 * torch.tanh((x * functions[which]).sum(1, keepdim=True))

    return drive(model, sgd(model, 0.3), draw, functional.mse_loss, 400)


class LookBack(nn.Module):
    """The last of nine tokens names the fourth one; scores are multiplied by a number."""

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(16, width), nn.Parameter(torch.randn(1, 9, width))
        self.query, self.key, self.value, self.head = (
            nn.Linear(width, size) for size in (width, width, width, 16)
        )
        self.scale = scale / math.sqrt(width)

    def forward(self, ids: Tensor) -> Tensor:
        h = self.embed(ids) + self.place
        scores = self.scale * (self.query(h[:, -1:]) @ self.key(h).transpose(1, 2))
        return self.head((scores.softmax(2) @ self.value(h))[:, 0])


def look_back(scale: float, width: int) -> Training:
    torch.manual_seed(39)
    model, source = LookBack(width, scale), torch.Generator().manual_seed(39)

    def draw(_: int) -> tuple[Tensor, Tensor]:
        ids = torch.randint(0, 16, (64, 9), generator=source)
        return ids, ids[:, 3]

    return drive(model, adam(model, 2e-3), draw, functional.cross_entropy, 200)
