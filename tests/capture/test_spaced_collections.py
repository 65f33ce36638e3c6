"""Python collects as often as without a watch, and its thresholds are the user's again after it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch
from torch import nn

import gradwatch
from gradwatch.capture.spaced_collections import SpacedCollections

MINE = (1000, 11, 12)


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(*MINE)
    yield
    gc.set_threshold(*before)


def count_collections(is_watched: bool, n_steps: int) -> int:
    """During the steps of a network of 120 modules, each of them sampled."""
    layers = (layer for _ in range(60) for layer in (nn.Linear(8, 8), nn.Tanh()))
    model = nn.Sequential(*layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    watching = gradwatch.watch(model, optimizer, every_n_steps=1) if is_watched else nullcontext()
    starts: list[str] = []
    with watching:
        for step in range(3 + n_steps):
            if step == 3:  # those before are followed
                gc.callbacks.append(note := lambda phase, _: starts.append(phase))
            optimizer.zero_grad()
            model(torch.ones(4, 8)).mean().backward()
            optimizer.step()
        gc.callbacks.remove(note)
    return starts.count("start")


def test_a_sampled_step_makes_nobody_collect() -> None:
    gc.set_threshold(500, 10, 10)
    assert count_collections(True, 5) <= count_collections(False, 5) + 1


def test_sampled_steps_do_not_count_while_they_live() -> None:
    first, second = SpacedCollections(), SpacedCollections()
    first.begin(100)
    alone = gc.get_threshold()
    second.begin(100)
    both = gc.get_threshold()
    assert MINE[0] < alone[0] < both[0]
    assert alone[1:] == both[1:] == MINE[1:]
    first.end()
    assert gc.get_threshold() == alone
    first.end()
    second.end()
    assert gc.get_threshold() == MINE


def test_what_the_user_sets_meanwhile_stays() -> None:
    first, second = SpacedCollections(), SpacedCollections()
    first.begin(100)
    second.begin(100)
    gc.set_threshold(5000, 5, 5)
    first.end()
    assert gc.get_threshold() == (5000, 5, 5)
    second.end()
    assert gc.get_threshold() == (5000, 5, 5)


def test_the_next_sampled_step_is_added_to_what_the_user_has_set() -> None:
    spaced = SpacedCollections()
    spaced.begin(100)
    gc.set_threshold(5000, 5, 5)
    spaced.begin(200)
    assert gc.get_threshold()[0] > 5000
    spaced.end()
    assert gc.get_threshold() == (5000, 5, 5)


def test_collections_that_are_switched_off_stay_off() -> None:
    gc.set_threshold(0, 10, 10)
    spaced = SpacedCollections()
    spaced.begin(100)
    assert gc.get_threshold()[0] == 0
    gc.set_threshold(*MINE)
    spaced.end()
    assert gc.get_threshold() == MINE


def test_what_is_dropped_ends() -> None:
    spaced = SpacedCollections()
    spaced.begin(100)
    del spaced
    assert gc.get_threshold() == MINE
