"""Weights that regularisation has erased, or takes away as fast as they are learned.

A penalty moves a weight too, and changes the loss that it is part of: what such a weight does says
nothing of the task. How large it still is does, and how much of the gradient comes through.
"""

from __future__ import annotations

import numpy as np

from gradwatch.evidence.history import History
from gradwatch.evidence.record_table import RecordTable
from gradwatch.evidence.topology import Mask
from gradwatch.records import Array
from gradwatch.thresholds import Thresholds


def find_erased(history: History, thresholds: Thresholds) -> Mask:
    """Weights of which next to nothing is left, in a network of which it is so for most.

    Args:
        history: of the run so far.
        thresholds: ``weight_floor``, share of a weight's first norm and of LeCun's.

    Returns:
        bool ``(n_params,)``.

    Example:
        >>> from gradwatch.evidence.worked_example import make_history, make_record
        >>> shrinking = [make_record(i, param={"weight_l2_norm": 4.0**-i}) for i in range(4)]
        >>> find_erased(make_history(shrinking), Thresholds()).tolist()
        [True, True]
    """
    reading = history.latest
    first, usual = history.params.first_l2_norm, reading.topology.lecun_norm
    with np.errstate(invalid="ignore", divide="ignore"):
        left = reading.record.param("weight_l2_norm") / first * first
        erased: Mask = left < thresholds.weight_floor * np.fmin(first, usual)
    erased &= reading.judged
    if 2 * np.count_nonzero(erased) <= np.count_nonzero(reading.judged):
        return np.zeros_like(erased)
    return erased


def measure_left(history: History) -> Array:
    """Norm of each weight against that at its first record ``(n_params,)``; NaN where unknown.

    Args:
        history: of the run so far.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        left: Array = history.latest.record.param("weight_l2_norm") / history.params.first_l2_norm
    return left


def measure_decay(history: History) -> Array:
    """Share of each judged weight that weight decay takes away per step, rate times decay.

    Args:
        history: of the run so far.

    Returns:
        float64 ``(n_params,)``; 0 where none is known. It is kept: do not write to it.

    Example:
        >>> from gradwatch.evidence.worked_example import make_history, make_record
        >>> decayed = {"learning_rate": 0.01, "weight_decay": (30.0, 0.0)}
        >>> measure_decay(make_history([make_record(param=decayed)])).round(3).tolist()
        [0.3, 0.0]
    """
    return history.latest.ask(_measure_decays)


@np.errstate(all="ignore")
def _measure_decays(table: RecordTable) -> Array:
    taken = np.nan_to_num(table.param("learning_rate") * table.param("weight_decay"), nan=0.0)
    decay: Array = np.where(table.topology.is_judged, taken, 0.0)
    return decay
