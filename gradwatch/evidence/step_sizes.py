"""How large the steps of late are, against all weights together."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import isfinite, nan
from statistics import median

import numpy as np

from gradwatch.evidence.flow_facts import measure_row_norms
from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.record_table import RecordTable
from gradwatch.evidence.windows import LATEST_RECORDS
from gradwatch.records import Array
from gradwatch.thresholds import DEFAULTS, Thresholds

_NORMS = "update_l2_norm", "weight_l2_norm"


@np.errstate(all="ignore")
def measure_step_sizes(table: RecordTable) -> Array:
    """``||dw|| / ||w||`` over all weights that are judged, as one vector.

    A weight that is smaller than LeCun's initialisation would make it counts with that size: what
    begins near zero has to grow by many times.

    Args:
        table: of records.

    Returns:
        float64 ``(n_records,)``; NaN where no update was measured.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> reading = make_reading(param={"update_l2_norm": 0.3, "weight_l2_norm": (3.0, 4.0)})
        >>> round(float(reading.ask(measure_step_sizes)), 4)
        0.0849
    """
    topology, update, weight = table.topology, *map(table.param, _NORMS)
    known = topology.is_judged & np.isfinite(update) & np.isfinite(weight)
    size = measure_row_norms(np.fmax(weight, topology.lecun_norm), known)
    return np.where(size > 0, measure_row_norms(update, known) / size, nan)


@dataclass
class StepSizes:
    """The sizes of the latest steps, from where weights that began at zero have left it.

    Attributes:
        latest: ``||dw|| / ||w||`` of the whole network, of up to ``LATEST_RECORDS`` records.
        thresholds: ``shaking_records``.
    """

    latest: deque[float] = field(default_factory=lambda: deque(maxlen=LATEST_RECORDS))
    thresholds: Thresholds = DEFAULTS

    def add(self, reading: Reading) -> None:
        """Take in the next reading; one without an update changes nothing.

        Args:
            reading: of a record newer than all before.
        """
        size = float(reading.ask(measure_step_sizes))
        if isfinite(size):
            self.latest.append(size)

    @property
    def middle(self) -> float:
        """Median of the latest; NaN before there are ``shaking_records``."""
        is_habit = len(self.latest) >= self.thresholds.shaking_records
        return median(self.latest) if self.latest and is_habit else nan
