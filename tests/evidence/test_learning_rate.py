"""The learning rate over a run."""

from __future__ import annotations

import math

import pytest

from gradwatch.evidence.learning_rate import Rates
from gradwatch.evidence.thinning import KEPT


def fill(*rates: float, every: int = 1) -> Rates:
    filled = Rates()
    for number, rate in enumerate(rates):
        filled.add(number * every, rate)
    return filled


@pytest.mark.parametrize("rates", [(), (0.1,), (0.1, 0.1, 0.1), (math.nan, math.nan)])
def test_a_constant_or_unknown_rate_has_not_come_down(rates: tuple[float, ...]) -> None:
    assert fill(*rates).decay == 1
    assert not fill(*rates).is_warming_up


def test_a_decay_is_measured_from_what_a_tenth_of_the_steps_were_made_at() -> None:
    assert fill(*[0.1] * 10, 0.001).decay == pytest.approx(100)
    assert fill(*[0.2], *[0.1] * 30, 0.001).decay == pytest.approx(100)  # a burst is forgotten


def test_samples_that_lie_apart_count_for_the_steps_between_them() -> None:
    rates = Rates()
    for step in range(10):
        rates.add(step, 1.0)
    for step in range(50, 1000, 50):
        rates.add(step, 0.01)
    assert rates.decay == 1  # fifty of a thousand steps


def test_nothing_can_be_said_while_the_rate_is_zero() -> None:
    assert math.isnan(fill(0.1, 0.1, 0.0).decay)


def test_a_warm_up_is_seen_and_ends() -> None:
    assert fill(0.0, 0.1, 0.2).is_warming_up
    assert not fill(0.0, 0.1, 0.2, 0.2, 0.2).is_warming_up
    assert not fill(0.3, 0.2, 0.1).is_warming_up


def test_a_long_run_is_kept_in_bounded_memory() -> None:
    rates = fill(*[0.1] * 5000, *[0.05] * 5000)
    assert len(rates._thinned.kept) <= KEPT
    assert rates.decay == pytest.approx(2)
