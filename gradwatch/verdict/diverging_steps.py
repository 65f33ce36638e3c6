"""What training does over its steps that diverges: weights, outputs and the loss run away."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from gradwatch.evidence.gradient_flow import Reading, measure_rms
from gradwatch.evidence.growth import find_squashed
from gradwatch.evidence.history import History
from gradwatch.evidence.time_steps import measure_time_growth
from gradwatch.evidence.topology import Mask, Topology
from gradwatch.records import Array, Param
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.ignored import find_ignored_layers, find_ignored_params
from gradwatch.verdict.rule import Sign
from gradwatch.wording.module_names import name_owners
from gradwatch.wording.phrases import name_number, name_region

_CALM = (
    "Lower the learning rate, warm it up, or clip gradients, and look at the optimizer's momentum "
    "(below 1) and weight decay (not below 0) as well."
)

BOUND = (
    "The gradient had grown at the first step already, and the weights began with a usual size: "
    "look in forward for an exp, a power or a constant factor and bound what goes into it (clamp), "
    "scale the inputs to a size of about 1, and clip gradients."
)


def began_even(history: History, thresholds: Thresholds) -> bool:
    """Whether nothing grew over depth or time at the first record.

    Args:
        history: of the run so far.
        thresholds: ``exploding_growth``, of whose decades ``grown_share`` are still even.
    """
    return bool(history.first_levels.growth < thresholds.exploding_growth**thresholds.grown_share)


def _look_over_steps(history: History, thresholds: Thresholds) -> Sign | None:
    if not history.has_replaced_weights or not history.was_diverging(thresholds):
        return None
    reading = history.latest
    update = history.params.largest_update  # of the step that broke it, not of those behind
    judged = np.flatnonzero(reading.topology.is_judged & np.isfinite(update) & (update > 0))
    if not judged.size:
        return None
    order = sorted(judged, key=lambda index: -update[index])
    params = [reading.topology.params[index] for index in order]
    names = name_owners(params)
    growth = history.errors.largest / history.errors.beginning
    message = (
        f"The error signal at the output rose to {name_number(growth)} times its first values, and "
        f"{params[0].fqn} has changed by {update[order[0]]:.2g} times its size in one step."
    )
    return Sign(names, "learning_rate", growth, thresholds.divergence, message, looks_back=True)


def _look_at_weights(history: History, thresholds: Thresholds) -> Sign | None:
    """Weights that have run away step by step, without any single step that replaces them."""
    growth = _measure_weight_growth(history, thresholds)
    largest = float(np.maximum.reduce(growth, initial=0.0))
    if largest < thresholds.weight_growth:
        return None
    params = _list_params(history, growth, thresholds.weight_growth)
    names = name_owners(params)
    message = (
        f"{params[0].fqn} has grown to {name_number(largest)} times its first size "
        f"({name_region(names)})."
    )
    cause = _find_runaway_cause(history, thresholds)
    remedy = _CALM if cause == "learning_rate" else "" if cause else BOUND
    return Sign(names, cause, largest, thresholds.weight_growth, message, remedy=remedy)


@lru_cache(maxsize=16)
def _find_asked(topology: Topology, patterns: tuple[str, ...]) -> Mask:
    """Parameters that are judged and heard of, but for those all of whose calls are heads."""
    heads = [bool(calls) and all(topology.is_head[list(calls)]) for calls in topology.calls]
    ignored = find_ignored_params(topology, patterns)
    asked: Mask = topology.is_judged & ~np.array(heads, dtype=bool) & ~ignored
    return asked


def _measure_weight_growth(history: History, thresholds: Thresholds) -> Array:
    """Norm of each weight against its first one, or LeCun's if that is larger; 0: not judged.

    Heads are left out: their weights take on the target's scale.
    """
    topology = history.latest.topology
    weights = history.latest.record.param("weight_l2_norm")
    growth = weights / np.fmax(history.params.first_l2_norm, topology.lecun_norm)
    asked = _find_asked(topology, thresholds.ignore_layers)
    return np.where(asked & np.isfinite(growth), growth, 0.0)


def _list_params(history: History, growth: Array, least: float) -> list[Param]:
    """Parameters that have grown by so much at least, most of all first."""
    params = history.latest.topology.params
    return [params[index] for index in np.argsort(-growth) if growth[index] >= least]


def _look_at_loss(history: History, thresholds: Thresholds) -> Sign | None:
    """A loss that jumps far beyond its first values again and again, and gets nowhere between.

    Behind a softmax the error signal is bounded, and what a step has broken may be in order again
    at the next sampled one; a training that falls in between its jumps is left alone.
    """
    if not history.has_replaced_weights:
        return None
    peak = history.losses.peak
    if not (peak > thresholds.divergence and history.losses.remaining > thresholds.progress):
        return None
    growth = _measure_weight_growth(history, thresholds)
    largest = float(np.max(growth, initial=0.0))
    params = _list_params(history, growth, max(largest, 1.0) ** thresholds.grown_share)
    if not params:
        return None
    names = name_owners(params)
    message = (
        f"The loss has recently been up to {name_number(peak)} times its first values, since a "
        f"step has replaced weights; {params[0].fqn} has grown most ({name_region(names)})."
    )
    return Sign(names, "learning_rate", peak, thresholds.divergence, message, looks_back=True)


def _look_at_step_sizes(history: History, thresholds: Thresholds) -> Sign | None:
    """Steps that shake the weights, and a loss that gets nowhere.

    Nothing need have grown: clipping holds each step at the same length, and behind a softmax the
    loss comes back. What changes by a tenth at each step has forgotten after ten what it was.
    """
    size, made = history.steps.middle, history.last_step - history.first_step
    is_shaken = size >= thresholds.shaking_update
    if not (is_shaken and history.losses.remaining > thresholds.progress):
        return None
    reading = history.latest
    ignored = find_ignored_params(reading.topology, thresholds.ignore_layers)
    seen = reading.topology.is_judged & ~ignored
    update = np.where(seen, reading.update_ratio, np.nan)
    order = [i for i in np.argsort(-update) if update[i] >= size]  # more than all together
    names = name_owners([reading.topology.params[index] for index in order])
    if not names:
        return None
    message = (
        f"Each step changes the weights by some {size:.0%} of their size, {names[0]} most, and "
        f"after {made + 1:,} steps the loss is {history.losses.remaining:.0%} of its first values."
    )
    return Sign(names, "learning_rate", size, thresholds.shaking_update, message, looks_back=True)


def _look_at_outputs(history: History, thresholds: Thresholds) -> Sign | None:
    """Hidden outputs that a step has sent far beyond their first scale.

    Behind a softmax the error signal is bounded, and does not show it.
    """
    reading = history.latest
    if not history.has_replaced_weights or _measure_largest_rms(reading) < thresholds.output_growth:
        return None
    layers, rms = reading.topology.layers, measure_rms(reading)
    growth = np.array(
        [
            rms[i] / max(history.first_levels.rms.get(layer.key, np.inf), 1.0)
            for i, layer in enumerate(layers)
        ]
    )
    is_harmless = reading.topology.is_head | find_squashed(reading.topology)
    is_harmless |= find_ignored_layers(reading.topology, thresholds.ignore_layers)
    growth[is_harmless | ~np.isfinite(growth)] = 0.0
    largest = float(np.max(growth, initial=0.0))
    if largest < thresholds.output_growth:
        return None
    chosen = [index for index in np.argsort(-growth) if growth[index] >= thresholds.output_growth]
    names = tuple(dict.fromkeys(layers[index].fqn for index in chosen))
    message = (
        f"The output of {names[0] or 'the model'} has grown to {name_number(largest)} times its "
        f"first scale since a step has replaced weights ({name_region(names)})."
    )
    cause, limit = _find_runaway_cause(history, thresholds), thresholds.output_growth
    return Sign(names, cause, largest, limit, message, remedy="" if cause else BOUND)


def _measure_largest_rms(reading: Reading) -> float:
    rms = measure_rms(reading)
    return float(np.maximum.reduce(rms, where=np.isfinite(rms), initial=0.0))


def _find_runaway_cause(history: History, thresholds: Thresholds) -> str | None:
    """What was there at the first record: a gradient that grew over time or depth, or neither.

    Weights of a usual size make nothing grow: then it is not known what does.
    """
    if began_even(history, thresholds):
        return "learning_rate"
    if measure_time_growth(history.latest, thresholds):
        return "through_time"
    return "weight_scale" if has_large_weights(history, thresholds) else None


def has_large_weights(history: History, thresholds: Thresholds) -> bool:
    """Whether some weight is far beyond LeCun's scale, by itself and not by the steps.

    Or has multiplied the gradient by that much at the first record.

    Args:
        history: of the run so far.
        thresholds: ``mild_growth`` of a scale that still is usual.
    """
    topology, largest = history.latest.topology, history.first_levels.weight_gain
    weights = history.params.first_l2_norm
    if not history.has_replaced_weights:
        weights = np.fmax(weights, history.latest.record.param("weight_l2_norm"))
    with np.errstate(invalid="ignore", divide="ignore"):
        size = (weights / topology.lecun_norm)[topology.is_judged]
    return bool(np.fmax.reduce(size, initial=largest) >= thresholds.mild_growth)


LOOKS = (_look_over_steps, _look_at_weights, _look_at_outputs, _look_at_loss, _look_at_step_sizes)
"""In the order in which they are asked; the first sign is the run's."""
