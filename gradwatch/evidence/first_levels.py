"""What activations and outputs were like when the run began."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gradwatch.evidence.gradient_flow import Reading, measure_output_growth, measure_rms
from gradwatch.thresholds import Thresholds

FIRST_READINGS = 5
"""Readings from which the starting level of a quantity is taken."""


@dataclass
class FirstLevels:
    """By key of a layer, a number of the first of the run's first readings that has it.

    Attributes:
        zeros: share of zeros of a rectifier's output.
        saturated: saturated share of an activation.
        rms: scale of a layer's output.
        growth: largest growth of the gradient or the outputs over depth at the first reading.
        seen: readings so far, up to ``FIRST_READINGS``.
    """

    zeros: dict[str, float] = field(default_factory=dict)
    saturated: dict[str, float] = field(default_factory=dict)
    rms: dict[str, float] = field(default_factory=dict)
    growth: float = 1.0
    seen: int = 0

    def add(self, reading: Reading) -> None:
        """Take in the next reading; only the first ones count."""
        if self.seen >= FIRST_READINGS:
            return
        if not self.seen:
            outputs_growth = float(np.max(measure_output_growth(reading), initial=1.0))
            self.growth = max(_measure_growth(reading), outputs_growth)
        self.seen += 1
        for levels, values in (
            (self.zeros, reading.record.layer("zero_fraction")),
            (self.saturated, reading.record.layer("saturated_fraction")),
            (self.rms, measure_rms(reading)),
        ):
            for index in np.flatnonzero(~np.isnan(values)):
                levels.setdefault(reading.topology.layers[index].key, float(values[index]))

    def was_open(self, key: str, thresholds: Thresholds) -> bool:
        """Whether an activation let gradients through at first."""
        zeros = self.zeros.get(key)
        if zeros is not None:
            return zeros < thresholds.dead_collapse_from
        return self.saturated.get(key, 1.0) < thresholds.saturated_fraction


def _measure_growth(reading: Reading) -> float:
    """Largest gradient at any layer against the error signal at the outputs."""
    with np.errstate(invalid="ignore", divide="ignore"):
        growth = reading.grad[reading.topology.is_reference] / reading.error_signal
    return float(np.max(growth[np.isfinite(growth)], initial=1.0))
