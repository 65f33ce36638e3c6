"""Which parameters were seen to learn, and at how many of the records that could show it.

A finite gradient is no evidence: a network that stands still has those too. Evidence is a part in
the loss's change, or a move of the weight itself by a gradient above zero, in a network that moves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.loss_change import LossChange
from gradwatch.evidence.per_param import Counts, PerParam, keep_param
from gradwatch.evidence.topology import Mask, Topology
from gradwatch.records import Array
from gradwatch.thresholds import Thresholds


@dataclass
class LearningEvidence(PerParam):
    """Counts by parameter ``(n_params,)``, carried over from one layer set to the next.

    Attributes:
        learned: records at which a parameter was seen to learn.
        called: records at which forward has used it, and its optimizer has stepped.
    """

    learned: Counts = keep_param(0)
    called: Counts = keep_param(0)

    def add(self, reading: Reading, change: LossChange, motion: float, limits: Thresholds) -> None:
        """Take in the next record.

        Args:
            reading: of the record.
            change: its loss change.
            motion: loss change of the step against the loss at the start; NaN: not known.
            limits: what counts as a part in the change, as a move, and as a network that moves.

        Example:
            >>> from gradwatch.evidence.worked_example import make_history, make_record
            >>> history = make_history(make_record(step) for step in range(7))
            >>> history.learning.learned.tolist(), history.learning.called.tolist()
            ([7, 7], [7, 7])
        """
        grad = reading.record.param("grad_l2_norm")
        used = _find_used(reading.topology)
        has_stepped = ~np.isnan(reading.record.param("update_l2_norm"))
        self.called[has_stepped & ((reading.was_called & used) | (grad > 0))] += 1
        if not motion < limits.loss_progress:
            self.learned[find_learning(reading, change, limits)] += 1


@lru_cache(maxsize=16)
def _find_used(topology: Topology) -> Mask:
    """Parameters that forward has used, as far as that can be seen."""
    return np.array([param.used for param in topology.params], dtype=bool)


def find_learning(reading: Reading, change: LossChange, limits: Thresholds) -> Mask:
    """Parameters that this record shows to learn: by a part in the loss's change, or by a move.

    Args:
        reading: of the record.
        change: its loss change.
        limits: ``loss_share`` of a part that counts, ``update_ratio`` of a move that does.

    Returns:
        bool ``(n_params,)``.

    Example:
        >>> from gradwatch.evidence.loss_change import allocate_loss_change
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> still = {"update_l2_norm": (1e-9, 0.25), "loss_change": (-1e-9, -0.5)}
        >>> reading = make_reading(param=still)
        >>> change = allocate_loss_change(reading.record, reading.topology)
        >>> find_learning(reading, change, Thresholds()).tolist()
        [False, True]
    """
    grad = reading.record.param("grad_l2_norm")
    moved: Array = reading.measure_update(limits.weight_floor)
    with np.errstate(invalid="ignore"):
        takes_part = change.share >= limits.loss_share
        moves = (grad > 0) & np.isfinite(grad) & (moved >= limits.update_ratio)
    learns: Mask = takes_part | moves
    return learns
