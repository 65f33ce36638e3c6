"""How often a training is sampled when watching may take a share of its time, and no more.

What a sampled step costs is not what our own functions take: hooks run inside forward and backward,
and a device works through what they have queued later. So the wall time of a few steps that begin
with the sampled one is held against as many steps right after them, both from the end of one
optimizer step to the end of another, and the median of the latest differences counts. Nothing waits
for a device: a device's queue is bounded, so that over some steps the host is as slow as it is.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable
from typing import cast

from gradwatch.capture.schedule import Schedule
from gradwatch.errors import InvalidInput

SPAN_STEPS = 3
"""Steps of either side of a comparison; fewer where sampled steps stand closer together."""

MIN_WAIT = 2
"""Under a budget: a sampled step needs one that is not sampled to be compared with."""

KEPT_SAMPLES = 9
"""Sampled steps whose median cost counts; one of them may hold a compilation or a checkpoint."""

MAX_GROWTH = 2
"""A wait is at most so many times the one before: no single measurement blinds the watch."""

MAX_REPAYMENT = 2.0
"""Each wait pays for so many samples at most: its own, and one of those that are not paid yet."""

FIRST_COST = 1.0
"""Of a sample, in training steps, until one has been compared: on a CPU it is 0.1 to 2. The first
one is not: it shares its time with all that begins with a training, such as a compilation."""

EVERY_STEP = -1
"""A wait that says: sample the very next step, whatever the schedule."""

ROUNDING_DIGITS = 6
"""Of a wait in steps: what is a whole number but for rounding stays one."""


class Pace:
    """The sampled steps of one watch; without a budget those of the schedule.

    Under a budget they are a part of the schedule's. The first one comes at once, the next ones
    when a sample of ``FIRST_COST`` is paid; once one was measured that counts, and what they have
    cost beyond the budget is paid back by wider intervals.

    Args:
        schedule: of a watch without a budget.
        budget: largest share of the training's time; ``None`` for the schedule as it is, and then
            the clock is never read.
        global_step: number of the first step.
        clock: gives seconds.

    Attributes:
        interval: longest wait in force, optimizer steps; a multiple of ``every_n_steps``.
        due: the next sampled step.
        wake: the next step at which there is anything to do.

    Raises:
        InvalidInput: the budget is not a share.
    """

    def __init__(
        self,
        schedule: Schedule,
        budget: float | None = None,
        global_step: int = 0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        check_budget(budget)
        self.schedule = schedule
        self.budget = budget
        self.interval = schedule.every_n_steps
        self.due = self.wake = schedule.find_next(global_step)
        self._clock = clock
        self._sampled_at = global_step
        self._wait = 1
        self._stamps: list[float] = []
        self._marks: list[int] = []
        self._own_s = 0.0
        self._costs_s: deque[float] = deque(maxlen=KEPT_SAMPLES)
        self._owns_s: deque[float] = deque(maxlen=KEPT_SAMPLES)
        self._steps_s: deque[float] = deque(maxlen=KEPT_SAMPLES)
        self._samples = 0
        self._unpaid_samples = 0.0
        self._waited_steps = 0
        self._close_samples = 0

    # What the session calls -----------------------------------------------------------------

    def is_due(self, global_step: int) -> bool:
        """Whether to sample this step; called from ``wake`` on, where a comparison goes on.

        Args:
            global_step: of the step that is about to begin.
        """
        if global_step < self.wake:
            return False
        if self._marks:
            self._compare(global_step)
            self.wake = self._marks[0] if self._marks else self.due
        return global_step >= self.due

    def read_clock(self) -> float:
        """Seconds, for ``spend``."""
        return 0.0 if self.budget is None else self._clock()

    def spend(self, began: float) -> None:
        """A function of ours, outside of forward and backward, has ended.

        Args:
            began: as ``read_clock`` has answered when it began.
        """
        if self.budget is not None:
            self._own_s += self._clock() - began

    def begin(self, global_step: int) -> None:
        """This step is sampled.

        Args:
            global_step: of the step.
        """
        if self.budget is None:
            return
        self._samples += 1
        if self._samples > 2:
            self._owns_s.append(self._own_s)  # of the sample before
        self._own_s = 0.0
        self._waited_steps += global_step - self._sampled_at
        self._sampled_at = global_step
        if self._steps_s:
            paid = self._waited_steps / max(self._find_price(), 1.0)
            self._unpaid_samples = max(self._unpaid_samples - paid, 0.0)
            self._waited_steps = 0
        self._unpaid_samples += 1
        self._stamps = [self._clock()]

    def look_closely(self, samples: int) -> None:
        """Sample every step for a while; a budget, where there is one, goes before that.

        Args:
            samples: how many of the next steps; fewer than were asked for before change nothing.
        """
        self._close_samples = max(self._close_samples, samples)

    def propose(self) -> int:
        """The shortest wait that this process's measurements allow; 0 for no opinion.

        ``EVERY_STEP`` while there is reason to look closely.
        """
        if self.budget is None and self._close_samples > 0:
            self._close_samples -= 1
            return EVERY_STEP
        if self.budget is None:
            return 0
        if not self._steps_s:
            return math.ceil(round(FIRST_COST / self.budget, ROUNDING_DIGITS))
        wanted = min(self._unpaid_samples, MAX_REPAYMENT) * self._find_price()
        return math.ceil(round(min(wanted, MAX_GROWTH * self._wait), ROUNDING_DIGITS))

    def settle(self, global_step: int, wait: int) -> None:
        """The sampled step is over, and this shortest wait was agreed on.

        Args:
            global_step: of the sampled step.
            wait: optimizer steps; 0: no opinion; ``EVERY_STEP``: the next step is sampled.
        """
        if self.budget is None:
            after = global_step + 1
            self.due = self.wake = after if wait == EVERY_STEP else self.schedule.find_next(after)
            return
        wait, grid = max(wait, MIN_WAIT), self.schedule.every_n_steps
        self.interval = -(-max(wait, grid) // grid) * grid
        self.due = self.schedule.find_next(global_step + wait)
        self._wait = self.due - global_step
        span = min(SPAN_STEPS, self._wait // 2)
        self._marks = [global_step + span, global_step + 2 * span]
        self.wake = self._marks[0]

    def _compare(self, global_step: int) -> None:
        """The steps from the sampled one on end here, or as many after them."""
        if self._marks.pop(0) != global_step:  # steps were counted that nobody saw end
            self._marks = []
            return
        self._stamps.append(self._clock())
        if self._marks:
            return
        began, between, ended = self._stamps
        if ended > between and self._samples > 1:
            self._costs_s.append(2 * between - began - ended)
            self._steps_s.append(2 * (ended - between) / (global_step - self._sampled_at))

    def _find_price(self) -> float:
        """Steps of training whose share in the budget pays for one sample."""
        assert self.budget is not None
        cost = max(statistics.median(self._costs_s), statistics.median(self._owns_s))
        return cost / (self.budget * statistics.median(self._steps_s))


def check_budget(budget: object) -> None:
    """Raise InvalidInput for what is no share of a training's time.

    Args:
        budget: above 0 and up to 1, or ``None`` for none.

    Raises:
        InvalidInput: anything else.
    """
    is_number = isinstance(budget, (int, float)) and not isinstance(budget, bool)
    if budget is not None and not (is_number and 0 < cast(float, budget) <= 1):
        raise InvalidInput(
            f"Expected budget to be a share of the training's time above 0 and up to 1, got "
            f"{budget!r}. Use 0.01 for one percent, or leave it out for a fixed schedule."
        )
