"""Ways in which people hold a watch: in a generator, one in another, never entered, run twice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

import gradwatch
from tests.capture.tools import assert_no_trace, make_loop


def make_net() -> tuple[nn.Sequential, torch.optim.Optimizer]:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def test_a_generator_that_is_closed_in_the_middle_of_a_step() -> None:
    model, optimizer = make_net()
    watches = []

    def train() -> Iterator[float]:
        with gradwatch.watch(model, optimizer) as watch:
            watches.append(watch)
            while True:
                loss = model(torch.randn(3, 4)).square().mean()
                yield loss.item()
                loss.backward()
                optimizer.step()

    steps = train()
    for _ in range(3):
        next(steps)
    steps.close()
    assert_no_trace(model, (optimizer,))
    assert watches[0].report().records == 2


def test_a_watch_on_a_part_inside_a_watch_on_the_whole() -> None:
    model, optimizer = make_net()
    with gradwatch.watch(model, optimizer) as whole, gradwatch.watch(model[0], optimizer) as part:
        make_loop(model, optimizer, torch.randn(3, 4))()
    assert_no_trace(model, (optimizer,))
    assert whole.failure is None
    assert part.failure is None
    assert (whole.report().records, part.report().records) == (3, 3)


def test_a_watch_that_is_never_entered_and_a_cell_that_is_run_again() -> None:
    model, optimizer = make_net()
    watch = gradwatch.watch(model, optimizer)
    make_loop(model, optimizer, torch.randn(3, 4))()
    with pytest.warns(RuntimeWarning, match="ended the watch"):
        again = gradwatch.watch(model, optimizer)
    assert watch.report().records == 3
    make_loop(model, optimizer, torch.randn(3, 4))()
    again.detach()
    assert again.report().records == 3
    assert_no_trace(model, (optimizer,))


def test_an_optimizer_that_is_made_later() -> None:
    model = nn.Linear(4, 2)
    with gradwatch.watch(model) as watch:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            make_loop(model, optimizer, torch.randn(3, 4), steps=1)()
            watch.step()
    assert watch.report().records == 3


def test_another_dtype_and_a_new_parameter_in_the_middle() -> None:
    model, optimizer = make_net()
    with gradwatch.watch(model, optimizer) as watch:
        make_loop(model, optimizer, torch.randn(3, 4), steps=2)()
        model.double()
        x = torch.randn(3, 4, dtype=torch.float64)
        make_loop(model, optimizer, x, steps=2)()
        model[0].weight = nn.Parameter(torch.randn(4, 4, dtype=torch.float64))
        optimizer.param_groups[0]["params"] = list(model.parameters())
        make_loop(model, optimizer, x, steps=2)()
    assert watch.failure is None
    assert watch.report().records == 6
    assert_no_trace(model, (optimizer,))
