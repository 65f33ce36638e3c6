"""What activations and outputs were like when the run began."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from math import isnan

import numpy as np

from gradwatch.evidence.gradient_flow import Reading, measure_rms
from gradwatch.evidence.growth import measure_output_growth
from gradwatch.evidence.softmaxes import measure_sureness
from gradwatch.evidence.time_steps import measure_time_share
from gradwatch.evidence.topology import Topology
from gradwatch.evidence.windows import FIRST_RECORDS
from gradwatch.records import Array
from gradwatch.thresholds import DEFAULTS, Thresholds


@dataclass
class FirstLevels:
    """By key of a layer, a number of the first of the run's first readings that has it.

    Attributes:
        zeros: share of zeros of a rectifier's output.
        saturated: saturated share of an activation.
        rms: scale of a layer's output.
        input_scale: what stands in front of an activation, against what its weight would make of
            inputs of scale 1.
        sureness: of a softmax, see ``measure_sureness``.
        time_share: by name of a recurrent layer, share of the gradient at its first time steps.
        growth: largest growth of the gradient or the outputs over depth at the first reading.
        weight_gain: largest factor at the first reading by which a weight multiplies the gradient.
        seen: readings so far, up to ``FIRST_RECORDS``.
        thresholds: ``recurrent_calls``.
    """

    zeros: dict[str, float] = field(default_factory=dict)
    saturated: dict[str, float] = field(default_factory=dict)
    rms: dict[str, float] = field(default_factory=dict)
    input_scale: dict[str, float] = field(default_factory=dict)
    sureness: dict[str, float] = field(default_factory=dict)
    time_share: dict[str, float] = field(default_factory=dict)
    growth: float = 1.0
    weight_gain: float = 0.0
    seen: int = 0
    thresholds: Thresholds = DEFAULTS

    def add(self, reading: Reading) -> None:
        """Take in the next reading; only the first ``FIRST_RECORDS`` count.

        Args:
            reading: of the next record.
        """
        if self.seen >= FIRST_RECORDS:
            return
        if not self.seen:
            outputs_growth = float(np.max(measure_output_growth(reading), initial=1.0))
            self.growth = max(_measure_growth(reading), outputs_growth)
            self.weight_gain = _measure_weight_gain(reading)
        self.seen += 1
        for levels, values in (
            (self.zeros, reading.record.layer("zero_fraction")),
            (self.saturated, reading.record.layer("saturated_fraction")),
            (self.rms, measure_rms(reading)),
            (self.input_scale, measure_input_scale(reading)),
            (self.sureness, measure_sureness(reading)),
        ):
            for key, value in zip(_list_keys(reading.topology), values.tolist(), strict=True):
                if not isnan(value):
                    levels.setdefault(key, value)
        for profile in measure_time_share(reading, self.thresholds):
            self.time_share.setdefault(profile.fqn, profile.share)

    def was_open(self, key: str, thresholds: Thresholds) -> bool:
        """Whether an activation let gradients through at first, and not just by chance.

        A few units of a layer whose inputs are far too large may be open for a while, because their
        weights happen to be small.

        Args:
            key: of the layer.
            thresholds: ``dead_collapse_from`` for rectifiers, ``input_scale`` and
                ``saturated_fraction`` for the others.

        Example:
            >>> FirstLevels(saturated={"act": 0.1}).was_open("act", Thresholds())
            True
        """
        zeros = self.zeros.get(key)
        if zeros is not None:
            return zeros < thresholds.dead_collapse_from
        if self.input_scale.get(key, 1.0) >= thresholds.input_scale:
            return False
        return self.saturated.get(key, 1.0) < thresholds.saturated_fraction


@lru_cache(maxsize=16)
def _list_keys(topology: Topology) -> tuple[str, ...]:
    return tuple(layer.key for layer in topology.layers)


def _measure_growth(reading: Reading) -> float:
    """Largest gradient at any layer against the error signal at the outputs."""
    with np.errstate(invalid="ignore", divide="ignore"):
        growth = reading.grad[reading.topology.is_reference] / reading.error_signal
    return float(np.max(growth[np.isfinite(growth)], initial=1.0))


def _measure_weight_gain(reading: Reading) -> float:
    layers = reading.topology.layers
    gains = [
        gain
        for gain, layer in zip(reading.gains.tolist(), layers, strict=True)
        if layer.role == "weight"
    ]
    return float(np.fmax.reduce(gains, initial=0.0))


def measure_input_scale(reading: Reading) -> Array:
    """Root mean square of what a weight takes in, as its output shows, by activation behind it.

    A weight ``W`` of ``m`` rows that does not know its input ``x`` makes of it an output with a
    root mean square of ``||W|| rms(x) / sqrt(m)``; a bias counts as an input.

    Args:
        reading: of one record.

    Returns:
        float64 ``(n_layers,)``; NaN but for activations right behind a weight.

    Source:
        LeCun et al. (1998), section 4.6, for the scale of a weight of ``m`` rows.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> measure_input_scale(make_reading()).tolist()  # of fc0: rms 1, ||W|| / sqrt(m) is 1
        [nan, 1.0, nan]
    """
    topology, rms = reading.topology, measure_rms(reading)
    size = reading.record.param("weight_l2_norm") / topology.lecun_norm
    scale = np.full(len(topology.layers), np.nan)
    for activation, source, matrix in _find_fed_by_weights(topology):
        if size[matrix] > 0:
            scale[activation] = rms[source] / size[matrix]
    return scale


@lru_cache(maxsize=16)
def _find_fed_by_weights(topology: Topology) -> tuple[tuple[int, int, int], ...]:
    """Activations right behind a weight, the weight's layer, and its matrix."""
    matrices = {topology.params[i].module: i for i in np.flatnonzero(topology.lecun_norm).tolist()}
    layers, found = topology.layers, []
    for index, layer in enumerate(layers):
        source = layer.inputs[0] if layer.role == "activation" and len(layer.inputs) == 1 else -1
        if source >= 0 and layers[source].role == "weight" and layers[source].fqn in matrices:
            found.append((index, source, matrices[layers[source].fqn]))
    return tuple(found)
