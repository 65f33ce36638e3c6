"""How a run went, as far as words tell it: small, where its history holds every record."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from gradwatch.evidence.history import History
from gradwatch.evidence.progress import is_slow, lacks_rate, measure_overshoot, measure_way


@dataclass(frozen=True)
class Promise:
    """What the steps of a run were to do to its loss.

    Attributes:
        overshoot: share of the loss that each step was to take off, where that is far too much.
        leap: how many times its start the loss was soon after a step that has replaced weights.
        way: share of the loss that all steps together were to take off.
        scatter: standard error of the loss's fall, a share of the first loss.
        lacks_rate: where they promise little, the gradient is there, and the rate is small.
    """

    overshoot: float = 0.0
    leap: float = 1.0
    way: float = math.nan
    scatter: float = math.nan
    lacks_rate: bool = True


@dataclass(frozen=True)
class Course:
    """What words need to know of a run beside its findings.

    Attributes:
        steps: global steps of the records that the history has kept, ascending.
        intervals: steps between two samples, at the first and at the last record.
        climbs: most steps went up the gradient, as those of an optimizer that maximises.
        is_at_start: the loss shows no fall since the start.
        levelled_at: share by which the loss had fallen when it levelled off too soon; NaN where it
            has not.
        is_slow: all steps together were to take no more off the loss than that, see
            ``evidence.progress.is_slow``.
        promise: of the steps, where the loss is at its start, or they are so small.
    """

    steps: tuple[int, ...] = ()
    intervals: tuple[float, float] = (math.nan, math.nan)
    climbs: bool = False
    is_at_start: bool = False
    levelled_at: float = math.nan
    is_slow: bool = False
    promise: Promise = Promise()


def describe_course(history: History, is_unhealthy: bool = False) -> Course:
    """How the run went so far.

    Args:
        history: of one record at least.
        is_unhealthy: there are findings, and nobody asks what the loss does besides.

    Example:
        >>> from gradwatch.evidence.worked_example import make_history, make_record
        >>> stays = [make_record(step, step={"loss": 1.0}) for step in range(40)]
        >>> describe_course(make_history(stays)).is_at_start
        True
    """
    records = history.records
    course = Course(
        steps=tuple(record.global_step for record in records),
        intervals=(records[0].step("interval"), records[-1].step("interval")),
    )
    return course if is_unhealthy else replace(course, **_describe_loss(history))


def _describe_loss(history: History) -> dict[str, Any]:
    losses, slow = history.losses, is_slow(history, history.thresholds)
    return {
        "climbs": history.loss_change.climbs,
        "is_at_start": losses.is_at_start,
        "levelled_at": losses.fall_lately[0] if losses.has_hardly_fallen else math.nan,
        "is_slow": slow,
        "promise": _find_promise(history) if losses.is_at_start or slow else Promise(),
    }


def _find_promise(history: History) -> Promise:
    return Promise(
        overshoot=measure_overshoot(history, history.thresholds),
        leap=history.losses.leap,
        way=measure_way(history),
        scatter=history.losses.fall[1],
        lacks_rate=lacks_rate(history, history.thresholds),
    )
