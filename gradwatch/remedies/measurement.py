"""A report of a short training -> the few numbers by which remedies are compared."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gradwatch.evidence.gradient_flow import Reading, read_flow
from gradwatch.records import Array
from gradwatch.report import Report
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.episodes import Change
from gradwatch.verdict.trials import Measurement

EARLY_SHARE = 1 / 3
"""Share of the weights, in the order of forward, that count as early."""


def measure_training(
    report: Report, thresholds: Thresholds, loss_start: float, loss_end: float
) -> Measurement:
    """What ``Measurement`` says, from the records behind a report and the losses around them.

    Args:
        report: of the trial's training, every step recorded.
        thresholds: whose ``weight_floor`` keeps a weight near zero from looking as if it moved.
        loss_start: mean loss of some batches before the training.
        loss_end: the same after it.
    """
    records = report.history.records if report.history is not None else ()
    readings = read_flow(records)
    attenuations = np.array([measure_attenuation(reading) for reading in readings])
    updates = np.array(
        [measure_early_update(reading, thresholds.weight_floor) for reading in readings]
    )
    return Measurement(
        attenuation=_summarise(attenuations, np.median),
        early_update=_summarise(updates, np.mean),
        loss_start=loss_start,
        loss_end=loss_end,
        findings=report.findings,
    )


def _summarise(values: Array, reduce: Callable[[Array], Any]) -> float:
    known = values[~np.isnan(values)]
    return float(reduce(known)) if known.size else math.nan


def measure_attenuation(reading: Reading) -> float:
    """Least relative gradient at the outputs of weights; NaN where no gradient arrived.

    Args:
        reading: of one record.
    """
    roles = [layer.role in ("weight", "recurrent") for layer in reading.topology.layers]
    values = reading.relative_gradient[np.array(roles, dtype=bool)]
    values = values[np.isfinite(values)]
    return float(values.min()) if values.size else math.nan


def measure_early_update(reading: Reading, weight_floor: float) -> float:
    """Median relative update of the first third of the weights; 0 for one without a gradient.

    Args:
        reading: of one record.
        weight_floor: as in ``Thresholds``: a share of LeCun's scale.

    Returns:
        ``||dw|| / ||w||``; NaN where no weight was judged.
    """
    early = find_early(reading)
    if not early:
        return math.nan
    with np.errstate(invalid="ignore"):
        updates = np.nan_to_num(reading.measure_update(weight_floor)[early], posinf=math.inf)
    return float(np.median(updates))


def find_early(reading: Reading) -> list[int]:
    """Trainable weights in use, by their first call; bare ones keep the order of the parameters.

    Args:
        reading: of one record.

    Returns:
        Indices of parameters.
    """
    topology = reading.topology
    has_gradient = ~np.isnan(reading.record.param("grad_l2_norm"))
    used = has_gradient | np.array([param.used for param in topology.params], dtype=bool)
    judged = np.flatnonzero(topology.is_judged & used).tolist()
    ordered = sorted(judged, key=lambda i: min(topology.calls[i], default=0))
    return ordered[: math.ceil(len(ordered) * EARLY_SHARE)]


def has_nonfinite_gradient(change: Change) -> bool:
    """Whether a finding that has just begun says that there are NaN or Inf.

    Args:
        change: as ``on_change`` gets it.
    """
    return change.began and change.finding.kind == "nonfinite"
