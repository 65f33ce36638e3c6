"""Whether the loss has come down on the same batches, where those of different batches scatter."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import isfinite

import numpy as np

from gradwatch.evidence.rank_test import score_sign
from gradwatch.records import StepRecord
from gradwatch.thresholds import Thresholds

MOST_FALLS = 512
"""Latest records that are kept."""


@dataclass
class PairedFalls:
    """By how much the loss on each record's batch has come down since the record before.

    Where the loss is convex on the way from one to the other, it was higher at its beginning by no
    less than the gradient at its end says. Steps that overshoot have the gradient point back, and
    around a minimum there are as many ups as downs.

    Attributes:
        falls: in units of the loss, newest last.

    Source: Boyd & Vandenberghe (2004), "Convex Optimization", section 3.1.3.
    """

    falls: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_FALLS))

    def add(self, record: StepRecord) -> None:
        """Take in the next record.

        Args:
            record: newer than all before; one of which it is not known counts as no fall.
        """
        change = float(np.nansum(record.param("past_loss_change")))
        if isfinite(change):
            self.falls.append(-change)

    def are_seen(self, beginning: float, thresholds: Thresholds) -> bool:
        """Whether they come to a share of the first loss, and not by chance.

        Args:
            beginning: the first loss, above 0.
            thresholds: ``paired_fall`` of the first loss, ``seen_fall`` of chance.

        Example:
            >>> falls = PairedFalls()
            >>> falls.falls.extend([0.02, -0.01, 0.03] * 8)
            >>> [falls.are_seen(first, Thresholds()) for first in (2.3, 100.0)]
            [True, False]
        """
        if sum(self.falls) < thresholds.paired_fall * beginning:
            return False
        return score_sign(self.falls) >= thresholds.seen_fall

    def forget(self) -> None:
        """A step has replaced weights: what was learned before it may be lost."""
        self.falls.clear()
