"""GW201: gradients or activations that grow over depth or steps until training diverges."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from gradwatch.evidence.gradient_flow import Reading, measure_rms
from gradwatch.evidence.growth import (
    find_squashed,
    measure_gradient_growth,
    measure_output_growth,
)
from gradwatch.evidence.history import History
from gradwatch.evidence.time_steps import TimeProfile, measure_time_growth
from gradwatch.evidence.topology import Mask, Topology
from gradwatch.records import Array, Param
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.faults import find_large_weights
from gradwatch.verdict.ignored import find_ignored_layers, find_ignored_params
from gradwatch.verdict.rule import Rule, Sign
from gradwatch.wording.module_names import name_owners
from gradwatch.wording.phrases import name_number, name_region, say_name

_CALM = (
    "Lower the learning rate or warm it up, and look at the optimizer's momentum (below 1) and "
    "weight decay (not below 0) as well."
)


def examine(history: History, thresholds: Thresholds) -> list[Sign]:
    """Growth over depth, over time steps, or over optimizer steps at the newest record.

    Args:
        history: of the run so far.
        thresholds: ``exploding_growth``, ``divergence``, ``output_growth``, ``weight_growth``,
            ``shaking_update``.
    """
    signs = (
        *(_look_over_time, _look_over_depth, _look_over_steps),
        *(_look_at_weights, _look_at_outputs, _look_at_loss, _look_at_step_sizes),
    )
    for look in signs:
        sign = look(history, thresholds)
        if sign is not None:
            return [sign]
    return []


def _look_over_depth(history: History, thresholds: Thresholds) -> Sign | None:
    reading = history.latest
    backward, forward = (
        measure_gradient_growth(reading, thresholds.exploding_growth),
        np.where(find_squashed(reading.topology), 1.0, measure_output_growth(reading)),
    )
    ignored = find_ignored_layers(reading.topology, thresholds.ignore_layers)
    backward, forward = (np.where(ignored, 1.0, values) for values in (backward, forward))
    growth = max(float(np.max(values, initial=1.0)) for values in (backward, forward))
    if growth < thresholds.exploding_growth:
        return None
    is_backward = float(np.max(backward, initial=1.0)) >= growth
    values = backward if is_backward else forward
    order = np.argsort(-values)
    chosen = [int(i) for i in order if values[i] > growth**0.5]
    names = tuple(dict.fromkeys(reading.topology.layers[i].fqn for i in chosen))
    cause = _find_cause(history, reading, growth, chosen[0], thresholds)
    what = "gradient at" if is_backward else "output of"
    where = "the outputs" if is_backward else "the first layer"
    message = (
        f"The {what} {say_name(names[0])} is {name_number(growth)} times that of {where} "
        f"({name_region(names)})."
    )
    faults = find_large_weights(reading) if cause == "weight_scale" else ()
    return Sign(names, cause, growth, thresholds.exploding_growth, message, faults=faults)


def _find_cause(
    history: History, reading: Reading, growth: float, worst: int, thresholds: Thresholds
) -> str:
    if _has_been_broken(history, thresholds):
        return "learning_rate"
    if reading.topology.layers[worst].role == "recurrent":
        return "through_time"
    stages = sum(layer.role in ("weight", "recurrent") for layer in reading.topology.layers)
    joins = sum(len(layer.inputs) > 1 for layer in reading.topology.layers)
    per_stage = math.exp(math.log(growth) / max(stages, 1))
    is_residual = joins * 2 >= max(stages // 2, 1)
    if is_residual:
        per_stage = _measure_weight_gain(reading)
    return "depth" if per_stage < thresholds.mild_growth else "weight_scale"


def _measure_weight_gain(reading: Reading) -> float:
    """Geometric mean of what the weights multiply the gradient by."""
    gains = [
        float(reading.gains[index])
        for index, layer in enumerate(reading.topology.layers)
        if layer.role == "weight" and 0 < reading.gains[index] < math.inf
    ]
    return math.exp(float(np.mean(np.log(gains)))) if gains else 1.0


def _look_over_steps(history: History, thresholds: Thresholds) -> Sign | None:
    if not history.was_diverging(thresholds) or not history.has_replaced_weights:
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
    largest = float(np.max(growth, initial=0.0))
    if largest < thresholds.weight_growth:
        return None
    params = _list_params(history, growth, thresholds.weight_growth)
    names = name_owners(params)
    message = (
        f"{params[0].fqn} has grown to {name_number(largest)} times its first size "
        f"({name_region(names)})."
    )
    cause = _find_runaway_cause(history, thresholds)
    remedy = _CALM if cause == "learning_rate" else ""
    return Sign(names, cause, largest, thresholds.weight_growth, message, remedy=remedy)


@lru_cache(maxsize=16)
def _find_heads(topology: Topology) -> Mask:
    """Parameters all of whose calls are heads."""
    found = [bool(calls) and all(topology.is_head[list(calls)]) for calls in topology.calls]
    return np.array(found, dtype=bool)


def _measure_weight_growth(history: History, thresholds: Thresholds) -> Array:
    """Norm of each weight against its first one, or LeCun's if that is larger; 0: not judged.

    Heads are left out: their weights take on the target's scale.
    """
    topology = history.latest.topology
    weights = history.latest.record.param("weight_l2_norm")
    growth: Array = weights / np.fmax(history.params.first_l2_norm, topology.lecun_norm)
    ignored = find_ignored_params(topology, thresholds.ignore_layers)
    growth[_find_heads(topology) | ~topology.is_judged | ~np.isfinite(growth) | ignored] = 0.0
    return growth


def _list_params(history: History, growth: Array, least: float) -> list[Param]:
    """Parameters that have grown by so much at least, most of all first."""
    params = history.latest.topology.params
    return [params[index] for index in np.argsort(-growth) if growth[index] >= least]


def _look_at_loss(history: History, thresholds: Thresholds) -> Sign | None:
    """A loss that jumps far beyond its first values again and again, and gets nowhere between.

    Behind a softmax the error signal is bounded, and what a step has broken may be in order again
    at the next sampled one; a training that falls in between its jumps is left alone.
    """
    peak, remaining = history.losses.peak, history.losses.remaining
    jumps = history.has_replaced_weights and peak > thresholds.divergence
    if not jumps or not remaining > thresholds.progress:
        return None
    growth = _measure_weight_growth(history, thresholds)
    largest = float(np.max(growth, initial=0.0))
    params = _list_params(history, growth, max(largest, 1.0) ** 0.5)
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
    update = np.where(reading.topology.is_judged, reading.update_ratio, np.nan)
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
    if not history.has_replaced_weights:
        return None
    reading = history.latest
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
    return Sign(
        names, _find_runaway_cause(history, thresholds), largest, thresholds.output_growth, message
    )


def _find_runaway_cause(history: History, thresholds: Thresholds) -> str:
    """What was there at the first record: a gradient that grew over time or depth, or neither."""
    if history.first_levels.growth < thresholds.exploding_growth**0.5:
        return "learning_rate"
    return "through_time" if measure_time_growth(history.latest) else "weight_scale"


def _look_over_time(history: History, thresholds: Thresholds) -> Sign | None:
    reading = history.latest
    worst = max(measure_time_growth(reading), key=lambda profile: profile.growth, default=None)
    if worst is None or worst.growth < thresholds.exploding_growth:
        return None
    message = (
        f"The gradient grows {name_number(worst.growth)} times over {_say_steps(worst)} on its way "
        f"back through {say_name(worst.fqn)}."
    )
    names = worst.list_layers(reading)
    cause = "learning_rate" if _has_been_broken(history, thresholds) else "through_time"
    return Sign(names, cause, worst.growth, thresholds.exploding_growth, message)


def _say_steps(profile: TimeProfile) -> str:
    """Their number where each is a call; inside a module of torch's they are seen in buckets."""
    return "its time steps" if profile.is_bucketed else f"{profile.steps} time steps"


def _has_been_broken(history: History, thresholds: Thresholds) -> bool:
    """Whether nothing grew at the first record, and a step has replaced weights since."""
    was_even = history.first_levels.growth < thresholds.exploding_growth**0.5
    return was_even and history.has_replaced_weights


EXPLODING = Rule(
    code="GW201",
    kind="exploding",
    title="Exploding gradient",
    examine=examine,
    doc="""\
## What it does
Finds gradients or activations that grow by orders of magnitude over depth, over time steps or over
optimizer steps.

## Why it matters
A gain above 1 per layer compounds like one below 1. Steps become so large that they replace
weights instead of training them, and the next stop is NaN.

## How it is measured
Over depth: the gradient at a layer against the one at the outputs, as far as the layers' own gains
account for it, or the scale of a hidden output against the first layer's, exceeds
`exploding_growth`. Over time steps: the same through a recurrent layer. Over optimizer steps, after
one with `||dw||/||w||` of 0.5 or more: the error signal at the output exceeds `divergence` times
its first values, or the loss does and gets nowhere in between, or a hidden output's scale
`output_growth` times its first one. Steps that change all weights together by `shaking_update` of
their size, as the median of those after the first `patience`, are too large where the loss is
still above `progress` of its first values. Without any such step, a hidden weight's norm exceeds
`weight_growth` times its first one. Source: Pascanu, Mikolov & Bengio (2013).

## Example
A 12-layer ReLU network initialised with a standard deviation of 1; a learning rate of 1 for Adam.

## Known limits
A loss in large units does not count: only growth inside the network does.

## Configure or silence
`Thresholds(exploding_growth=..., divergence=..., weight_growth=..., shaking_update=...)`;
`ignore_kinds=("exploding",)`.
""",
)
