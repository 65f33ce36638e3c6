"""Gradients that hooks on the layers do not see."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import gradwatch
from tests.green.program import STEPS, Family, build, build_deep, classify, draw, fit, sgd

BY_HAND = Family("Gradients that no `backward()` brings")


def fit_by_grad(logdir: Path, model: nn.Module) -> gradwatch.Watch:
    optimizer, params = sgd(model), list(model.parameters())
    with gradwatch.watch(model, optimizer, logdir=logdir) as watch:
        for step in range(STEPS):
            grads = torch.autograd.grad(classify(model)(step), params)
            for param, grad in zip(params, grads, strict=True):
                param.grad = grad
            optimizer.step()
    return watch


@BY_HAND.is_unproven
def autograd_grad_of_a_deep_sigmoid_network(logdir: Path) -> gradwatch.Watch:
    return fit_by_grad(logdir, build_deep())


@BY_HAND.is_honest
def autograd_grad(logdir: Path) -> gradwatch.Watch:
    return fit_by_grad(logdir, build())


def fit_marked(logdir: Path, model: nn.Module) -> gradwatch.Watch:
    params = list(model.parameters())
    with gradwatch.watch(model, logdir=logdir) as watch:
        for step in range(STEPS):
            grads = torch.autograd.grad(classify(model)(step), params)
            with torch.no_grad():
                for param, grad in zip(params, grads, strict=True):
                    param.grad = grad
                    param -= 0.1 * grad
            watch.step()
    return watch


@BY_HAND.is_unproven
def updates_by_hand_of_a_deep_sigmoid_network(logdir: Path) -> gradwatch.Watch:
    return fit_marked(logdir, build_deep())


@BY_HAND.is_honest
def updates_by_hand(logdir: Path) -> gradwatch.Watch:
    return fit_marked(logdir, build())


def fit_with_surgery(logdir: Path, model: nn.Module) -> gradwatch.Watch:
    """Gradients of two tasks, each taken out of ``.grad``, joined and put back."""
    optimizer, params = sgd(model), list(model.parameters())
    with gradwatch.watch(model, optimizer, logdir=logdir) as watch:
        for step in range(STEPS):
            joined = [torch.zeros_like(param) for param in params]
            for task in range(2):
                grads = torch.autograd.grad(classify(model)(2 * step + task), params)
                joined = [a + b / 2 for a, b in zip(joined, grads, strict=True)]
            for param, grad in zip(params, joined, strict=True):
                param.grad = grad
            optimizer.step()
    return watch


@BY_HAND.is_unproven
def surgery_on_gradients_of_a_deep_sigmoid_network(logdir: Path) -> gradwatch.Watch:
    return fit_with_surgery(logdir, build_deep())


@BY_HAND.is_honest
def surgery_on_gradients(logdir: Path) -> gradwatch.Watch:
    return fit_with_surgery(logdir, build())


CHECKPOINTED = Family("Reentrant activation checkpoints")


def fit_checkpointed(logdir: Path, model: nn.Sequential) -> gradwatch.Watch:
    def find_loss(step: int) -> Tensor:
        x, y = draw(step)
        hidden = x.requires_grad_()
        for layer in model[:-1]:
            hidden = checkpoint(layer, hidden, use_reentrant=True)
        return cross_entropy(model[-1](hidden), y)

    return fit(logdir, model, sgd(model), find_loss)


@CHECKPOINTED.is_unproven
def a_checkpoint_around_each_of_twelve_sigmoids(logdir: Path) -> gradwatch.Watch:
    return fit_checkpointed(logdir, build_deep())


@CHECKPOINTED.is_honest
def a_checkpoint_around_each_layer(logdir: Path) -> gradwatch.Watch:
    return fit_checkpointed(logdir, build())


class Segments(nn.Module):
    """Checkpoints inside the model's own forward, over some layers each."""

    def __init__(self, layers: nn.Sequential, segments: int) -> None:
        super().__init__()
        self.layers, self.segments = layers, segments

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint_sequential(
            self.layers, self.segments, x.requires_grad_(), use_reentrant=True
        )


@CHECKPOINTED.is_unproven
def segments_of_a_deep_sigmoid_network(logdir: Path) -> gradwatch.Watch:
    model = Segments(build_deep(), 5)
    return fit(logdir, model, sgd(model), classify(model))


@CHECKPOINTED.is_honest
def segments(logdir: Path) -> gradwatch.Watch:
    model = Segments(build(), 2)
    return fit(logdir, model, sgd(model), classify(model))
