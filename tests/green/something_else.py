"""Something else is trained than what is watched."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import gradwatch
from tests.green.program import STEPS, Family, build, classify, draw, fit, sgd

ELSEWHERE = Family("Something else is trained")


@ELSEWHERE.is_unproven
def a_copy_is_trained(logdir: Path) -> gradwatch.Watch:
    model = build()
    return fit(logdir, model, sgd(model), classify(copy.deepcopy(model)))


@ELSEWHERE.is_unproven
def a_copy_and_its_optimizer_are_trained(logdir: Path) -> gradwatch.Watch:
    model = build()
    twin = copy.deepcopy(model)
    optimizer = sgd(twin)
    with gradwatch.watch(model, logdir=logdir) as watch:
        for step in range(STEPS):
            optimizer.zero_grad()
            classify(twin)(step).backward()
            optimizer.step()
            watch.step()
    return watch


@ELSEWHERE.is_unproven
def the_loss_of_a_check_closes_over_the_original(logdir: Path) -> gradwatch.Report:
    model = build()

    def find_loss(output: Tensor, target: Tensor) -> Tensor:
        x, y = draw(0)
        return cross_entropy(model(x), y)

    return gradwatch.check(model, [draw(step) for step in range(20)], find_loss)


@ELSEWHERE.is_honest
def the_loss_of_a_check_uses_the_copy(logdir: Path) -> gradwatch.Report:
    return gradwatch.check(build(), [draw(step) for step in range(20)], cross_entropy)


@ELSEWHERE.is_unproven
def frozen_after_the_watch_began(logdir: Path) -> gradwatch.Watch:
    model = build()
    optimizer, head = sgd(model), nn.Linear(4, 4)
    with gradwatch.watch(model, optimizer, logdir=logdir) as watch:
        model.requires_grad_(False)
        for step in range(STEPS):
            x, y = draw(step)
            cross_entropy(head(model(x)), y).backward()
            optimizer.step()
    return watch


@ELSEWHERE.is_honest
def frozen_before_the_watch_began(logdir: Path) -> gradwatch.Watch:
    model = build()
    model[0].requires_grad_(False)
    return fit(logdir, model, sgd(model[2]), classify(model))


@ELSEWHERE.is_unproven
def an_optimizer_that_steps_alone(logdir: Path) -> gradwatch.Watch:
    model = build()
    optimizer = sgd(model)
    with gradwatch.watch(model, optimizer, logdir=logdir) as watch:
        for _ in range(STEPS):
            optimizer.step()
    return watch


@ELSEWHERE.is_unproven
def a_loss_times_zero(logdir: Path) -> gradwatch.Watch:
    model = build()
    return fit(logdir, model, sgd(model), lambda step: 0 * classify(model)(step))


@ELSEWHERE.is_honest
def a_small_loss(logdir: Path) -> gradwatch.Watch:
    model = build()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    return fit(logdir, model, optimizer, lambda step: 1e-4 * classify(model)(step))


@ELSEWHERE.is_unproven
def a_loss_of_something_else(logdir: Path) -> gradwatch.Watch:
    model, other = build(), nn.Parameter(torch.ones(4))

    def find_loss(step: int) -> Tensor:
        model(draw(step)[0])
        return other.square().sum()

    return fit(logdir, model, sgd(model), find_loss)


@ELSEWHERE.is_honest
def a_loss_of_something_else_as_well(logdir: Path) -> gradwatch.Watch:
    model, other = build(), nn.Parameter(torch.ones(4))
    return fit(logdir, model, sgd(model), lambda step: classify(model)(step) + other.square().sum())
