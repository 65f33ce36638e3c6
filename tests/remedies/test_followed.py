"""Remedies that are followed to the word make their runs learn; the page is that of the runs."""

from __future__ import annotations

import pytest
from torch import nn

from benchmarks.followers import find_modules
from benchmarks.remedies_followed import PAGE, read_rows, run_attempt, write_page
from benchmarks.remedy_attempts import ATTEMPTS

CHEAP = ("dead_bias_minus_12", "momentum_above_one", "rate_too_small", "adapter_of_two_zeros")

LEAST = 0.9
"""Share of the runs that learn."""


def test_the_page_is_that_of_the_stored_runs() -> None:
    rows = read_rows()
    assert PAGE.read_text(encoding="utf-8") == write_page(rows)
    assert [row.case for row in rows] == [attempt.case for attempt in ATTEMPTS]


def test_nearly_all_learn_and_their_causes_differ() -> None:
    rows = read_rows()
    assert len(rows) >= 20
    assert len({(row.kind, row.cause) for row in rows}) >= 15
    assert sum(row.learns for row in rows) >= LEAST * len(rows)


@pytest.mark.parametrize("name", CHEAP)
def test_a_remedy_makes_its_run_learn(name: str) -> None:
    attempt = next(attempt for attempt in ATTEMPTS if attempt.case == name)
    row = run_attempt(attempt)
    assert row.learns, row


def test_places_are_read_from_the_words() -> None:
    model = nn.Sequential()
    for place in range(4):
        model.add_module(f"fc{place}", nn.Linear(2, 2))
        model.add_module(f"act{place}", nn.ReLU())
    assert len(find_modules(model, "all 4 Linear modules")) == 4
    assert find_modules(model, "the Linear module `fc1`") == [model.fc1]
    named = find_modules(model, "the 3 Linear modules `fc0` to `fc2`")
    assert {id(module) for module in named} == {id(model[place]) for place in (0, 2, 4)}
    assert find_modules(nn.Sequential(nn.Tanh()), "layer 0 (Tanh)")[0].__class__ is nn.Tanh
    with pytest.raises(ValueError, match="name modules"):
        find_modules(model, "everything")
