"""Weights that a gradient arrives at and that do not move, not by a bit: since when, and why.

A weight that has not moved has the same norm before two steps and an update of exactly zero. What
the optimizer was given, whether it has stepped and at which rate says why.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradwatch.evidence.flow_facts import find_arrived
from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.per_param import Counts, PerParam, keep_param
from gradwatch.evidence.record_table import RecordTable
from gradwatch.evidence.topology import Mask
from gradwatch.records import Array, StepRecord
from gradwatch.thresholds import Thresholds

SURE_STEP = 2.0**-22
"""Step of plain gradient descent, against the weight's norm, that float32 cannot round away: four
times half a unit in the last place, which is at most 2^-24 of a number."""

REST_RATE = 2.0**-24
"""A rate that has come down to this share of its highest moves nothing that it used to move."""

LARGEST_SQUARED = float(np.finfo(np.float32).max) ** 0.5
"""Numbers from here on have no square in float32."""


@dataclass
class Standstill(PerParam):
    """By parameter of the newest layer set ``(n_params,)``.

    Attributes:
        records: sampled steps in a row with a gradient since it last moved.
        since: global step of the first of these.
        stepped: those of these in which its optimizer has stepped.
        has_moved: it has moved at some step.
        largest_grad: norm of its largest gradient so far.
    """

    records: Counts = keep_param(0)
    since: Counts = keep_param(0)
    stepped: Counts = keep_param(0)
    has_moved: Mask = keep_param(False)
    largest_grad: Array = keep_param(0.0)
    _size: Array = keep_param(np.nan)

    def add(self, reading: Reading) -> None:
        """Take in the next reading.

        Args:
            reading: of a layer set to which all has been carried over.
        """
        size = reading.record.param("weight_l2_norm")
        moves = reading.ask(_find_moving) | (np.isfinite(self._size) & (size != self._size))
        self._size = size
        self.has_moved |= moves
        self.records[moves] = self.stepped[moves] = 0
        waits = reading.ask(_find_waiting) & ~moves
        if np.count_nonzero(waits):
            self.since[waits & (self.records == 0)] = reading.record.global_step
            self.records += waits
            self.stepped += waits & reading.ask(_find_stepped)
        grad = reading.record.param("grad_l2_norm")
        np.fmax(self.largest_grad, grad, out=self.largest_grad)

    def find(self, global_step: int, thresholds: Thresholds) -> Mask:
        """Parameters that have not moved for ``still_records`` records and ``still_steps`` steps.

        Args:
            global_step: of the newest record.
            thresholds: of the run.

        Example:
            >>> from gradwatch.evidence.worked_example import make_history, make_record
            >>> still = {"update_l2_norm": (0.0, 0.25), "weight_l2_norm": 1.0}
            >>> history = make_history(make_record(50 * i, param=still) for i in range(12))
            >>> history.standstill.find(history.last_step, Thresholds()).tolist()
            [True, False]
        """
        lasted: Mask = self.records >= thresholds.still_records
        if np.count_nonzero(lasted):
            lasted &= global_step - self.since >= thresholds.still_steps
        return lasted


def _find_moving(table: RecordTable) -> Mask:
    moving: Mask = (table.param("update_l2_norm") > 0) | ~np.isfinite(table.param("weight_l2_norm"))
    return moving


def _find_stepped(table: RecordTable) -> Mask:
    return ~np.isnan(table.param("update_l2_norm"))


def _find_waiting(table: RecordTable) -> Mask:
    """Parameters at which a gradient arrives, read or not, as where no optimizer has stepped."""
    is_unread = np.isnan(table.param("grad_l2_norm")) & np.isnan(table.param("update_l2_norm"))
    return find_fed(table) | (is_unread & table.ask(find_arrived))


def find_fed(record: StepRecord | RecordTable) -> Mask:
    """Parameters with a finite gradient above zero, also where samples are taken of it.

    Args:
        record: of one step, or a table of several.

    Returns:
        bool ``(n_params,)``, of a table ``(n_records, n_params)``.

    Example:
        >>> from gradwatch.evidence.worked_example import make_record
        >>> find_fed(make_record(param={"grad_l2_norm": (0.0, 2.0)})).tolist()
        [False, True]
    """
    grad = record.param("grad_l2_norm")
    fed: Mask = (grad > 0) & np.isfinite(grad) & ~(record.param("zero_fraction") >= 1)
    return fed


def find_cleared(record: StepRecord | RecordTable) -> Mask:
    """Parameters at which a gradient arrived, and whose optimizer found none when it stepped.

    Args:
        record: of one step, or a table of several.

    Returns:
        bool ``(n_params,)``, of a table ``(n_records, n_params)``; false throughout in logs that
        lack the optimizer's gradient.

    Example:
        >>> from gradwatch.evidence.worked_example import make_record
        >>> find_cleared(make_record(param={"step_grad_l2_norm": (0.0, 2.0)})).tolist()
        [True, False]
    """
    if "step_grad_l2_norm" not in record.layer_set.rows.param:
        return np.zeros_like(record.param("grad_l2_norm"), dtype=bool)
    used, update = record.param("step_grad_l2_norm"), record.param("update_l2_norm")
    cleared: Mask = find_fed(record) & ((used == 0) | (np.isnan(used) & (update == 0)))
    return cleared


def has_overflown(record: StepRecord) -> bool:
    """Whether the squares of a step's gradients leave float32, so that a norm of all is infinite.

    Clipping by it then multiplies every gradient by 0: the training has diverged.

    Args:
        record: of one step.

    Example:
        >>> from gradwatch.evidence.worked_example import make_record
        >>> has_overflown(make_record(param={"grad_l2_norm": (1.0, 1e20)}))
        True
    """
    grad = record.param("grad_l2_norm")
    total = float(np.linalg.norm(grad[~np.isnan(grad)]))
    return total >= LARGEST_SQUARED or bool(record.step("nonfinite_passes") > 0)


def find_lost(standstill: Standstill, reading: Reading, thresholds: Thresholds) -> Mask:
    """Still parameters for which the optimizer has made a step that rounding cannot have taken.

    One that has moved before may have come to rest: not while its gradient is as large as it was.

    Args:
        standstill: of the run.
        reading: the newest one.
        thresholds: of the run.

    Example:
        >>> from gradwatch.evidence.worked_example import make_history, make_record
        >>> still = {"update_l2_norm": 0.0}
        >>> history = make_history(make_record(50 * i, param=still) for i in range(12))
        >>> find_lost(history.standstill, history.latest, Thresholds()).tolist()
        [True, True]
    """
    grad = reading.record.param("step_grad_l2_norm")
    rests = standstill.has_moved & ~(grad > thresholds.converged * standstill.largest_grad)
    has_stepped = standstill.stepped == standstill.records
    lost: Mask = reading.ask(find_sure) & has_stepped & ~rests
    return lost


def find_sure(table: RecordTable) -> Mask:
    """Parameters with ``rate * ||g|| > 2^-22 ||w||``: a step that float32 cannot round away.

    What half precision rounds away is an underflow, and of a sparse gradient nothing is known.

    Args:
        table: of records.

    Returns:
        bool ``(n_records, n_params)``.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> make_reading(param={"learning_rate": (1e-9, 0.125)}).ask(find_sure).tolist()
        [False, True]
    """
    grad, size = table.param("step_grad_l2_norm"), table.param("weight_l2_norm")
    is_whole = table.topology.half_ulps == 0
    is_dense = np.isfinite(table.param("loss_change"))
    sure: Mask = (table.param("learning_rate") * grad > SURE_STEP * size) & is_whole & is_dense
    return sure


def find_kept(reading: Reading, highest: float) -> Mask:
    """Parameters that a step has not moved for another reason than a weak gradient.

    Args:
        reading: of the step's record.
        highest: learning rate of the run so far.

    Returns:
        bool ``(n_params,)``.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> find_kept(make_reading(param={"update_l2_norm": (0.0, 0.25)}), highest=0.125).tolist()
        [True, False]
    """
    still: Mask = reading.ask(_find_still)
    if not np.count_nonzero(still):
        return still
    rests = is_resting(reading.record.param("learning_rate"), highest)
    kept: Mask = still & (rests | reading.ask(find_sure) | reading.ask(find_cleared))
    return kept


def _find_still(table: RecordTable) -> Mask:
    """Parameters with a gradient of which the step has moved none, by not a bit."""
    still: Mask = find_fed(table) & (table.param("update_l2_norm") == 0)
    return still


def is_resting(rates: Array, highest: float) -> Mask:
    """Learning rates that move nothing: 0, or ``REST_RATE`` of the highest so far.

    Args:
        rates: of the parameters ``(n_params,)``; NaN where not known.
        highest: rate of the run so far.

    Returns:
        bool ``(n_params,)``.

    Example:
        >>> is_resting(np.array([0.0, 1e-12, 0.1]), highest=0.1).tolist()
        [True, True, False]
    """
    rest: Mask = (rates == 0) | (rates <= REST_RATE * highest)
    return rest
