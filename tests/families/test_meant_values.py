"""Values that are meant hurt nothing; what hurts is named where and when it began."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import gradwatch
from tests.families.training import list_kinds, make_labelled, train

VALUES = [float("-inf"), torch.finfo(torch.float32).min, -1e30, -1e9]


class MaskedScores(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        return scores.masked_fill(hidden, self.value)


class Reader(nn.Module):
    def __init__(self, width: int, value: float) -> None:
        super().__init__()
        self.parts, self.match = nn.Linear(width, 3 * width), MaskedScores(value)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.parts(x).chunk(3, -1)
        return x + self.out(self.match(q, k).softmax(-1) @ v)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("every", [1, 50])
def test_masked_scores_are_meant(value, every):
    torch.manual_seed(0)
    layers = [nn.Embedding(12, 16), Reader(16, value), nn.LayerNorm(16), nn.Linear(16, 12)]
    generator = torch.Generator().manual_seed(1)

    def batch(_: int) -> tuple[Tensor, Tensor]:
        x = (torch.randint(0, 12, (16, 1), generator=generator) + 5 * torch.arange(9)) % 12
        return x[:, :-1], x[:, 1:].flatten()

    report = train(nn.Sequential(*layers, nn.Flatten(0, 1)), batch, 60, every_n_steps=every)
    assert list_kinds(report) == []


@pytest.mark.parametrize("value", VALUES)
def test_actions_that_are_not_allowed_are_meant(value):
    class Policy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, 6))

        def forward(self, x: Tensor) -> Tensor:
            scores = self.body(x)
            forbidden = torch.arange(6) > 3
            return torch.where(forbidden, torch.full_like(scores, value), scores)

    torch.manual_seed(0)
    assert list_kinds(train(Policy(), make_labelled(16, 4))) == []


class Pairs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def measure_distances(out: Tensor, _: Tensor, floor: float = 0.0) -> Tensor:
    first, second = out.chunk(2)
    return ((first - second).square().sum(1) + floor).sqrt().mean()


def make_pairs(broken_at: int):
    generator = torch.Generator().manual_seed(1)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(16, 8, generator=generator)
        if step == broken_at:
            x[8] = x[0]
        return x, x

    return batch


@pytest.mark.parametrize(("every", "seen"), [(1, True), (50, False)])
def test_where_a_gradient_broke_is_kept(every, seen):
    torch.manual_seed(0)
    report = train(Pairs(), make_pairs(40), 90, None, measure_distances, every)
    finding = report.findings[0]
    assert (finding.kind, finding.layers[0]) == ("nonfinite", "net.2")
    assert "sqrt" in finding.remedy
    assert ("at step 40" in finding.message) == seen
    assert ("between steps" in finding.message) == (not seen)


def test_the_same_pairs_with_an_epsilon_are_healthy():
    torch.manual_seed(0)

    def guarded(out: Tensor, y: Tensor) -> Tensor:
        return measure_distances(out, y, 1e-6)

    assert list_kinds(train(Pairs(), make_pairs(40), 90, None, guarded)) == []


def test_after_a_rollback_every_step_is_sampled():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    kept = copy.deepcopy(model.state_dict())
    with gradwatch.watch(model, optimizer) as watch:
        for step in range(230):
            out = model(torch.randn(16, 8))
            loss = out.square().mean()
            if step in (120, 209):  # neither is sampled by the schedule
                loss = loss + (0 * out).sqrt().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step == 190:
                model.load_state_dict(kept)
    assert "at step 209" in watch.report().findings[0].message
