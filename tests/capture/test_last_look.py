"""Weights that break after the last sampled step are seen when the watch ends."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gradwatch
from gradwatch.judgement import judge_latest


def train(breaks_at: int, steps: int = 70, **settings) -> gradwatch.Watch:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with gradwatch.watch(model, optimizer, **settings) as watching:
        for step in range(steps):
            x = torch.randn(16, 4)
            if step == breaks_at:
                x[0] = float("nan")
            optimizer.zero_grad()
            (model(x) - x.sum(1, keepdim=True)).square().mean().backward()
            optimizer.step()
    return watching


def test_weights_that_break_behind_the_last_sample_are_no_pass(tmp_path) -> None:
    report = train(60, logdir=tmp_path).report()
    (finding,) = report.findings
    assert (finding.kind, finding.layers) == ("nonfinite", ("2", "0"))
    assert "between steps 49 and 70" in finding.message
    judged = judge_latest(tmp_path)
    assert judged is not None
    assert [found.message for found in judged.verdict.findings] == [finding.message]


def test_weights_that_are_whole_add_no_record() -> None:
    report = train(1000).report()
    assert report.healthy
    assert report.history.last_step == 49


def test_what_is_seen_at_a_sampled_step_is_told_from_there() -> None:
    report = train(3).report()
    assert report.findings[0].first_step == 3


@pytest.mark.parametrize("steps", [1, 2])
def test_a_short_run_is_left_alone(steps: int) -> None:
    assert train(1000, steps=steps).report().status == "not_judged"
