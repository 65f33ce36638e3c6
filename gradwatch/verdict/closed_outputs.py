"""Outputs of a network that let almost no gradient through, so that all of it stands still."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gradwatch.evidence.culprits import bends
from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.history import History
from gradwatch.evidence.topology import Indices, is_flat
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.faults import advise_to_raise, name_scales
from gradwatch.verdict.rule import Sign
from gradwatch.wording.phrases import name_lack, name_region


def have_outputs_closed(reading: Reading, thresholds: Thresholds) -> bool:
    """Whether of a network that stands still the outputs take more than all the rest.

    Where the loss sends nothing even to outputs that are shut, what it makes of them is flat there.

    Args:
        reading: of the newest record.
        thresholds: ``output_gain`` of the gradient, ``saturated_fraction``.
    """
    if reading.output_gain < thresholds.output_gain:
        return True
    saturated = reading.record.layer("saturated_fraction")[list(reading.topology.outputs)]
    inside = np.fmin.reduce(reading.param_gradient[reading.judged], initial=1.0)
    is_shut = bool(np.any(saturated >= thresholds.saturated_fraction))
    return is_shut and bool(reading.output_gain < inside or reading.error_signal == 0)


_LIMITS = (
    "Look at what happens to the outputs after the last weights: beyond the limits of a clamp the "
    "slope is 0, so begin within them (first bias and scale, the targets' range), or clamp only "
    "where nothing is trained."
)


def describe_closed_outputs(history: History, indices: Indices, thresholds: Thresholds) -> Sign:
    """What shuts the outputs: a plain factor, or where their activation is flat.

    Args:
        history: of the run so far.
        indices: of the parameters that get next to nothing.
        thresholds: ``output_gain``, as it is said; see ``History.broke_layers``.
    """
    reading, gain = history.latest, history.latest.output_gain
    topology = reading.topology
    layers = tuple(dict.fromkeys(topology.param_layers[index] for index in indices))
    closed = np.flatnonzero(topology.is_head & ~topology.is_reference).tolist()
    outputs = name_region([topology.layers[index].fqn for index in closed])
    lack = name_lack(gain, "what the loss sends")
    factors = _find_factors(reading, closed, gain, thresholds)
    if factors:
        message = f"Every layer gets {lack}: {outputs} multiplies what it returns by {gain:.1g}."
        where = f"behind {name_region([topology.layers[index].fqn for index in factors])}"
        remedy = advise_to_raise(where, name_scales(reading, closed))
        return Sign(layers, "weight_scale", gain, thresholds.output_gain, message, remedy=remedy)
    message = f"Every layer gets {lack}: {outputs} lets almost nothing through."
    if reading.error_signal == 0:
        message = (
            f"No gradient comes from the loss, not even to {outputs}: its elements are saturated, "
            "and what is made of them is flat there."
        )
    rectifies = any(is_flat(topology.layers[index], "zero") for index in closed)
    cause = "dead_units" if rectifies else "saturation"
    if history.broke_layers([topology.layers[index] for index in closed], thresholds):
        cause = "learning_rate"
    faults = tuple(topology.layers[index].key for index in closed)
    is_known = any(topology.layers[index].role == "activation" for index in closed)
    remedy = "" if is_known else _LIMITS
    limit = thresholds.output_gain
    return Sign(layers, cause, gain, limit, message, faults=faults, remedy=remedy)


def _find_factors(
    reading: Reading, closed: Sequence[int], gain: float, thresholds: Thresholds
) -> list[int]:
    """Sources of outputs that are these times a plain factor; empty where a slope is at work."""
    layers = reading.topology.layers
    if not gain > 0 or any(layers[i].role == "activation" or not layers[i].inputs for i in closed):
        return []
    sources = [layers[index].inputs[-1] for index in closed]
    pairs = zip(sources, closed, strict=True)
    is_plain = not any(bends(reading, *pair, math.log(gain), thresholds) for pair in pairs)
    return sources if is_plain else []
