"""The error signal, which is the gradient norm at the network's outputs, over a run."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import isfinite, nan
from statistics import median

from gradwatch.evidence.windows import FIRST_RECORDS, WINDOW


@dataclass
class ErrorLevels:
    """Error signals of the first and of the latest records.

    Attributes:
        first: of the first records, NaN where it was not known.
        latest: global steps and error signals of the latest ones, newest last.
    """

    first: list[float] = field(default_factory=list)
    latest: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _first_step: int = 0
    _beginning: tuple[int, float] = field(default=(0, nan), repr=False, compare=False)

    def add(self, global_step: int, error: float) -> None:
        """Take in the next error signal.

        Args:
            global_step: of the record; rises.
            error: gradient norm at the outputs; NaN where it is not known.

        Example:
            >>> levels = ErrorLevels()
            >>> for step, error in enumerate([4.0, 4.0, 4.0, 1.0, 1.0, 1.0]):
            ...     levels.add(step, error)
            >>> levels.beginning, levels.now, levels.largest
            (4.0, 1.0, 4.0)
        """
        if not self.latest:
            self._first_step = global_step
        if len(self.first) < FIRST_RECORDS:
            self.first.append(error)
        self.latest.append((global_step, error))

    @property
    def beginning(self) -> float:
        """Median of the first ones; NaN where none was known."""
        if self._beginning[0] != len(self.first):
            self._beginning = len(self.first), _find_median(self.first)
        return self._beginning[1]

    @property
    def now(self) -> float:
        """Median of the latest ones that lie in the run's later half."""
        if not self.latest:
            return nan
        half = (self._first_step + self.latest[-1][0]) / 2
        return _find_median([error for step, error in self.latest if step >= half])

    @property
    def largest(self) -> float:
        """Of the latest ones."""
        return max((error for _, error in self.latest if isfinite(error)), default=nan)


def _find_median(errors: list[float]) -> float:
    finite = [error for error in errors if isfinite(error)]
    return median(finite) if finite else nan
