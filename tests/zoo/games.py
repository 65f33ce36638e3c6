"""Two optimizers, and an output that is sure: of what is right, or of what one would change."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.zoo import data, models
from tests.zoo.case import Training

bce = nn.functional.binary_cross_entropy


class Forgery(nn.Module):
    """A forger of points and a critic that ends in a function, not a module."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.forger = models.mlp([3, width, 4])
        self.critic = models.mlp([4, width, width, 1], nn.Tanh)

    def judge(self, points: Tensor) -> Tensor:
        return torch.sigmoid(self.critic(points))


def forgery(
    width: int, distance: float, head_start: int, rate: float, saturates: bool = True
) -> Training:
    """The forger descends log(1 - D), or -log(D); the returned losses are its distance."""
    torch.manual_seed(width)
    model, source = Forgery(width), torch.Generator().manual_seed(width)
    real = distance + 0.4 * torch.randn(512, 4, generator=source)
    critic = torch.optim.Adam(model.critic.parameters(), lr=4e-3)
    forger = torch.optim.SGD(model.forger.parameters(), lr=rate)

    def draw() -> Tensor:
        return model.forger(torch.randn(48, 3, generator=source))

    def teach(points: Tensor, fake: Tensor) -> None:
        critic.zero_grad()
        on_real, on_fake = model.judge(points), model.judge(fake.detach())
        (bce(on_real, torch.ones(48, 1)) + bce(on_fake, torch.zeros(48, 1))).backward()
        critic.step()

    for points, _ in data.batches(real, real, 48, head_start, seed=1):
        teach(points, draw())

    def run() -> list[float]:
        distances = []
        for points, _ in data.batches(real, real, 48, 150):
            fake = draw()
            teach(points, fake)
            forger.zero_grad()
            judged = model.judge(fake)
            loss = (1 - judged + 1e-9).log() if saturates else -(judged + 1e-9).log()
            loss.mean().backward()
            forger.step()
            distances.append((fake.mean(0) - points.mean(0)).norm().item())
        return distances

    return Training(model, (critic, forger), run)


def solved_by_two(width: int, rate: float) -> Training:
    """A detector that is sure of what is right; its body has an optimizer and a rate of its own."""
    torch.manual_seed(width)
    body = nn.Sequential(nn.Linear(2, width), nn.Tanh())
    model = nn.Sequential(body, nn.Linear(width, 1), nn.Sigmoid())
    source = torch.Generator().manual_seed(width)
    y = torch.randint(0, 2, (512, 1), generator=source).float()
    x = 3 * (2 * y - 1) + 0.3 * torch.randn(512, 2, generator=source)
    slow = torch.optim.SGD(body.parameters(), lr=rate)
    fast = torch.optim.Adam(model[1].parameters(), lr=0.05)

    def run() -> list[float]:
        losses = []
        for points, labels in data.batches(x, y, 64, 160):
            slow.zero_grad()
            fast.zero_grad()
            loss = bce(model(points), labels)
            loss.backward()
            slow.step()
            fast.step()
            losses.append(loss.item())
        return losses

    return Training(model, (slow, fast), run)
