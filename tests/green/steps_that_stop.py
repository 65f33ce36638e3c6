"""The loop goes on with forward and backward, and the optimizer is not stepped any more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

import gradwatch
from tests.green.program import Family, build, classify, fit_well, sgd

STOPPED = Family("Steps that stop")

LAST, STEPS = 54, 160  # the last step is far from any sampled one

Body = Callable[[int, torch.optim.Optimizer, torch.Tensor], None]


def fit_guarded(logdir: Path, body: Body, steps: int = STEPS) -> gradwatch.Watch:
    """A loop whose body has the loss of a step and does what follows."""
    model = build()
    optimizer, find_loss = sgd(model), classify(model)
    with gradwatch.watch(model, optimizer, logdir=logdir) as watch:
        for step in range(steps):
            body(step, optimizer, find_loss(step))
    return watch


def skip(step: int, optimizer: torch.optim.Optimizer, loss: torch.Tensor, last: int) -> None:
    optimizer.zero_grad()
    loss.backward()
    if step <= last:
        optimizer.step()


@STOPPED.is_unproven
def a_guard_that_skips_for_good(logdir: Path) -> gradwatch.Watch:
    return fit_guarded(logdir, lambda *given: skip(*given, LAST))


@STOPPED.is_unproven
def a_guard_that_never_lets_a_step_through(logdir: Path) -> gradwatch.Watch:
    return fit_guarded(logdir, lambda *given: skip(*given, -1))


@STOPPED.is_unproven
def a_scaler_that_always_skips(logdir: Path) -> gradwatch.Watch:
    """From some batch on no gradient is finite; the weights stay as they are."""
    scaler = torch.amp.GradScaler("cpu")

    def body(step: int, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
        optimizer.zero_grad()
        scaler.scale(loss if step <= LAST else loss * torch.inf).backward()
        scaler.step(optimizer)
        scaler.update()

    return fit_guarded(logdir, body)


@STOPPED.is_honest
def a_guard_that_skips_now_and_then(logdir: Path) -> gradwatch.Watch:
    return fit_guarded(logdir, lambda step, *given: skip(step, *given, STEPS * (step % 7 > 2)))


@STOPPED.is_honest
def a_last_step_that_is_left_half_accumulated(logdir: Path) -> gradwatch.Watch:
    def body(step: int, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
        (loss / 50).backward()
        if step % 50 == 49:
            optimizer.step()
            optimizer.zero_grad()

    return fit_guarded(logdir, body, 50 * 12 + 49)


@STOPPED.is_honest
def an_evaluation_that_builds_a_graph(logdir: Path) -> gradwatch.Watch:
    model = build()
    optimizer, find_loss = sgd(model), classify(model)
    with gradwatch.watch(model, optimizer, logdir=logdir) as watch:
        for step in range(STEPS):
            skip(step, optimizer, find_loss(step), STEPS)
        for step in range(STEPS):
            find_loss(step)
    return watch


@STOPPED.is_honest
def another_model_that_is_trained_after_it(logdir: Path) -> gradwatch.Watch:
    model = build()
    optimizer, find_loss = sgd(model), classify(model)
    with gradwatch.watch(model, optimizer, logdir=logdir / "a") as watch:
        for step in range(STEPS):
            skip(step, optimizer, find_loss(step), STEPS)
        optimizer.zero_grad()
        fit_well(logdir / "b", STEPS)
    return watch
