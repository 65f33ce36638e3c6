"""Python collects as often as without a watch, and its thresholds are the user's again after it."""

from __future__ import annotations

import copy
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from itertools import count
from types import FrameType
from typing import Any

import pytest
import torch
from torch import nn

import gradwatch
from gradwatch.capture import spaced_collections
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


def test_what_a_sampled_step_keeps_does_not_count_while_it_lives() -> None:
    spaced = SpacedCollections()
    spaced.begin(100)
    small = gc.get_threshold()
    spaced.begin(200)
    assert MINE[0] < small[0] < gc.get_threshold()[0]
    assert small[1:] == MINE[1:]
    spaced.end()
    spaced.end()
    assert gc.get_threshold() == MINE


@pytest.mark.parametrize("ends_first", [0, 1])
def test_steps_that_are_sampled_together_leave_nothing(ends_first: int) -> None:
    both = [SpacedCollections(), SpacedCollections()]
    for spaced in both:
        spaced.begin(100)
    both[ends_first].end()
    both[1 - ends_first].end()
    assert gc.get_threshold() == MINE
    both[1].begin(100)
    assert gc.get_threshold() != MINE
    both[1].end()
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


@pytest.mark.parametrize("make_copy", [copy.copy, copy.deepcopy])
def test_a_copy_takes_nothing_back(
    make_copy: Callable[[SpacedCollections], SpacedCollections],
) -> None:
    spaced = SpacedCollections()
    spaced.begin(100)
    raised = gc.get_threshold()
    make_copy(spaced).end()
    assert gc.get_threshold() == raised
    spaced.end()
    assert gc.get_threshold() == MINE


class Interrupted(BaseException):
    """As a signal's handler raises it."""


def interrupt_at(line: int, call: Callable[[], None]) -> bool:
    """Raise at the so-manieth line that a call runs of the module; whether it has that many."""
    left = line

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        nonlocal left
        if frame.f_code.co_filename != spaced_collections.__file__:
            return None
        if event == "line":
            left -= 1
            if left < 0:
                raise Interrupted
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except Interrupted:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("name", ["begin", "end"])
def test_a_signal_between_two_lines_leaves_nothing(name: str) -> None:
    for line in count():
        spaced = SpacedCollections()
        if name == "end":
            spaced.begin(100)
        call = partial(spaced.begin, 100) if name == "begin" else spaced.end
        was_interrupted = interrupt_at(line, call)
        spaced.end()
        assert gc.get_threshold() == MINE, line
        spaced.begin(100)
        assert gc.get_threshold() != MINE, line
        spaced.end()
        if not was_interrupted:
            break
    assert line > 3


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
