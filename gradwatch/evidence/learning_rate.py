"""The learning rate over a run: how far it has come down, and whether it is rising."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from gradwatch.evidence.thinning import Thinned
from gradwatch.evidence.windows import LATEST_RATES
from gradwatch.thresholds import DEFAULTS, Thresholds


@dataclass
class Rates:
    """Learning rates of the sampled steps, as far as they are known; bounded however long the run.

    Attributes:
        latest: of the latest records.
        highest: so far.
        thresholds: ``held_share`` and ``warm_up_rise``.
    """

    latest: deque[float] = field(default_factory=lambda: deque(maxlen=LATEST_RATES))
    highest: float = 0.0
    thresholds: Thresholds = DEFAULTS
    _thinned: Thinned[tuple[float, float]] = field(default_factory=Thinned)
    _held: float = math.nan

    def add(self, global_step: int, rate: float) -> None:
        """Take in the learning rate of a step.

        Args:
            global_step: of the record; rises.
            rate: largest of the optimizers' groups; NaN where it is not known, which is left out.

        Example:
            >>> rates = Rates()
            >>> for step in range(100):
            ...     rates.add(step, 0.1 if step < 50 else 0.01)
            >>> rates.highest, rates.decay, rates.is_warming_up
            (0.1, 10.0, False)
        """
        if not math.isfinite(rate):
            return
        self.latest.append(rate)
        self.highest = max(self.highest, rate)
        before = self._thinned.kept[-1:]
        self._thinned.add((global_step, rate))
        if self._thinned.kept[-1:] != before:
            self._held = math.nan
        if rate < self.highest and math.isnan(self._held):
            self._held = self._find_held()

    @property
    def decay(self) -> float:
        """How far the learning rate has come down, from 1: so much farther a step used to go.

        NaN where it is zero: nothing moves then, and that says nothing.
        """
        if not self.latest:
            return 1.0
        now = self.latest[-1]
        if now <= 0:
            return math.nan
        return max(self._held / now, 1.0) if now < self.highest else 1.0

    @property
    def is_warming_up(self) -> bool:
        """Whether the learning rate is rising: every weight moves less than it is going to."""
        rise = self.thresholds.warm_up_rise
        return bool(self.latest) and self.latest[-1] > rise * min(self.latest)

    def _find_held(self) -> float:
        """The largest learning rate with ``held_share`` of the steps at it or above."""
        steps, rates = np.array(self._thinned.kept).T
        spans = np.diff(
            steps, append=2 * steps[-1] - steps[-2] if len(steps) > 1 else steps[-1] + 1
        )
        order = np.argsort(-rates)
        reached = np.cumsum(spans[order]) >= self.thresholds.held_share * float(spans.sum())
        return float(rates[order][np.argmax(reached)])
