"""How many steps each optimizer has made, and which of them make up one step of the training."""

from __future__ import annotations

_MOST_STEPS = 64  # of one optimizer between two of another that are distinguished


class StepCounts:
    """Steps of one or several optimizers.

    Args:
        n_optimizers: how many there are; with none, steps are marked by hand.
        global_step: number of the first step.

    Attributes:
        global_step: steps made so far, by the one that has made most.

    Which optimizer steps next is known from the last time that it stood alike between them: so a
    critic that steps five times is not waited with for a generator that comes after the fifth.
    """

    def __init__(self, n_optimizers: int, global_step: int) -> None:
        self._counts = [global_step] * max(n_optimizers, 1)
        self.global_step = global_step
        self._level = global_step  # at which all counts were last the same
        self._marks = [list(self._counts) for _ in self._counts]  # counts when each stepped last
        self._next: dict[tuple[int, ...], int] = {}
        self._standing: tuple[int, ...] = ()
        self._turn: set[int] = set()

    def count(self, number: int) -> None:
        """This optimizer has stepped.

        Args:
            number: of the optimizer, in the order in which they were handed over.
        """
        self._learn(number)
        self._counts[number] += 1
        self.global_step = max(self._counts)
        self._marks[number] = list(self._counts)
        self._turn = {number} if number in self._turn else self._turn | {number}
        since = (self._counts[number] - mark[number] for mark in self._marks)
        self._standing = (number, *(min(steps, _MOST_STEPS) for steps in since))
        if len(set(self._counts)) == 1:
            self._level = self._counts[0]

    def _learn(self, number: int) -> None:
        if self._standing:
            self._next[self._standing] = number

    def foresee(self, number: int) -> int | None:
        """Who steps after this optimizer's next step, if that has been seen before.

        Args:
            number: of the optimizer.

        Returns:
            The other one's number; ``None`` where nothing is known.
        """
        own = self._counts[number] + 1
        since = (0 if i == number else own - mark[number] for i, mark in enumerate(self._marks))
        return self._next.get((number, *(min(steps, _MOST_STEPS) for steps in since)))

    def is_late(self, number: int) -> bool:
        """Whether this optimizer's next step belongs to the step before the current one.

        Args:
            number: of the optimizer.
        """
        return self._counts[number] < self.global_step

    @property
    def is_between(self) -> bool:
        """Whether optimizers that step one after the other have not all done so.

        What is sampled from here on would miss the forwards that came before, as a generator's
        whose output both steps use. Optimizers that step more rarely are not waited for.
        """
        if len(self._turn) == len(self._counts):
            return False
        following = self._next.get(self._standing)
        if following is not None:
            return following not in self._turn
        return len(set(self._counts)) > 1 and self.global_step - self._level <= 1

    @property
    def is_even(self) -> bool:
        """Whether all have stepped equally often, but for one of a round: steps are alike then."""
        return max(self._counts) - min(self._counts) <= 1
