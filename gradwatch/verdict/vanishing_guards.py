"""What looks like a vanishing gradient and is none; ``benchmarks.ablation`` weighs each guard."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from gradwatch.evidence.by_construction import find_idle
from gradwatch.evidence.half_precision import find_behind, find_flushed
from gradwatch.evidence.history import History
from gradwatch.evidence.paths import find_opening
from gradwatch.evidence.record_table import RecordTable
from gradwatch.evidence.standstill import find_kept
from gradwatch.evidence.topology import Mask
from gradwatch.evidence.zero_gradients import find_shut, find_walled
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.rule import Guard


def _mark(found: Mask, indices: Iterable[int]) -> Mask:
    marked, chosen = np.zeros(len(found), dtype=bool), list(indices)
    if chosen:
        marked[chosen] = True
    return marked


def _find_zero(history: History, found: Mask) -> list[int]:
    if not history.latest.ask(_has_zeros):
        return []
    grad = history.latest.record.param("grad_l2_norm")
    zero: list[int] = np.flatnonzero(found & (grad == 0)).tolist()
    return zero


def _has_zeros(table: RecordTable) -> Mask:
    """Records in which some gradient is exactly zero."""
    zero: Mask = (table.param("grad_l2_norm") == 0).any(axis=1)
    return zero


def _find_flushed(history: History, thresholds: Thresholds, found: Mask) -> Mask:
    reading = history.latest
    flushed = find_flushed(reading, thresholds, from_start=not history.errors.beginning > 0)
    return find_behind(reading, flushed) if flushed else np.zeros(len(found), dtype=bool)


def _find_walled(history: History, thresholds: Thresholds, found: Mask) -> Mask:
    zero = _find_zero(history, found)
    return _mark(found, find_walled(history.latest, zero) if zero else ())


def _find_left_out(history: History, thresholds: Thresholds, found: Mask) -> Mask:
    zero = _find_zero(history, found)
    return _mark(found, find_shut(history.latest, zero) if zero else ())


def _find_idle(history: History, thresholds: Thresholds, found: Mask) -> Mask:
    idle = find_idle(history.latest, thresholds)
    return _mark(found, (index for indices in idle.values() for index in indices))


def _find_opening(history: History, thresholds: Thresholds, found: Mask) -> Mask:
    if not history.latest.topology.has_joins:  # only beside a skip does a closed branch no harm
        return np.zeros(len(found), dtype=bool)
    behind = np.flatnonzero(found).tolist()
    return _mark(found, find_opening(history.latest, behind, thresholds))


def _find_rested(history: History, thresholds: Thresholds, found: Mask) -> Mask:
    kept = history.params
    with np.errstate(invalid="ignore"):
        learned = history.latest.param_reference < thresholds.converged * kept.first_reference
    rested: Mask = learned & (kept.largest_update >= thresholds.update_ratio)
    return rested


def _find_kept(history: History, thresholds: Thresholds, found: Mask) -> Mask:
    return find_kept(history.latest, history.rates.highest)


GUARDS: tuple[Guard, ...] = (
    Guard(
        "kept from moving",
        "it has a gradient, and what comes between that and the weight makes no step of it: GW801 "
        "or GW802 says why.",
        _find_kept,
        cases=("step_on_a_copy",),
    ),
    Guard(
        "half precision",
        "float16 rounds the gradient to zero: that is an underflow.",
        _find_flushed,
        cases=("cast_in_left_tower",),
    ),
    Guard(
        "no slope",
        "an operation such as `round` stops the gradient: that is a disconnection.",
        _find_walled,
        cases=("sign_units",),
    ),
    Guard(
        "not chosen",
        "a router leaves one of several experts out, and may choose it another time.",
        _find_left_out,
        cases=("expert_of_later_data",),
    ),
    Guard(
        "by construction",
        "a softmax over one key, or gradients that cancel, leave it nothing to learn.",
        _find_idle,
        cases=("one_token_context",),
    ),
    Guard(
        "opening",
        "it stands behind the factor of a residual branch that was made to begin near zero and "
        "moves by `opening` of its own size.",
        _find_opening,
        "Bachlechner et al. (2021), ReZero; Touvron et al. (2021), LayerScale",
        ("rezero_sgd", "zero_init_sgd"),
    ),
    Guard(
        "learned",
        "it has moved before, and less than `converged` is left of the error that it learns from, "
        "that is, of the largest gradient on its way from the loss.",
        _find_rested,
        cases=("side_task_solved", "side_tower_unmoved"),
    ),
)
"""In the order in which they are asked."""
