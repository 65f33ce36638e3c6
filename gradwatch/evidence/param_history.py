"""What is kept of each parameter over a run: one number each, however long the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gradwatch.evidence.flow_facts import (
    find_arrived,
    find_called,
    measure_updates,
    read_param_gradients,
)
from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.per_param import Counts, PerParam, keep_param
from gradwatch.evidence.record_table import RecordTable
from gradwatch.evidence.topology import Mask
from gradwatch.records import Array
from gradwatch.thresholds import DEFAULTS, Thresholds

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
        first_gradient: likewise ``Reading.param_gradient``.
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
    first_gradient: Array = keep_param(np.nan)
    largest_update: Array = keep_param(0.0)
    is_decayed: Mask = keep_param(False)
    shrunk: Array = keep_param(0.0)
    explained: Array = keep_param(0.0)
    thresholds: Thresholds = DEFAULTS

    def add(self, reading: Reading, is_warming_up: bool) -> None:
        """Take in the next reading.

        Args:
            reading: of a layer set to which all has been carried over.
            is_warming_up: the learning rate is rising, so that small updates say nothing yet.
        """
        limits = self.thresholds
        marks = reading.pick(_gather_marks, limits.descent_cosine)
        # where nobody has a gradient, nobody called backward
        is_trained = marks.is_any_fed or not self.was_fed.any()
        is_learning = reading.record.step("learning_rate") != 0  # NaN: it is not known
        if is_trained:
            self.without_gradient += marks.able
        self.without_gradient[marks.fed] = 0
        if is_learning and is_trained:
            self.with_zeros += marks.zeros
        self.with_zeros[marks.above_zero] = 0
        self.was_fed |= marks.above_zero
        self._note_sizes(reading, marks)
        self._note_moves(reading, is_learning and not is_warming_up)

    def _note_sizes(self, reading: Reading, marks: _Marks) -> None:
        """What weights were at first, and what they have lost since the record before."""
        self.is_maintained |= marks.maintained
        self.is_decayed |= marks.decayed
        for first, now in (
            (self.first_l2_norm, reading.record.param("weight_l2_norm")),
            (self.first_reference, reading.param_reference),
            (self.first_gradient, reading.param_gradient),
        ):
            np.copyto(first, now, where=np.isnan(first))
        self.shrunk += marks.lost
        self.explained += marks.explained

    def _note_moves(self, reading: Reading, can_move: bool) -> None:
        moved = reading.measure_update(self.thresholds.weight_floor)
        np.fmax(self.largest_update, moved, out=self.largest_update)
        share = self.thresholds.lost_share
        if can_move and reading.ask(_has_lost_moves, share):
            self.unmoved[reading.ask(_find_lost_moves, share) & (self.unmoved >= 0)] += 1
        self.unmoved[reading.ask(_find_kept_moves, share)] = MOVED


class _Marks(NamedTuple):
    """What one record says of each parameter ``(n_params,)``, asked for at once."""

    is_any_fed: bool
    fed: Mask
    above_zero: Mask
    able: Mask
    zeros: Mask
    maintained: Mask
    decayed: Mask
    lost: Array
    explained: Array


def _gather_marks(table: RecordTable, descent_cosine: float) -> list[_Marks]:
    fed = table.ask(find_fed_params)
    facts: tuple[Any, ...] = (
        fed.any(axis=1).tolist(),
        fed,
        table.ask(_find_above_zero),
        _find_able(table),
        _find_zeros(table),
        _find_maintained(table),
        _find_decayed(table),
        table.ask(_measure_losses),
        _explain_losses(table, descent_cosine),
    )
    return [_Marks(*rows) for rows in zip(*facts, strict=True)]


def find_fed_params(table: RecordTable) -> Mask:
    """Parameters with a gradient above zero, or of zero where one has arrived at their module.

    Args:
        table: of records.

    Returns:
        bool ``(n_records, n_params)``.
    """
    grad = table.ask(read_param_gradients)
    fed: Mask = (grad > 0) | (~np.isnan(grad) & table.ask(find_arrived))
    return fed


def _find_above_zero(table: RecordTable) -> Mask:
    above: Mask = table.ask(read_param_gradients) > 0
    return above


def _find_able(table: RecordTable) -> Mask:
    """Parameters that forward has used at a step, so that a gradient could have come."""
    grad, update = table.ask(read_param_gradients), table.param("update_l2_norm")
    return table.ask(find_called) & ~(np.isnan(update) & np.isnan(grad))


def _find_zeros(table: RecordTable) -> Mask:
    zeros: Mask = (table.ask(read_param_gradients) == 0) & table.ask(find_called)
    return zeros


@np.errstate(all="ignore")
def _find_maintained(table: RecordTable) -> Mask:
    """Parameters that have changed without a gradient, at this step or since the record before."""
    size, update = table.param("weight_l2_norm"), table.param("update_l2_norm")
    changed = update > ROUNDING * size
    unfed = np.isnan(table.param("grad_l2_norm")) & np.isnan(table.earlier("grad_l2_norm"))
    changed |= unfed & (np.abs(size - table.earlier("weight_l2_norm")) > ROUNDING * size)
    maintained: Mask = ~table.ask(find_fed_params) & changed
    return maintained


def _find_decayed(table: RecordTable) -> Mask:
    return ~(table.param("weight_decay") <= 0)


@np.errstate(all="ignore")
def _measure_losses(table: RecordTable) -> Array:
    """What weights have lost since the record before, in natural logarithms."""
    lost = np.fmax(-np.log(table.param("weight_l2_norm") / table.earlier("weight_l2_norm")), 0.0)
    lost[~np.isfinite(lost)] = 0.0
    return lost


@np.errstate(all="ignore")
def _explain_losses(table: RecordTable, descent_cosine: float) -> Array:
    """How much of what they have lost their updates account for.

    Of what has moved along its gradient: a penalty's step does, a hand's does not. A step against a
    penalty's gradient goes along the weight, as does a factor below 1 that somebody multiplies it
    by; but the gradient that arrives from the task does not.
    """
    if not np.count_nonzero(table.ask(_measure_losses)):
        return table.ask(_measure_losses)
    update = np.fmax(*(_measure_descents(r, descent_cosine) for r in (table.param, table.earlier)))
    made = np.fmax(table.spans[:, None] * update, 0.0)  # 0 where it is not known
    explained: Array = np.fmin(table.ask(_measure_losses), made)
    return explained


def _measure_descents(read: Callable[[str], Array], descent_cosine: float) -> Array:
    grad, update, change = map(read, ("grad_l2_norm", "update_l2_norm", "loss_change"))
    product = grad * update
    is_along = (np.abs(change) >= descent_cosine * product) & (product > 0)
    return np.where(is_along, update / read("weight_l2_norm"), 0.0)


@np.errstate(all="ignore")
def _measure_least(table: RecordTable, lost_share: float) -> Array:
    """Updates from which the precision of a weight keeps something."""
    least: Array = table.param("weight_l2_norm") * table.topology.half_ulps * lost_share
    return least


def _find_lost_moves(table: RecordTable, lost_share: float) -> Mask:
    can_move = table.ask(find_fed_params) & table.ask(_find_above_zero)
    lost: Mask = table.param("update_l2_norm") <= table.ask(_measure_least, lost_share)
    return can_move & lost


def _has_lost_moves(table: RecordTable, lost_share: float) -> Mask:
    some: Mask = np.logical_or.reduce(table.ask(_find_lost_moves, lost_share), axis=1)
    return some


def _find_kept_moves(table: RecordTable, lost_share: float) -> Mask:
    kept: Mask = table.param("update_l2_norm") > table.ask(_measure_least, lost_share)
    return kept


@np.errstate(all="ignore")
def measure_moves(table: RecordTable, weight_floor: float) -> Array:
    """How far the fastest weight has moved, against its own norm ``(n_records,)``.

    Args:
        table: of records.
        weight_floor: share of LeCun's norm that a smaller weight counts as.
    """
    topology, earlier = table.topology, table.earlier("weight_l2_norm")
    floor = np.fmax(earlier, weight_floor * topology.lecun_norm)
    change = (table.param("weight_l2_norm") - earlier) / floor
    step, growth = (
        np.where(topology.is_judged & np.isfinite(values), values, 0.0).max(axis=1, initial=0.0)
        for values in (table.ask(measure_updates, weight_floor), change)
    )
    fastest: Array = np.maximum(step, growth / 2)  # a weight that doubles between two records
    return fastest
