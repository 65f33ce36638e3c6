"""Which steps are sampled: a pure function of their number."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from gradwatch.capture.schedule import Schedule
from gradwatch.errors import InvalidInput

INTERVALS = (1, 2, 5, 7, 50, 200)


def list_steps(schedule: Schedule, end: int) -> list[int]:
    return [step for step in range(end) if schedule.is_sampled(step)]


def test_the_default() -> None:
    first = [*range(6), 7, 10, 15, 22, 33, 49, 73, 109, 150, 200, 250, 300]
    assert list_steps(Schedule(), 301) == first
    assert len(list_steps(Schedule(), 1000)) == 31


@pytest.mark.parametrize("every_n_steps", INTERVALS)
def test_no_wait_is_longer_than_allowed(every_n_steps: int) -> None:
    schedule = Schedule(every_n_steps)
    steps = list_steps(schedule, 3000)
    for step, following in pairwise(steps):
        assert following - step <= max(1, min(every_n_steps, schedule.growth * step))


@pytest.mark.parametrize("every_n_steps", INTERVALS)
def test_multiples_are_sampled_once_the_longest_wait_is_reached(every_n_steps: int) -> None:
    begin = int(every_n_steps / Schedule().growth) + every_n_steps
    late = [step for step in list_steps(Schedule(every_n_steps), 3000) if step >= begin]
    assert late == [step for step in range(begin, 3000) if step % every_n_steps == 0]


def test_the_next_sampled_step_is_the_first_that_is_sampled() -> None:
    schedule = Schedule(20)
    steps = list_steps(schedule, 200)
    for step in range(150):
        assert schedule.find_next(step) == next(sampled for sampled in steps if sampled >= step)


def test_without_growth_only_multiples_follow_the_first_steps() -> None:
    assert list_steps(Schedule(20, growth=math.inf), 75) == [*range(5), 20, 40, 60]
    assert list_steps(Schedule(20, 0, growth=math.inf), 75) == [0, 20, 40, 60]


@pytest.mark.parametrize("every_n_steps", [0, -1, 2.5, True, "50"])
def test_a_bad_interval_is_refused(every_n_steps: object) -> None:
    with pytest.raises(InvalidInput, match="every_n_steps"):
        Schedule(every_n_steps)  # type: ignore[arg-type]
