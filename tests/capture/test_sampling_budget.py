"""A budget widens the sampling interval, narrows it again, and is the same on every rank."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from gradwatch.capture.sampling_budget import Pace
from gradwatch.capture.schedule import Schedule
from gradwatch.capture.session import Session
from gradwatch.errors import InvalidInput
from gradwatch.records import StepRecord
from tests.capture.tools import has_global_hooks
from tests.rank_processes import run_job

STEP_S = 0.1


class Clock:
    """Seconds that pass only where a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.is_read = False

    def __call__(self) -> float:
        self.is_read = True
        return self.now


class Course:
    """A training under a budget, without the training: each step takes its time."""

    def __init__(self, every_n_steps: int, budget: float | None, first_steps: int = 10) -> None:
        self.clock = Clock()
        schedule = Schedule(every_n_steps, first_steps, growth=0.25)
        self.pace = Pace(schedule, budget, clock=self.clock)
        self.sampled: list[int] = []
        self.step = 0
        self.spent_s = 0.0

    def run(
        self, steps: int, cost_s: Callable[[int], float], step_s: Callable[[int], float]
    ) -> None:
        """Go on for some steps."""
        for _ in range(steps):
            is_sampled = self.pace.is_due(self.step)
            if is_sampled:
                self.sampled.append(self.step)
                self.pace.begin(self.step)
                self.clock.now += cost_s(self.step)
                self.spent_s += cost_s(self.step)
            self.clock.now += step_s(self.step)
            if is_sampled:
                self.pace.settle(self.step, self.pace.propose())
            self.step += 1

    @property
    def share(self) -> float:
        """Of the time so far that watching has taken."""
        return self.spent_s / (self.clock.now - 1000.0)


def constant(value: float) -> Callable[[int], float]:
    return lambda step: value


def list_scheduled(every_n_steps: int, steps: int) -> list[int]:
    schedule = Schedule(every_n_steps, first_steps=10, growth=0.25)
    return [step for step in range(steps) if schedule.is_sampled(step)]


def test_without_a_budget_the_schedule_stands_and_the_clock_is_not_read() -> None:
    course = Course(20, None)
    course.run(300, lambda step: 7.0 * (step % 3), constant(STEP_S))
    assert course.sampled == list_scheduled(20, 300)
    assert not course.clock.is_read


def test_within_the_budget_the_schedule_stands() -> None:
    course = Course(50, 0.01)
    course.run(1000, constant(0.05 * STEP_S), constant(STEP_S))
    expected = list_scheduled(50, 1000)
    assert set(course.sampled) <= set(expected)
    assert [step for step in course.sampled if step >= 300] == list(range(300, 1000, 50))
    assert course.pace.interval == 50


@pytest.mark.parametrize(("every_n_steps", "cost"), [(50, 2.0), (1, 0.4), (7, 1.0)])
def test_a_high_cost_widens_the_interval_until_the_whole_training_is_within(
    every_n_steps: int, cost: float
) -> None:
    course = Course(every_n_steps, 0.01)
    course.run(10_000, constant(cost * STEP_S), constant(STEP_S))
    assert course.sampled[0] == 0
    assert course.share <= 0.0101
    assert set(course.sampled) <= set(list_scheduled(every_n_steps, 10_000))
    least = cost / 0.01
    assert least <= course.pace.interval <= least + every_n_steps


@pytest.mark.parametrize("cost", [0.1, 0.5, 1.0])
def test_the_budget_holds_from_the_first_step_on(cost: float) -> None:
    course = Course(1, 0.01)
    course.run(1, constant(cost * STEP_S), constant(STEP_S))
    for _ in range(2_000):
        spent = course.spent_s
        course.run(1, constant(cost * STEP_S), constant(STEP_S))
        if course.spent_s > spent:  # all samples but this one are paid
            assert spent <= 0.01 * (course.clock.now - 1000.0) * (1 + 1e-9)


def test_what_a_few_samples_cost_beyond_it_is_paid_back() -> None:
    course = Course(1, 0.01)
    course.run(20_000, constant(3.0 * STEP_S), constant(STEP_S))
    gaps = [after - before for before, after in pairwise(course.sampled)]
    assert gaps[:2] == [100, 100]
    assert all(after <= 2 * before for before, after in pairwise(gaps))
    assert max(gaps) > gaps[-1] == 300


def test_the_first_sample_may_share_its_time_with_a_compilation() -> None:
    course = Course(1, 0.01)
    course.run(1_000, constant(0.5 * STEP_S), lambda step: STEP_S + 300.0 * (step == 1))
    gaps = [after - before for before, after in pairwise(course.sampled)]
    assert max(gaps) == 100
    assert gaps[-1] == 50


def test_the_interval_narrows_again_when_the_cost_falls() -> None:
    course = Course(10, 0.01)
    course.run(10_000, constant(2 * STEP_S), constant(STEP_S))
    assert course.pace.interval == 200
    course.run(10_000, constant(0.01 * STEP_S), constant(STEP_S))
    assert course.pace.interval == 10


def test_longer_steps_allow_a_narrower_interval() -> None:
    course = Course(10, 0.01)
    course.run(10_000, constant(STEP_S), constant(STEP_S))
    wide = course.pace.interval
    course.run(20_000, constant(STEP_S), constant(4 * STEP_S))
    assert (wide, course.pace.interval) == (100, 30)  # 25 steps, and the next step of the schedule


def test_one_compilation_or_checkpoint_does_not_blind_the_watch() -> None:
    course = Course(10, 0.01)
    disturbed = {1: 3000.0, 500: 900.0}  # in the first comparison, and at a later sample
    course.run(2_000, constant(0.05 * STEP_S), lambda step: disturbed.get(step, 0.0) + STEP_S)
    gaps = [after - before for before, after in pairwise(course.sampled)]
    assert max(gaps[2:]) <= 20
    assert course.pace.interval == 10


def test_a_validation_of_whatever_length_does_not_pay_for_samples() -> None:
    course = Course(1, 0.01)
    course.run(4_000, constant(0.5 * STEP_S), lambda step: STEP_S + 50.0 * (step % 100 == 99))
    assert course.pace.interval >= 50


def test_what_our_own_functions_take_is_the_least_that_is_counted() -> None:
    """Also when the steps beside the sampled one were faster than those after them."""
    course = Course(10, 0.01)
    pace, clock = course.pace, course.clock
    for step in range(2_000):
        if pace.is_due(step):
            pace.begin(step)
            began = pace.read_clock()
            clock.now += STEP_S / 2
            pace.spend(began)
            pace.settle(step, pace.propose())
        else:
            clock.now += STEP_S * (2 if 3 <= step - pace._sampled_at < 6 else 1)
    assert pace.interval >= 30


@pytest.mark.parametrize("budget", [0, -0.1, 1.5, float("nan"), "1%", True, [0.1]])
def test_what_is_no_share_is_refused(budget: Any) -> None:
    with pytest.raises(InvalidInput, match=r"Expected budget to be a share.*got.*Use 0\.01"):
        Pace(Schedule(50), budget)


# In a session ---------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))


def train(model: nn.Module, clock: Clock, step_s: float, cost_s: float) -> list[StepRecord]:
    """Samples cost ``cost_s`` each, by a clock of our own."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    records: list[StepRecord] = []
    session = Session(model, (optimizer,), Schedule(5, 10, 0.25), records.append, budget=0.1)
    session._pace._clock = clock
    session.start()
    for _ in range(700):
        clock.now += step_s + cost_s * (session._arming.step is not None)
        optimizer.zero_grad()
        model(torch.ones(3, 4)).square().mean().backward()
        optimizer.step()
    session.stop()
    assert session.failure is None
    return records


def test_the_interval_in_force_is_in_the_record() -> None:
    torch.manual_seed(0)
    records = train(Net(), Clock(), STEP_S, 2 * STEP_S)
    steps = [record.global_step for record in records]
    intervals = [record.step("interval") for record in records]
    assert intervals[:2] == [5.0, 10.0]
    assert intervals[-1] == 20.0
    assert steps[-1] - steps[-2] == 20


def test_unsampled_steps_stay_free_of_hooks() -> None:
    torch.manual_seed(0)
    model, clock = Net(), Clock()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    session = Session(model, (optimizer,), Schedule(5), lambda record: None, budget=0.1)
    session._pace._clock = clock
    session.start()
    sampled, reads = [0], 0
    for step in range(40):
        if step not in sampled:
            assert not optimizer._optimizer_step_pre_hooks
            assert not has_global_hooks()
        clock.is_read = False
        model(torch.ones(3, 4)).square().mean().backward()
        optimizer.step()
        is_sampled = step in sampled or session._arming.step is not None
        sampled += [step + 1] if session._arming.step is not None else []
        reads += clock.is_read and not is_sampled
    assert 0 < reads <= 2 * len(sampled)
    session.stop()


def list_sampled(rank: int) -> list[tuple[int, float]]:
    """Each rank's clock says something else; watching is dear on rank 0 only."""
    torch.manual_seed(0)
    model = DistributedDataParallel(Net())
    records = train(model, Clock(), STEP_S * (1 + rank), 2 * STEP_S * (rank == 0))
    return [(record.global_step, record.step("interval")) for record in records]


@pytest.mark.distributed
def test_every_rank_samples_the_same_steps() -> None:
    ranks = run_job(list_sampled, 2)
    assert ranks[0] == ranks[1]
    assert ranks[0][-1][1] == 20.0
