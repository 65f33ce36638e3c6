"""A zero that lasts behind an operation without a slope is a cut; a zero by design is not."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import gradwatch
from gradwatch.report import Report


class Rounding(nn.Module):
    """Rounds its input; with ``passes``, straight-through."""

    def __init__(self, passes: bool) -> None:
        super().__init__()
        self.passes = passes

    def forward(self, x: Tensor) -> Tensor:
        rounded = x.round()
        return x + (rounded - x).detach() if self.passes else rounded


class ReZero(nn.Module):
    """A branch behind a factor that begins at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Linear(8, 8)
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.alpha * self.branch(x)


class Between(nn.Module):
    """An operation without a slope between two weights, in a forward of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        after: Tensor = self.after(self.before(x).floor())
        return after


class Shut(nn.Module):
    """One of two experts, the other of which a hard choice leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])

    def forward(self, x: Tensor) -> Tensor:
        chosen = torch.tensor([1.0, 0.0])
        first, second = (
            expert(x) * share for expert, share in zip(self.experts, chosen, strict=True)
        )
        total: Tensor = first + second
        return total


def train(middle: nn.Module) -> Report:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), middle, nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    x = torch.randn(64, 4)
    with gradwatch.watch(model, optimizer, every_n_steps=1) as watch:
        for _ in range(12):
            optimizer.zero_grad()
            (model(x) - x.sum(1, keepdim=True)).square().mean().backward()
            optimizer.step()
    return watch.report()


def test_rounding_disconnects_what_is_before_it() -> None:
    (finding,) = train(Rounding(passes=False)).findings
    assert (finding.kind, finding.cause) == ("disconnected", "disconnected")
    assert finding.layers == ("0",)


def test_a_straight_through_estimator_does_not() -> None:
    assert train(Rounding(passes=True)).healthy


def test_a_factor_that_begins_at_zero_does_not() -> None:
    assert train(ReZero()).healthy


def test_a_branch_that_opens_slowly_is_left_alone() -> None:
    """Twenty ReZero blocks under SGD: their factors move fast against their own size."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
            self.alpha = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.alpha * self.branch(x)

    report = train(nn.Sequential(*(Block() for _ in range(20))))
    assert report.healthy


def test_the_same_between_two_weights() -> None:
    (finding,) = train(Between()).findings
    assert (finding.kind, finding.layers) == ("disconnected", ("0", "1.before"))


def test_an_expert_that_is_not_chosen_may_be_chosen_later() -> None:
    assert not train(Shut()).findings
