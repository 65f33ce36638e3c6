"""Which optimizer steps are sampled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gradwatch.errors import InvalidInput

FIRST_STEPS = 5
"""Every one of the first steps is sampled: most of what is unhealthy is there from the start, and
what shows then is followed step by step (see ``verdict.alertness``)."""

GROWTH = 0.5
"""After them no wait is longer than this share of the steps made so far: what becomes unhealthy
later is seen when it has lasted for half of the training, however short that is. From a step of
``every_n_steps`` divided by it on, this asks for nothing more."""


@dataclass
class Schedule:
    """Every step below ``first_steps``, then at waits that grow to ``every_n_steps``.

    Args:
        every_n_steps: the longest wait; once it is reached, its multiples are sampled.
        first_steps: how many are sampled without a wait.
        growth: longest wait as a share of the steps made; infinity for none but the longest.

    Raises:
        InvalidInput: ``every_n_steps`` is not a positive whole number.
    """

    every_n_steps: int = 50
    first_steps: int = FIRST_STEPS
    growth: float = GROWTH

    def __post_init__(self) -> None:
        valid = isinstance(self.every_n_steps, int) and not isinstance(self.every_n_steps, bool)
        if not valid or self.every_n_steps < 1:
            raise InvalidInput(
                f"Expected every_n_steps to be a whole number from 1, got {self.every_n_steps!r}. "
                "Use 1 to sample every step; 50 is the default."
            )

    def is_sampled(self, global_step: int) -> bool:
        """Whether the optimizer step with this number (from 0) is sampled.

        Args:
            global_step: optimizer steps made before it.
        """
        return self.find_next(global_step) == global_step

    def find_next(self, global_step: int) -> int:
        """The first sampled step from this number on.

        Args:
            global_step: optimizer steps made before it.

        Example:
            >>> schedule = Schedule(every_n_steps=50)
            >>> [step for step in range(120) if schedule.is_sampled(step)]
            [0, 1, 2, 3, 4, 5, 7, 10, 15, 22, 33, 49, 73, 109]
        """
        if global_step < self.first_steps:
            return global_step
        early = next((step for step in self._list_early() if step >= global_step), None)
        regular = -(-global_step // self.every_n_steps) * self.every_n_steps
        return regular if early is None else early

    def _list_early(self) -> Iterator[int]:
        """Sampled steps after the first ones, until the longest wait is reached."""
        step = self.first_steps
        while (wait := max(step, 1) * self.growth) < self.every_n_steps:
            yield step
            step += max(int(wait), 1)
        if step > self.first_steps:
            yield step
