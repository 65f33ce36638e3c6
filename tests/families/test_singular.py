"""A NaN names the operation that can have made it, with its line; guarded, it never comes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import gradwatch
from tests.families.training import list_kinds

BREAK = 5
"""The step from which on the input of the operation reaches the edge of its domain."""

EPS = 1e-6


class Network(nn.Module):
    """Two layers with an operation between them, and one behind them."""

    def __init__(self, between: Callable[..., Tensor], behind: Callable[..., Tensor]) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(6, 8), nn.Linear(8, 2)
        self.between, self.behind = between, behind

    def forward(self, x: Tensor, is_bad: bool, eps: float) -> Tensor:
        h = self.first(x)
        hidden = self.between(h * 0 if is_bad else h, eps) if self.between else h
        return self.behind(self.head(hidden), is_bad, eps) if self.behind else self.head(hidden)


def scale(h: Tensor, eps: float) -> Tensor:
    return h / (h.norm(dim=1, keepdim=True) + eps)  # line of division


def root_behind_where(h: Tensor, eps: float) -> Tensor:
    return torch.where(h > 0, torch.sqrt(h.clamp(min=eps)), h)  # line of sqrt


def grow(h: Tensor, eps: float) -> Tensor:
    return torch.exp(h + (0 if eps else 100.0 * (h.detach() == 0)))  # line of exp


def log_of_softmax(y: Tensor, is_bad: bool, eps: float) -> Tensor:
    p = torch.softmax(y * (1e4 if is_bad else 1), 1)
    return torch.log(p + eps)  # line of log


def distance(y: Tensor, is_bad: bool, eps: float) -> Tensor:
    apart = (y - y.detach() * (1.0 if is_bad else 0.5)).pow(2).sum(1, keepdim=True)
    return (apart + eps) ** 0.5  # line of power


def angle(y: Tensor, is_bad: bool, eps: float) -> Tensor:
    unit = functional.normalize(y, dim=1)
    cosine = (unit * (unit.detach() if is_bad else unit.detach().roll(1, 0) * 0.5)).sum(1)
    return torch.acos(cosine.clamp(-1 + eps, 1 - eps))[:, None]  # line of acos


RUNS = {
    "division": (scale, None),
    "sqrt": (root_behind_where, None),
    "exp": (grow, None),
    "log": (None, log_of_softmax),
    "power": (None, distance),
    "acos": (None, angle),
}


def train(name: str, eps: float, every_n_steps: int = 1, begin: int = BREAK) -> gradwatch.Report:
    torch.manual_seed(0)
    model = Network(*RUNS[name])
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with gradwatch.watch(model, optimizer, every_n_steps=every_n_steps) as watch:
        for step in range(begin + 4 * every_n_steps):
            y = model(torch.randn(16, 6), step >= begin, eps)
            loss = -y[:, 0].mean() if y.shape[1] == 2 else y.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert watch.failure is None
    return watch.report()


def find_line(name: str) -> str:
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    (number,) = [i for i, line in enumerate(lines, 1) if line.endswith(f"# line of {name}")]
    return f"test_singular.py:{number}"


@pytest.mark.parametrize("name", RUNS)
def test_the_operation_is_named_with_its_line(name):
    (finding,) = train(name, 0.0).findings
    assert finding.kind == "nonfinite"
    assert find_line(name) in finding.message
    assert find_line(name) in finding.remedy
    assert finding.source.endswith(find_line(name))


@pytest.mark.parametrize("name", RUNS)
def test_guarded_it_is_no_finding(name):
    assert list_kinds(train(name, EPS)) == []


def test_between_samples_the_operations_that_were_noted_come_first():
    (finding,) = train("power", 0.0, every_n_steps=20, begin=43).findings
    assert "its origin was not seen" in finding.message
    assert "between them" not in finding.message
    assert f"Guard a power ({find_line('power')}" in finding.remedy.replace("tests/families/", "")


def test_a_batch_with_nan_is_the_inputs_fault():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with gradwatch.watch(model, optimizer, every_n_steps=1) as watch:
        for step in range(8):
            x = torch.randn(16, 6)
            x[0, 0] = float("nan") if step >= BREAK else 0.0
            optimizer.zero_grad()
            model(x).mean().backward()
            optimizer.step()
    (finding,) = watch.report().findings
    assert finding.layers == ("0",)
    assert finding.remedy.startswith("Check the input batch for NaN or Inf first")
