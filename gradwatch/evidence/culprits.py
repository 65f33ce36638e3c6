"""Which layer takes most of a gradient, and whether it is a plain factor that does so."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.paths import LEAST_NORM
from gradwatch.thresholds import Thresholds

_DIGITS = 4
"""Of a logarithm: what a log rounds to 32 bits must not decide between layers that are alike."""


def find_culprit(
    factors: dict[int, float], thresholds: Thresholds, gaps: Sequence[float] = ()
) -> int:
    """Layer that takes most of what is lost on a path; -1 when they share it.

    Args:
        factors: by layer of the path, the natural logarithm of what it multiplies the gradient by.
        gaps: likewise what no layer accounts for.
        thresholds: ``dominant_share`` of all that is lost, in logarithms, and ``dominant_stages``.

    Example:
        >>> find_culprit({4: -0.1, 5: -9.0, 6: 0.2}, Thresholds())
        5
        >>> find_culprit({4: -3.0, 5: -3.0, 6: -3.0}, Thresholds())
        -1
    """
    lost = {index: log for index, log in factors.items() if log < 0}
    if len(factors) < thresholds.dominant_stages or not lost:
        return -1
    worst = min(lost, key=lambda index: round(lost[index], _DIGITS))  # the first of equal ones
    whole = sum(lost.values()) + sum(gap for gap in gaps if gap < 0)
    return worst if lost[worst] <= thresholds.dominant_share * whole else -1


def bends(reading: Reading, source: int, index: int, own: float, thresholds: Thresholds) -> bool:
    """Whether an unknown layer acts as an activation: a plain factor scales outputs alike.

    A function of degree one (a factor, a mean) multiplies the signal forward by what it multiplies
    the gradient by backward (Euler); where the two differ, a derivative is at work.

    Args:
        reading: of one record.
        source: index of the layer before.
        index: of the layer.
        own: logarithm of what it multiplies the gradient by.
        thresholds: ``plain_factor``.
    """
    is_plain = math.exp(abs(own)) < thresholds.plain_factor
    if len(reading.topology.layers[index].inputs) != 1 or is_plain:
        return False
    size = reading.topology.output_numel
    rms = reading.record.layer("output_l2_norm") / np.sqrt(size)
    return abs(log_ratio(rms[index], rms[source]) - own) > abs(own) / 2


def log_ratio(below: float, above: float) -> float:
    """Logarithm of what is left, at least as far as a norm shows; 0 where it is not known.

    Args:
        below, above: norms.
    """
    if 0 < below < math.inf and 0 < above < math.inf:
        return math.log(max(below, min(LEAST_NORM, above))) - math.log(above)
    return 0.0
