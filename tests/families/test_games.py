"""Players of a game: one that stands still is its own reference, and proves nothing by it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

import gradwatch
from tests.zoo import models


def play(saturates: bool) -> gradwatch.Report:
    """A generator before a critic of logits that is sure: no activation shows at which end."""
    torch.manual_seed(0)
    players = nn.ModuleDict(
        {"make": models.mlp([4, 24, 2]), "judge": models.mlp([2, 24, 24, 1], nn.LeakyReLU)}
    )
    make, judge = players["make"], players["judge"]
    slow = torch.optim.SGD(make.parameters(), lr=2e-3)
    fast = torch.optim.Adam(judge.parameters(), lr=5e-3)

    def teach(fake: Tensor) -> None:
        fast.zero_grad()
        real = 6 + 0.3 * torch.randn(32, 2)
        (softplus(-judge(real)).mean() + softplus(judge(fake.detach())).mean()).backward()
        fast.step()

    for _ in range(150):
        teach(make(torch.randn(32, 4)))
    with gradwatch.watch(players, (fast, slow)) as watch:
        for _ in range(60):
            fake = make(torch.randn(32, 4))
            teach(fake)
            slow.zero_grad()
            logits = judge(fake)
            (-softplus(logits) if saturates else softplus(-logits)).mean().backward()
            slow.step()
    return watch.report()


def test_a_player_that_stands_still_is_not_seen_to_learn() -> None:
    report = play(saturates=True)
    assert report.status == "not_judged"
    assert {state.fqn for state in report.coverage.of_state("not_judged")} >= {"make.fc0.weight"}


def test_a_player_that_moves_is_seen_to_learn() -> None:
    assert play(saturates=False).status == "healthy"
