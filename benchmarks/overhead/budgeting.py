"""What a budget makes of a training whose step times are known: the watch's own decisions, by a
clock that goes as these times say. To train 1,000 steps in every round would take hours."""

from __future__ import annotations

from benchmarks.overhead.timing import Timings
from benchmarks.overhead.tools import BARE, HORIZON
from gradwatch.capture.sampling_budget import Pace
from gradwatch.capture.schedule import Schedule

SAMPLED, BETWEEN = "gradwatch sampled", "gradwatch between"


def compute_ratios(timings: Timings, budget: float) -> list[float]:
    """Of ``HORIZON`` steps under the budget to as many bare ones, round by round."""
    if any(name not in timings.step_ms for name in (BARE, SAMPLED, BETWEEN)):
        return []
    columns = (timings.step_ms[name] for name in (BARE, BETWEEN, SAMPLED))
    return [_compute_ratio(*times, budget) for times in zip(*columns, strict=True)]


def _compute_ratio(bare: float, between: float, sampled: float, budget: float) -> float:
    count = count_sampled_within(budget, between, sampled)
    return ((HORIZON - count) * between + count * sampled) / (HORIZON * bare)


def count_sampled_within(budget: float, between: float, sampled: float) -> int:
    """Steps among ``HORIZON`` that are sampled when each kind of step takes its time."""
    now = 0.0
    pace = Pace(Schedule(), budget, clock=lambda: now)
    count = 0
    for step in range(HORIZON):
        is_sampled = pace.is_due(step)
        if is_sampled:
            count += 1
            pace.begin(step)
        now += sampled if is_sampled else between
        if is_sampled:
            pace.settle(step, pace.propose())
    return count
