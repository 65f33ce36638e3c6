"""Outputs at the wrong end: saturated, and pulled back by the loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.capture.tools import make_loop, read, watch_run


def watch(target: Tensor, *more: Tensor) -> list[float]:
    """A detector whose outputs are nearly all 0, in a step with one pass for each target."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2), nn.Sigmoid())
    nn.init.constant_(model[2].bias, -9.0)
    optimizer, x = torch.optim.SGD(model.parameters(), lr=0.0), torch.randn(len(target), 3)

    def loop() -> None:
        for _ in range(4):
            optimizer.zero_grad()
            for wanted in (target, *more):
                nn.functional.binary_cross_entropy(model(x), wanted).backward()
            optimizer.step()

    records = watch_run(model, optimizer, loop)
    assert read(records[-1], "opposed_fraction", "1") != read(records[-1], "opposed_fraction", "1")
    return [read(record, "opposed_fraction", "3") for record in records]


def test_what_is_sure_of_the_wrong_answer_is_opposed_in_followed_and_planned_steps() -> None:
    target = torch.zeros(8, 2)
    target[:6, 0] = 1.0
    unknown, *known = watch(target)  # no step before the first has told where the outputs are
    assert unknown != unknown
    assert known == pytest.approx([6 / 16] * 3)


def test_what_is_sure_of_the_right_answer_is_not_opposed() -> None:
    assert watch(torch.zeros(8, 2))[1:] == [0.0] * 3


def test_of_several_passes_the_one_that_opposes_most_counts() -> None:
    assert watch(torch.zeros(8, 2), torch.ones(8, 2))[1:] == [1.0] * 3


def test_an_output_that_is_open_is_not_opposed() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    loop = make_loop(model, optimizer, torch.randn(5, 3), steps=2)
    assert read(watch_run(model, optimizer, loop)[-1], "opposed_fraction", "1") == 0
