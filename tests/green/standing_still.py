"""The network stands still as a whole: a gradient of exactly 0 everywhere is no convergence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import gradwatch
from tests.green.program import Family, build, draw, fit, sgd

STILL = Family("The whole network stands still")


def fit_closing(
    logdir: Path, last: nn.Module, closes: bool, shift: float = -200.0
) -> gradwatch.Watch:
    """From step 12 on the bias before the output's activation closes it, if it does."""
    model = build(last=last)
    target = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))

    def find_loss(step: int) -> Tensor:
        if closes and step == 12:
            with torch.no_grad():
                model[2].bias.fill_(shift)
        x, _ = draw(step)
        return mse_loss(model(x), (x @ target).sigmoid())

    return fit(logdir, model, sgd(model), find_loss, steps=400)


@STILL.is_unproven
def an_output_relu_that_closes(logdir: Path) -> gradwatch.Watch:
    return fit_closing(logdir, nn.ReLU(), closes=True)


@STILL.is_unproven
def an_output_sigmoid_that_closes(logdir: Path) -> gradwatch.Watch:
    return fit_closing(logdir, nn.Sigmoid(), closes=True)


@STILL.is_unproven
def an_output_tanh_that_closes(logdir: Path) -> gradwatch.Watch:
    return fit_closing(logdir, nn.Tanh(), closes=True)


@STILL.is_honest
def an_output_sigmoid(logdir: Path) -> gradwatch.Watch:
    return fit_closing(logdir, nn.Sigmoid(), closes=False)


class Clamp(nn.Module):
    """Outputs cut to a range."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(0, 1)


@STILL.is_unproven
def an_output_clamp_that_closes(logdir: Path) -> gradwatch.Watch:
    return fit_closing(logdir, Clamp(), closes=True, shift=50.0)


@STILL.is_honest
def an_output_clamp(logdir: Path) -> gradwatch.Watch:
    return fit_closing(logdir, Clamp(), closes=False)


def fit_raw(logdir: Path, scale: float, last: nn.Module) -> gradwatch.Watch:
    """Features or states as they come, in units of their own."""
    torch.manual_seed(3)
    model = build(last=last)
    is_bounded = isinstance(last, nn.Sigmoid)
    finish: Callable[[Tensor], Tensor] = torch.sigmoid if is_bounded else torch.tanh

    def find_loss(step: int) -> Tensor:
        x, _ = draw(step)
        return mse_loss(model(scale * x), finish(x[:, :4]))

    return fit(logdir, model, sgd(model), find_loss, steps=400)


@STILL.is_unproven
def raw_features_into_an_output_sigmoid(logdir: Path) -> gradwatch.Watch:
    return fit_raw(logdir, 1e5, nn.Sigmoid())


@STILL.is_honest
def scaled_features_into_an_output_sigmoid(logdir: Path) -> gradwatch.Watch:
    return fit_raw(logdir, 1.0, nn.Sigmoid())


@STILL.is_unproven
def an_actor_on_raw_states(logdir: Path) -> gradwatch.Watch:
    return fit_raw(logdir, 1e5, nn.Tanh())


@STILL.is_honest
def an_actor_on_scaled_states(logdir: Path) -> gradwatch.Watch:
    return fit_raw(logdir, 1.0, nn.Tanh())


@STILL.is_honest
def a_minimum_above_zero(logdir: Path) -> gradwatch.Watch:
    """Full-batch least squares on noise: the gradient ends at 0 and the loss does not."""
    model = nn.Sequential(nn.Linear(8, 4))
    x, noise = torch.randn(64, 8), torch.randn(64, 4)
    return fit(logdir, model, sgd(model), lambda _: mse_loss(model(x), x[:, :4] + noise), 600)
