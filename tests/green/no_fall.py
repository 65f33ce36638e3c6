"""Weights move, and the loss stays where it began.

Of such runs chance makes one in thirty look as if the loss had fallen: seeds are those of the rest.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softmax

import gradwatch
from tests.green.program import Family, build, classify, draw, fit, sgd

NO_FALL = Family("The loss does not fall")

_STEPS = 200


@NO_FALL.is_unproven
def the_weights_are_put_back_after_each_step(logdir: Path) -> gradwatch.Watch:
    torch.manual_seed(1)
    model = build()
    first, find_loss = copy.deepcopy(model.state_dict()), classify(model)

    def put_back(step: int) -> Tensor:
        model.load_state_dict(first)
        return find_loss(step)

    return fit(logdir, model, sgd(model), put_back, _STEPS)


@NO_FALL.is_honest
def the_weights_are_put_back_once(logdir: Path) -> gradwatch.Watch:
    torch.manual_seed(0)
    model = build()
    first, find_loss = copy.deepcopy(model.state_dict()), classify(model)

    def put_back(step: int) -> Tensor:
        if step == 20:
            model.load_state_dict(first)
        return find_loss(step)

    return fit(logdir, model, sgd(model), put_back, _STEPS)


@NO_FALL.is_unproven
def labels_that_say_nothing(logdir: Path) -> gradwatch.Watch:
    torch.manual_seed(0)
    model = build()
    with torch.no_grad():
        model[-1].weight.mul_(0.1)  # it begins with what is best: every class as likely

    def find_loss(step: int) -> Tensor:
        x, y = draw(step)
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(step))
        return cross_entropy(model(x), y[order])

    return fit(logdir, model, sgd(model, 0.03), find_loss, _STEPS)


@NO_FALL.is_honest
def the_same_is_allowed(logdir: Path) -> gradwatch.Report:
    """Who knows that the value tells nothing may say so."""
    torch.manual_seed(0)
    model = build()
    find_loss, limits = classify(model), gradwatch.Thresholds(allow_unjudged=("*",))
    optimizer = sgd(model)
    with gradwatch.watch(model, optimizer, thresholds=limits) as watch:
        for step in range(_STEPS):
            loss = find_loss(step)
            optimizer.zero_grad()
            (loss / loss.detach()).backward()
            optimizer.step()
    return watch.report()


class Recaller(nn.Module):
    """What came first of twelve, after a recurrence that forgets nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(8, 32, batch_first=True)
        nn.init.orthogonal_(self.rnn.weight_hh_l0)
        self.head = nn.Linear(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


def recall(logdir: Path, rate: float) -> gradwatch.Watch:
    torch.manual_seed(0)
    model, source = Recaller(), torch.Generator().manual_seed(0)

    def find_loss(_: int) -> Tensor:
        y = torch.randint(8, (32,), generator=source)
        x = 0.1 * torch.randn(32, 12, 8, generator=source)
        x[range(32), 0, y] = 3.0
        return cross_entropy(model(x), y)

    return fit(logdir, model, sgd(model, rate), find_loss, _STEPS)


def descend(logdir: Path, rate: float) -> gradwatch.Watch:
    """On one batch: what is left of the fall is all that the steps have made."""
    torch.manual_seed(0)
    model = build()
    x, y = draw(0)
    return fit(logdir, model, sgd(model, rate), lambda _: cross_entropy(model(x), y), _STEPS)


@NO_FALL.is_unproven
def steps_that_are_too_small(logdir: Path) -> gradwatch.Watch:
    return descend(logdir, 1e-4)


@NO_FALL.is_honest
def the_same_at_a_larger_rate(logdir: Path) -> gradwatch.Watch:
    return descend(logdir, 0.1)


@NO_FALL.is_unproven
def steps_that_overshoot(logdir: Path) -> gradwatch.Watch:
    return recall(logdir, 0.3)


@NO_FALL.is_honest
def the_same_at_a_smaller_rate(logdir: Path) -> gradwatch.Watch:
    return recall(logdir, 0.03)


@NO_FALL.is_honest
def steps_that_are_to_raise_it(logdir: Path) -> gradwatch.Watch:
    torch.manual_seed(0)
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), 0.3, maximize=True)

    def find_reward(step: int) -> Tensor:
        x, y = draw(step)
        return softmax(model(x), 1)[range(len(y)), y].mean()

    return fit(logdir, model, optimizer, find_reward, _STEPS)


@NO_FALL.is_honest
def a_surrogate_around_zero(logdir: Path) -> gradwatch.Watch:
    """A policy's gradient: the value says nothing, and the reward rises."""
    torch.manual_seed(0)
    model = build()

    def find_surrogate(step: int) -> Tensor:
        x, y = draw(step)
        policy = torch.distributions.Categorical(logits=model(x))
        action = policy.sample()
        reward = (action == y).float()
        advantage = (reward - reward.mean()) / (reward.std() + 1e-6)
        return -(policy.log_prob(action) * advantage).mean()

    return fit(logdir, model, sgd(model, 0.1), find_surrogate, _STEPS)
