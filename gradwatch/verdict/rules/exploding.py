"""GW201: gradients or activations that grow over depth or steps until training diverges."""

from __future__ import annotations

import math

import numpy as np

from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.growth import (
    find_squashed,
    measure_gradient_growth,
    measure_largest_growth,
    measure_output_growth,
)
from gradwatch.evidence.history import History
from gradwatch.evidence.time_steps import TimeProfile, measure_time_growth
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.diverging_steps import BOUND, LOOKS, began_even, has_large_weights
from gradwatch.verdict.faults import find_large_weights
from gradwatch.verdict.ignored import find_ignored_layers
from gradwatch.verdict.rule import Rule, Sign
from gradwatch.wording.phrases import name_number, name_region, say_name


def examine(history: History, thresholds: Thresholds) -> list[Sign]:
    """Growth over depth, over time steps, or over optimizer steps at the newest record.

    Args:
        history: of the run so far.
        thresholds: ``exploding_growth``, ``divergence``, ``output_growth``, ``weight_growth``,
            ``shaking_update``.
    """
    for look in (_look_over_time, _look_over_depth, *LOOKS):
        sign = look(history, thresholds)
        if sign is not None:
            return [sign]
    return []


def _look_over_depth(history: History, thresholds: Thresholds) -> Sign | None:
    reading = history.latest
    if reading.ask(measure_largest_growth) < thresholds.exploding_growth:
        return None
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
    least = growth ** min(thresholds.grown_share, 1.0)
    chosen = [int(i) for i in order if values[i] >= least]
    names = tuple(dict.fromkeys(reading.topology.layers[i].fqn for i in chosen))
    cause = _find_cause(history, reading, growth, chosen[0], thresholds)
    what = "gradient at" if is_backward else "output of"
    where = "the outputs" if is_backward else "the first layer"
    message = (
        f"The {what} {say_name(names[0])} is {name_number(growth)} times that of {where} "
        f"({name_region(names)})."
    )
    faults = find_large_weights(reading, thresholds) if cause == "weight_scale" else ()
    limit, remedy = thresholds.exploding_growth, "" if cause else BOUND
    return Sign(names, cause, growth, limit, message, faults=faults, remedy=remedy)


def _find_cause(
    history: History, reading: Reading, growth: float, worst: int, thresholds: Thresholds
) -> str | None:
    if _has_been_broken(history, thresholds):
        return "learning_rate"
    if reading.topology.layers[worst].role == "recurrent":
        return "through_time"
    stages = sum(layer.role in ("weight", "recurrent") for layer in reading.topology.layers)
    joins = sum(len(layer.inputs) > 1 for layer in reading.topology.layers)
    per_stage = math.exp(math.log(growth) / max(stages, 1))
    if joins >= thresholds.residual_share * max(stages, 1):
        per_stage = _measure_weight_gain(reading)
    if per_stage < thresholds.mild_growth and stages >= thresholds.long_chain:
        return "depth"
    return "weight_scale" if has_large_weights(history, thresholds) else None


def _measure_weight_gain(reading: Reading) -> float:
    """Geometric mean of what the weights multiply the gradient by."""
    gains = [
        float(reading.gains[index])
        for index, layer in enumerate(reading.topology.layers)
        if layer.role == "weight" and 0 < reading.gains[index] < math.inf
    ]
    return math.exp(float(np.mean(np.log(gains)))) if gains else 1.0


def _look_over_time(history: History, thresholds: Thresholds) -> Sign | None:
    reading = history.latest
    worst = max(measure_time_growth(reading, thresholds), key=lambda row: row.growth, default=None)
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
    return began_even(history, thresholds) and history.has_replaced_weights


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
