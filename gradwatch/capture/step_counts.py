"""How many steps each optimizer has made, and which of them make up one step of the training."""

from __future__ import annotations


class StepCounts:
    """Steps of one or several optimizers.

    Args:
        n_optimizers: how many there are; with none, steps are marked by hand.
        global_step: number of the first step.

    Attributes:
        global_step: steps made so far, by the one that has made most.
    """

    def __init__(self, n_optimizers: int, global_step: int) -> None:
        self._counts = [global_step] * max(n_optimizers, 1)
        self.global_step = global_step
        self._level = global_step  # at which all counts were last the same

    def count(self, number: int) -> None:
        """This optimizer has stepped."""
        self._counts[number] += 1
        self.global_step = max(self._counts)
        if len(set(self._counts)) == 1:
            self._level = self._counts[0]

    def is_late(self, number: int) -> bool:
        """Whether this optimizer's next step belongs to the step before the current one."""
        return self._counts[number] < self.global_step

    @property
    def is_between(self) -> bool:
        """Whether optimizers that step one after the other have not all done so.

        What is sampled from here on would miss the forwards that came before, as a generator's
        whose output both steps use. Optimizers that step more rarely are not waited for.
        """
        return len(set(self._counts)) > 1 and self.global_step - self._level <= 1
