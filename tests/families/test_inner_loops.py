"""Meta-learning: an inner loop on a copy, whose gradients reach the model or do not."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import gradwatch
from tests.families.training import list_kinds

mse = nn.functional.mse_loss
INNER_RATE = 0.05


def make_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(1, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 1)
    )


def make_task(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Support and query points of a sine."""
    phase = torch.rand(1, generator=generator)
    x, query = (torch.rand(12, 1, generator=generator) * 6 - 3 for _ in range(2))
    return x, torch.sin(x + phase), query, torch.sin(query + phase)


def adapt(model: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    """A copy after one step on the support points."""
    fast = copy.deepcopy(model)
    optimizer = torch.optim.SGD(fast.parameters(), INNER_RATE)
    mse(fast(x), y).backward()
    optimizer.step()
    optimizer.zero_grad()
    return fast


def forget(model: nn.Module, task: tuple[Tensor, ...]) -> None:
    fast = adapt(model, *task[:2])
    mse(fast(task[2]), task[3]).backward()


def copy_gradients(model: nn.Module, task: tuple[Tensor, ...]) -> None:
    fast = adapt(model, *task[:2])
    mse(fast(task[2]), task[3]).backward()
    for param, other in zip(model.parameters(), fast.parameters(), strict=True):
        param.grad = other.grad


def move_towards(model: nn.Module, task: tuple[Tensor, ...]) -> None:
    """Nichol, Achiam & Schulman (2018): the change of the copy is the gradient."""
    fast = adapt(model, *task[:2])
    for param, other in zip(model.parameters(), fast.parameters(), strict=True):
        param.grad = (param.detach() - other.detach()) / INNER_RATE


def differentiate(model: nn.Module, task: tuple[Tensor, ...]) -> None:
    """Finn, Abbeel & Levine (2017): through the inner step."""
    slow = dict(model.named_parameters())
    loss = mse(functional_call(model, slow, (task[0],)), task[1])
    grads = torch.autograd.grad(loss, list(slow.values()), create_graph=True)
    pairs = zip(slow.items(), grads, strict=True)
    fast = {name: param - INNER_RATE * grad for (name, param), grad in pairs}
    mse(functional_call(model, fast, (task[2],)), task[3]).backward()


def train(inner, steps: int = 45, every_n_steps: int = 1) -> gradwatch.Report:
    model, generator = make_model(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    with gradwatch.watch(model, optimizer, every_n_steps=every_n_steps) as watch:
        for _ in range(steps):
            optimizer.zero_grad()
            inner(model, make_task(generator))
            optimizer.step()
    assert watch.failure is None
    return watch.report()


@pytest.mark.parametrize("every", [1, 50])
def test_a_copy_that_keeps_its_gradients_is_found(every):
    (finding,) = train(forget, 80, every).findings
    assert (finding.kind, finding.layers) == ("disconnected", ("0", "2", "4"))
    assert "the model was not called" in finding.message
    assert "copy.deepcopy" in finding.remedy


def test_before_it_is_sure_it_is_a_note():
    report = train(forget, 8)
    assert report.status == "not_judged"
    (note,) = report.notes
    assert "layer 0, layer 2 and layer 4 were never used" in note.message


@pytest.mark.parametrize("inner", [copy_gradients, move_towards, differentiate])
def test_inner_loops_that_reach_the_model_are_healthy(inner):
    report = train(inner)
    assert list_kinds(report) == []
    assert report.status == "healthy"
