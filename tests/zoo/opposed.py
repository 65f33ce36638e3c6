"""Outputs at their wrong end, as people report them: models, data and loops, without labels.

What is wrong in one of them is switched by an argument, so that a run and its twin differ in
nothing else.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.case import Training
from tests.zoo.reported import drive

STATE_UNITS = torch.tensor([300.0, 120.0, 60.0, 200.0, 90.0, 400.0])
"""Distances, speeds and angles of a car, in units of their own."""


class Recommender(nn.Module):
    """Scores of users and items; ``is_squashed``: returned as probabilities."""

    def __init__(self, is_squashed: bool) -> None:
        super().__init__()
        self.is_squashed = is_squashed
        self.users = nn.Embedding(60, 16)
        self.items = nn.Embedding(80, 16)
        self.score = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, pairs: Tensor) -> Tensor:
        features = torch.cat([self.users(pairs[:, 0]), self.items(pairs[:, 1])], 1)
        scores = self.score(features).squeeze(1)
        return torch.sigmoid(scores) if self.is_squashed else scores


def recommend(is_squashed: bool) -> Training:
    """One in six pairs fits; the loss takes logits, whatever it is given."""
    torch.manual_seed(0)
    model = Recommender(is_squashed)
    for table in (model.users, model.items):
        nn.init.normal_(table.weight, std=0.1)
    source = torch.Generator().manual_seed(1)
    users, items = torch.randn(60, 3, generator=source), torch.randn(80, 3, generator=source)

    def draw(_: int) -> tuple[Tensor, Tensor]:
        pairs = torch.stack([torch.randint(n, (256,), generator=source) for n in (60, 80)], 1)
        fits = (users[pairs[:, 0]] * items[pairs[:, 1]]).sum(1) > 1.5
        return pairs, fits.float()

    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    loss_fn = functional.binary_cross_entropy_with_logits
    return drive(model, optimizer, draw, loss_fn, 300)


class ActorCritic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.actor = _stack(6, 2, nn.Tanh())
        self.critic = _stack(8, 1)


def _stack(inputs: int, outputs: int, *last: nn.Module) -> nn.Sequential:
    hidden = nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()
    return nn.Sequential(*hidden, nn.Linear(64, outputs), *last)


def steer_by_a_critic(is_scaled: bool) -> Training:
    """Deterministic policy gradients; the loss is how far the actions are from the best ones."""
    torch.manual_seed(0)
    model = ActorCritic()
    actor_step = torch.optim.Adam(model.actor.parameters(), 1e-3)
    critic_step = torch.optim.Adam(model.critic.parameters(), 1e-3)
    source = torch.Generator().manual_seed(4)
    wish = 0.5 * torch.randn(6, 2, generator=source)

    def judge(state: Tensor, action: Tensor) -> Tensor:
        seen = state if is_scaled else state / 500
        return model.critic(torch.cat([seen, action], 1))

    def step() -> float:
        noise = torch.randn(64, 6, generator=source)
        state = noise if is_scaled else noise * STATE_UNITS + STATE_UNITS
        best = torch.tanh(noise @ wish)
        tried = model.actor(state) + 0.3 * torch.randn(64, 2, generator=source)
        tried = tried.clamp(-1, 1).detach()
        reward = 1 - (tried - best).square().sum(1, keepdim=True)
        critic_step.zero_grad()
        functional.mse_loss(judge(state, tried), reward).backward()
        critic_step.step()
        actor_step.zero_grad()
        action = model.actor(state)
        judge(state, action).mean().neg().backward()
        actor_step.step()
        return float((action.detach() - best).square().mean())

    return Training(model, (actor_step, critic_step), lambda: [step() for _ in range(300)])


def find_peaks(rate: float) -> Training:
    """A focal loss of probabilities that are kept away from 0 and 1 by a clamp."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()),
        nn.Conv2d(8, 1, 1),
    )
    nn.init.constant_(model[4].bias, -2.19)
    source = torch.Generator().manual_seed(11)

    def draw(_: int) -> tuple[Tensor, Tensor]:
        images, peaks = 0.4 * torch.rand(8, 1, 12, 12, generator=source), torch.zeros(8, 1, 12, 12)
        for image, peak in zip(images, peaks, strict=True):
            row, column = torch.randint(2, 10, (2,), generator=source).tolist()
            image[0, row - 1 : row + 2, column - 1 : column + 2] += 0.6
            peak[0, row, column] = 1
        return images, peaks

    def loss_fn(scores: Tensor, peaks: Tensor) -> Tensor:
        p = torch.clamp(scores.sigmoid(), 1e-4, 1 - 1e-4)
        found, empty = p.log() * (1 - p) ** 2 * peaks, (1 - p).log() * p**2 * (1 - peaks)
        return -(found + empty).sum() / len(scores)

    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9)
    return drive(model, optimizer, draw, loss_fn, 150)
