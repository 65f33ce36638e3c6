"""How large the steps of late are, against all weights together."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import isfinite, nan
from statistics import median

import numpy as np

from gradwatch.evidence.topology import Topology
from gradwatch.evidence.windows import LATEST_RECORDS
from gradwatch.records import StepRecord
from gradwatch.thresholds import Thresholds


def measure_step_size(record: StepRecord, topology: Topology) -> float:
    """``||dw|| / ||w||`` over all weights that are judged, as one vector.

    A weight that is smaller than LeCun's initialisation would make it counts with that size: what
    begins near zero has to grow by many times.

    Args:
        record: of one step.
        topology: of its layer set.

    Returns:
        NaN where no update was measured.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> reading = make_reading(param={"update_l2_norm": 0.3, "weight_l2_norm": (3.0, 4.0)})
        >>> round(measure_step_size(reading.record, reading.topology), 4)
        0.0849
    """
    update, weight = record.param("update_l2_norm"), record.param("weight_l2_norm")
    known = topology.is_judged & np.isfinite(update) & np.isfinite(weight)
    size = float(np.linalg.norm(np.fmax(weight, topology.lecun_norm)[known]))
    return float(np.linalg.norm(update[known])) / size if size > 0 else nan


@dataclass
class StepSizes:
    """The sizes of the latest steps, from where weights that began at zero have left it.

    Attributes:
        latest: ``||dw|| / ||w||`` of the whole network, of up to ``LATEST_RECORDS`` records.
        thresholds: ``shaking_records``.
    """

    latest: deque[float] = field(default_factory=lambda: deque(maxlen=LATEST_RECORDS))
    thresholds: Thresholds = field(default_factory=Thresholds)

    def add(self, record: StepRecord, topology: Topology) -> None:
        """Take in the next record; one without an update changes nothing.

        Args:
            record: newer than all before.
            topology: of its layer set.
        """
        size = measure_step_size(record, topology)
        if isfinite(size):
            self.latest.append(size)

    @property
    def middle(self) -> float:
        """Median of the latest; NaN before there are ``shaking_records``."""
        is_habit = len(self.latest) >= self.thresholds.shaking_records
        return median(self.latest) if self.latest and is_habit else nan
