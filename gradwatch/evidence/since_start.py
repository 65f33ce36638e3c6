"""What training itself has made of a gradient: how much arrived at the first records, and now.

A scale of weights, a slope or a depth that keeps the gradient away does so from the first step on.
What was there then, and is gone, the steps have taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gradwatch.evidence.history import History
from gradwatch.evidence.paths import LEAST_NORM
from gradwatch.evidence.time_steps import TimeProfile
from gradwatch.thresholds import Thresholds


def measure_first_gradient(history: History, indices: Sequence[int]) -> float:
    """Share of the gradient that the least reached of these parameters got at its first record.

    Args:
        history: of the run so far.
        indices: of parameters.

    Returns:
        NaN where it is known of none.

    Example:
        >>> from gradwatch.evidence.worked_example import make_history, make_record
        >>> measure_first_gradient(make_history([make_record()]), [0, 1])
        0.03125
    """
    return float(np.fmin.reduce(history.params.first_gradient[list(indices)], initial=np.nan))


def have_steps_taken(history: History, indices: Sequence[int], thresholds: Thresholds) -> bool:
    """Whether most of what these parameters lack of the gradient was lost after the first record.

    Args:
        history: of the run so far.
        indices: of parameters.
        thresholds: ``dominant_share`` of all that is lost, in logarithms.

    Example:
        >>> from gradwatch.evidence.worked_example import make_history, make_record
        >>> faint = {"grad_output_l2_norm": (1e-9, 0.125, 1.0)}
        >>> run = make_history([make_record(), make_record(1, layer=faint)])
        >>> have_steps_taken(run, [0], Thresholds())
        True
    """
    now = history.latest.param_gradient[list(indices)]
    least = float(np.fmin.reduce(now, initial=np.nan))
    return _was_taken(measure_first_gradient(history, indices), least, thresholds)


def have_steps_taken_time(history: History, profile: TimeProfile, thresholds: Thresholds) -> bool:
    """The same of the gradient at a recurrent layer's first time steps.

    Args:
        history: of the run so far.
        profile: of the latest record.
        thresholds: ``dominant_share``.
    """
    first = history.first_levels.time_share.get(profile.fqn, math.nan)
    return _was_taken(first, profile.share, thresholds)


def _was_taken(first: float, now: float, thresholds: Thresholds) -> bool:
    if not (first > 0 and now < 1):
        return False
    lost = math.log(max(now, LEAST_NORM))
    return math.log(min(first, 1.0)) > thresholds.dominant_share * lost
