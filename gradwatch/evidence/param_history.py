"""What is kept of each parameter over a run: one number each, however long the run."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gradwatch.evidence.gradient_flow import Reading, read_param_gradients
from gradwatch.evidence.per_param import Counts, PerParam, keep_param
from gradwatch.evidence.topology import Mask
from gradwatch.records import Array
from gradwatch.thresholds import Thresholds

MOVED = -(2**62)
"""Mark of a parameter that has changed at some step."""

ROUNDING = 2e-7
"""A weight that is decayed and looked at without its decay changes by so little of its norm in
float32: that is not a copy which somebody keeps."""


@dataclass
class ParamHistory(PerParam):
    """By parameter of the newest layer set ``(n_params,)``; counts are of records in a row.

    Attributes:
        without_gradient: records since its last gradient in which forward used it and others were
            trained.
        with_zeros: records since its last gradient above zero in which it could have had one.
        unmoved: records with a gradient and a learning rate in which its update was lost to its
            precision; ``MOVED`` for good from the first that was not.
        is_maintained: it has changed without a gradient: a copy that somebody keeps on purpose.
        was_fed: it has had a gradient above zero.
        first_l2_norm: of the weight, at its first record.
        first_reference: ``Reading.param_reference`` at its first record that has one.
        largest_update: ``||dw||/||w||`` of a step, small weights judged by LeCun's scale.
        is_decayed: a weight decay above 0 was in force, or none is known.
        shrunk, explained: what its norm has lost from record to record, in natural logarithms, and
            the part of it that its own updates account for, as a penalty in the loss makes them.
        thresholds: ``weight_floor`` of that scale, ``lost_share`` of an update that is lost,
            ``descent_cosine`` of one that follows its gradient.
    """

    without_gradient: Counts = keep_param(0)
    with_zeros: Counts = keep_param(0)
    unmoved: Counts = keep_param(0)
    is_maintained: Mask = keep_param(False)
    was_fed: Mask = keep_param(False)
    first_l2_norm: Array = keep_param(np.nan)
    first_reference: Array = keep_param(np.nan)
    largest_update: Array = keep_param(0.0)
    is_decayed: Mask = keep_param(False)
    shrunk: Array = keep_param(0.0)
    explained: Array = keep_param(0.0)
    thresholds: Thresholds = field(default_factory=Thresholds)

    def add(self, reading: Reading, before: Reading, is_warming_up: bool) -> None:
        """Take in the next reading.

        Args:
            reading: of a layer set to which all has been carried over.
            before: the reading before it, or itself where there is none of the same layer set.
            is_warming_up: the learning rate is rising, so that small updates say nothing yet.
        """
        grad = read_param_gradients(reading.record)
        fed = (grad > 0) | (~np.isnan(grad) & reading.has_arrived)
        is_trained = bool(fed.any()) or not self.was_fed.any()  # else nobody called backward
        has_stepped = ~np.isnan(reading.record.param("update_l2_norm")) | ~np.isnan(grad)
        self.without_gradient[reading.was_called & has_stepped & is_trained] += 1
        self.without_gradient[fed] = 0
        is_learning = reading.record.step("learning_rate") != 0  # NaN: it is not known
        self.with_zeros[(grad == 0) & reading.was_called & (is_learning & is_trained)] += 1
        self.with_zeros[grad > 0] = 0
        self.was_fed |= grad > 0
        self._note_sizes(reading, before, fed)
        self._note_losses(reading, before)
        can_move = fed & (grad > 0) & (is_learning and not is_warming_up)
        self._note_moves(reading, can_move)

    def _note_sizes(self, reading: Reading, before: Reading, fed: Mask) -> None:
        size, update = (reading.record.param(f"{what}_l2_norm") for what in ("weight", "update"))
        has_changed = (update > ROUNDING * size) | _find_replaced(reading, before)
        self.is_maintained |= ~fed & has_changed
        self.first_l2_norm = np.where(np.isnan(self.first_l2_norm), size, self.first_l2_norm)
        error, first = reading.param_reference, self.first_reference
        self.first_reference = np.where(np.isnan(first), error, first)

    def _note_losses(self, reading: Reading, before: Reading) -> None:
        """What weights have lost since the record before, and how much of it updates explain."""
        self.is_decayed |= ~(reading.record.param("weight_decay") <= 0)
        size, earlier = (row.record.param("weight_l2_norm") for row in (reading, before))
        steps = reading.record.global_step - before.record.global_step
        with np.errstate(invalid="ignore", divide="ignore"):
            lost = np.fmax(-np.log(size / earlier), 0.0)
        lost[~np.isfinite(lost)] = 0.0
        update = np.fmax(*(_measure_descent(row, self.thresholds) for row in (reading, before)))
        self.shrunk += lost
        self.explained += np.fmin(lost, np.fmax(steps * np.nan_to_num(update, nan=0.0), 0.0))

    def _note_moves(self, reading: Reading, can_move: Mask) -> None:
        moved = reading.measure_update(self.thresholds.weight_floor)
        self.largest_update = np.fmax(self.largest_update, moved)
        size, update = (reading.record.param(f"{what}_l2_norm") for what in ("weight", "update"))
        lost = size * reading.topology.half_ulps * self.thresholds.lost_share
        self.unmoved[can_move & (update <= lost) & (self.unmoved >= 0)] += 1
        self.unmoved[update > lost] = MOVED


def _measure_descent(reading: Reading, thresholds: Thresholds) -> Array:
    """Update ratio of what has moved along its gradient: a penalty's step does, a hand's does not.

    A step against a penalty's gradient goes along the weight, as does a factor below 1 that
    somebody multiplies it by; but the gradient that arrives from the task does not.
    """
    grad, update, change = (
        reading.record.param(name) for name in ("grad_l2_norm", "update_l2_norm", "loss_change")
    )
    product = grad * update
    is_along = (np.abs(change) >= thresholds.descent_cosine * product) & (product > 0)
    return np.where(is_along, reading.update_ratio, 0.0)


def _find_replaced(reading: Reading, before: Reading) -> Mask:
    """Parameters that have changed since the last record with a gradient at neither."""
    size, earlier = (seen.record.param("weight_l2_norm") for seen in (reading, before))
    unfed = [np.isnan(seen.record.param("grad_l2_norm")) for seen in (reading, before)]
    result: Mask = np.logical_and(*unfed) & (np.abs(size - earlier) > ROUNDING * size)
    return result


def measure_move(reading: Reading, before: Reading, weight_floor: float) -> float:
    """How far the fastest weight has moved, against its own norm.

    Args:
        reading: the newest one.
        before: the one before it, or itself where there is none of the same layer set.
        weight_floor: share of LeCun's norm that a smaller weight counts as.
    """
    judged = reading.topology.is_judged
    update = reading.measure_update(weight_floor)[judged]
    step = float(np.max(update[np.isfinite(update)], initial=0.0))
    weight, earlier = (seen.record.param("weight_l2_norm") for seen in (reading, before))
    floor = np.fmax(earlier, weight_floor * reading.topology.lecun_norm)
    with np.errstate(invalid="ignore", divide="ignore"):
        change = ((weight - earlier) / floor)[judged]
    growth = float(np.max(change[np.isfinite(change)], initial=0.0))
    return max(step, growth / 2)  # a weight that doubles between two sampled steps
