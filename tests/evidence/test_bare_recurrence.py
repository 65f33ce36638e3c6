"""A recurrent net written out with bare parameters has no module calls, only its activations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import gradwatch
from gradwatch.evidence.time_steps import find_chains, measure_time_share
from gradwatch.evidence.topology import map_topology
from gradwatch.thresholds import Thresholds


class Elman(nn.Module):
    """h = sigmoid(x W + h U), read out at the end."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(1, hidden) * 0.3)
        self.u = nn.Parameter(torch.randn(hidden, hidden) * 0.3)
        self.v = nn.Parameter(torch.randn(hidden, 1) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], self.u.shape[0])
        for t in range(x.shape[1]):
            h = torch.sigmoid(x[:, t : t + 1] @ self.w + h @ self.u)
        return h @ self.v


class Stack(nn.Module):
    """As many bare matrices as activations: deep, not recurrent."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(8, 8) * 0.5) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for weight in self.weights:
            x = torch.tanh(x @ weight)
        return x


def watch_training(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> gradwatch.Report:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with gradwatch.watch(model, optimizer, every_n_steps=1) as watch:
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
    return watch.report()


def test_a_loop_over_bare_matrices_is_seen_along_time() -> None:
    torch.manual_seed(0)
    x = torch.randn(32, 30)
    report = watch_training(Elman(8), x, x[:, :1], 64)
    (finding,) = report.of_kind("vanishing")
    assert finding.cause == "through_time"
    assert set(finding.layers[:3]) <= {"w", "u", "v"}


def test_a_deep_stack_of_bare_matrices_is_not() -> None:
    torch.manual_seed(0)
    x = torch.randn(32, 8)
    report = watch_training(Stack(8), x, x, 3)
    assert report.history is not None
    reading = report.history.latest
    assert find_chains(map_topology(reading.topology.layer_set), Thresholds().recurrent_calls) == {}
    assert measure_time_share(reading, Thresholds()) == []
