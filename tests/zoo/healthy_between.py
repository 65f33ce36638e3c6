"""What looks like an error between backward and step and is none."""

from __future__ import annotations

from itertools import cycle, islice

import torch
from torch import nn

from tests.zoo.case import Case, Training
from tests.zoo.healthy_models import relu_mlp
from tests.zoo.healthy_tasks import healthy, spirals, train

_cases: list[Case] = []
_cross_entropy = nn.CrossEntropyLoss()


@healthy(_cases, "the rate begins at 0, and comes back from 0 at every restart")
def restarts_from_zero() -> Training:
    model = relu_mlp(2, 48, 3, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step % 25 / 24)
    return train(model, optimizer, spirals(), _cross_entropy, 150, scheduler)


@healthy(_cases, "a wide body of random features is handed to no optimizer, and the head learns")
def body_handed_to_no_optimizer() -> Training:
    model = nn.Sequential(nn.Linear(2, 256), nn.ReLU(), nn.Linear(256, 2))
    optimizer = torch.optim.Adam(model[2].parameters(), lr=0.05)
    return train(model, optimizer, spirals(), _cross_entropy, 150)


def _scaled(clips_early: bool) -> Training:
    model = relu_mlp(2, 48, 3, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu")

    def run() -> list[float]:
        losses = []
        for x, y in islice(cycle(spirals()), 150):
            optimizer.zero_grad()
            loss = _cross_entropy(model(x), y)
            scaler.scale(loss).backward()
            if not clips_early:
                scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 0.05)
            scaler.step(optimizer)
            scaler.update()
            losses.append(loss.item())
        return losses

    return Training(model=model, optimizers=(optimizer,), run=run)


@healthy(_cases, "gradients are clipped to a small norm after they are unscaled")
def clipped_after_unscaling() -> Training:
    return _scaled(clips_early=False)


@healthy(_cases, "gradients are clipped while they are scaled, and Adam makes up for it")
def adam_clipped_while_scaled() -> Training:
    return _scaled(clips_early=True)


@healthy(_cases, "two thirds of the way the rate is 0, when all is learned")
def rate_zero_when_learned() -> Training:
    model = relu_mlp(2, 48, 3, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(1 - step / 140, 0.0))
    return train(model, optimizer, spirals(), _cross_entropy, 200, rates)


CASES: tuple[Case, ...] = tuple(_cases)
