"""GW601: NaN or Inf in outputs, gradients or weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradwatch.evidence.gradient_flow import Reading, measure_rms
from gradwatch.evidence.history import History
from gradwatch.evidence.nonfinite import (
    Origin,
    find_broken_outputs,
    find_origin,
    has_reached_anything,
    has_reached_weights,
    is_update_in_float16,
)
from gradwatch.evidence.singular import find_singular, is_loss_broken
from gradwatch.records import Layer
from gradwatch.schema.cut import Cut
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.advice import suggest_remedy
from gradwatch.verdict.rule import Rule, Sign
from gradwatch.wording.module_names import name_patterns
from gradwatch.wording.phrases import name_region, say_name
from gradwatch.wording.singular import advise_singular, name_singular

STEEP = "sqrt at 0, log or a division at 0, pow below 1 at 0, acos at its ends"
"""Operations with an infinite slope at their edge."""


def examine(history: History, thresholds: Thresholds) -> list[Sign]:
    """Where the first value that is not finite came up, once it has reached the weights.

    A non-finite gradient alone may have been kept from the weights by the training loop; it
    counts when it lasts.

    Args:
        history: of the run so far.
        thresholds: ``nonfinite_records``, ``overflow_rms`` of float16's range, ``divergence`` and
            ``output_growth``.
    """
    first = history.broken.first
    lasts = history.broken.lasted >= thresholds.nonfinite_records
    if first is None or not (has_reached_weights(history.latest) or lasts):
        return []
    origin = find_origin(first, history.broken.before)
    said = _tell(origin, first, history.broken.before)
    if not has_reached_anything(history.latest):
        message = f"{said}; no weight gets any of it: what comes before has a slope of 0 there."
        remedy = _advise(origin, first, find_singular(first, origin))
        return [Sign(origin.layers, None, 0.0, 0.0, message, "note", remedy=remedy)]
    cause = _find_cause(history, first, origin, thresholds)
    count = float(np.nansum(history.latest.record.param("nonfinite_count")))
    is_behind = origin.what in ("gradient", "parameter")  # all outputs were finite
    may_share = cause is None or (cause == "learning_rate" and is_behind)
    may_share &= origin.what != "update"
    suspects = find_singular(first, origin) if may_share else []
    message = f"{said}{_tell_suspects(origin, suspects)} ({count:,.0f} gradient elements now)."
    is_own = cause is None or is_update_in_float16(first, origin)
    remedy = _advise(origin, first, suspects) if is_own else ""
    if cause and suspects:
        standard = suggest_remedy("nonfinite", cause, origin.layers, first.topology)
        remedy = f"{standard} {advise_singular(suspects)}."
    source = suspects[0].source if len(suspects) == 1 and origin.what != "unseen" else ""
    return [Sign(origin.layers, cause, count, 0.0, message, remedy=remedy, source=source)]


def _tell(origin: Origin, first: Reading, before: Reading | None) -> str:
    """What was not finite at which step, and what was finite before it."""
    step = first.record.global_step
    where = say_name(origin.layers[0] if origin.layers else "")
    if origin.what == "unseen":
        return _tell_unseen(origin, step, before)
    if origin.what == "output":
        return (
            f"The output of {where} was NaN or Inf at step {step}; all weights, and all outputs "
            "before it in the order of computation, were finite"
        )
    if origin.what == "parameter":
        return f"The gradient of {where} was NaN or Inf at step {step}; all outputs were finite"
    if origin.what == "update":
        return (
            f"The optimizer's step made NaN or Inf of {name_region(origin.layers)} at step {step}; "
            "all weights, outputs and gradients were finite before it"
        )
    if is_loss_broken(first):
        return (
            f"The loss was NaN or Inf at step {step}; all weights and outputs were finite, the "
            f"last of them that of {where}"
        )
    source = (
        "it came from the loss" if origin.is_last else f"it came from {name_region(origin.behind)}"
    )
    return (
        f"The gradient at the output of {where} was NaN or Inf at step {step}; all weights and "
        f"outputs were finite, and {source}"
    )


def _tell_suspects(origin: Origin, suspects: Sequence[Cut]) -> str:
    """The operations that were noted at the place, and none that may stand anywhere."""
    if not suspects or origin.what == "unseen":
        return ""
    verb = "stands" if len(suspects) == 1 else "stand"
    return f"; between them {verb} {name_singular(suspects)}"


def _tell_unseen(origin: Origin, step: int, before: Reading | None) -> str:
    named = name_region(origin.layers)
    if before is None:
        return f"The weights of {named} were NaN or Inf before the first recorded step, {step}"
    since = before.record.global_step
    return (
        f"The weights of {named} became NaN or Inf between steps {since} and {step}; the step at "
        "which it began was not sampled, so that its origin was not seen"
    )


def _advise(origin: Origin, first: Reading, suspects: Sequence[Cut]) -> str:
    """What to guard: the operations that were noted, else by the direction of the first value."""
    topology = first.topology
    named = origin.layers[:1] if any(origin.layers[:1]) else ()
    where = name_patterns(named, topology.types) or "the model"
    if suspects and origin.what != "unseen":
        came_back = origin.what != "output" and not is_loss_broken(first)
        return f"{advise_singular(suspects)}.{_WHERE if came_back else ''}"
    if origin.what == "update":
        return _HALF_STEP if is_update_in_float16(first, origin) else _STEP
    if origin.what == "unseen":
        return _advise_unseen(origin, where, suspects)
    if origin.what == "output":
        broken = [layer for layer in topology.layers if layer.fqn == origin.layers[0]]
        if broken and all(layer.type.lower() == "softmax" for layer in broken):
            return f"{_MASKED.format(where)}; {_FIND}"
        given = _INPUTS if not any(layer.inputs for layer in broken) else ""
        return f"{given}Look at what {where} computes and is given: {_VALUES}; {_FIND}"
    if is_loss_broken(first):
        return f"Look at what the loss computes of {where}: {_VALUES}; {_FIND}"
    place = f"between {where} and the loss" if origin.is_last else f"behind {where}"
    return (
        f"Look {place} for an operation whose slope is infinite at its edge ({STEEP}) and keep "
        f"its input away from there, as with sqrt(x + eps) or clamp(min=eps); {_FIND}"
    )


def _advise_unseen(origin: Origin, where: str, suspects: Sequence[Cut]) -> str:
    if suspects:
        place = f"{name_singular(suspects)} first of all"
    else:
        nearest = f"between {where} and the loss" if origin.is_last else f"behind {where}"
        place = f"{STEEP} with an epsilon, first of all {nearest}"
    return (
        f"Guard {place}, and check the input batches for NaN and masks for rows that are masked "
        "entirely; from here on every step is sampled for a while, so that the origin shows if it "
        f"happens again, and {_FIND}"
    )


_FIND = "torch.autograd.set_detect_anomaly(True) names the operation."
_VALUES = (
    "log or division at 0, exp of a large number, a row that is masked entirely, a mask that "
    "multiplies Inf by 0, NaN in the input batch"
)
_MASKED = (
    "Look at the scores that {} takes in: a row that is masked entirely is -inf throughout, and "
    "its softmax 0 / 0; leave one entry of each row open, or mask with a large number such as -1e9"
)
_STEP = (
    "Look at the optimizer: with an eps of 0 it divides 0 by 0 where a gradient has been 0 so far, "
    "and a rate, a momentum or a decay that is not finite breaks what it moves."
)
_HALF_STEP = (
    "Give the optimizer an eps that float16 can hold, as eps=1e-4: there 1e-8 is 0, the second "
    "moment of a small gradient as well, and 0 is divided by 0. Or keep the weights in float32 and "
    "compute in half precision under autocast, with a GradScaler for float16."
)
_INPUTS = "Check the input batch for NaN or Inf first: no layer stands before. "
_WHERE = (
    " A torch.where behind it lets its slope of Inf come back as NaN: guard what it takes in, not "
    "what it returns."
)


def has_overflowed_float16(
    reading: Reading, thresholds: Thresholds, before: Reading | None = None
) -> bool:
    """Whether float16 stands at the break, with values before it that may leave its range.

    Args:
        reading: of the record of the break.
        thresholds: ``overflow_rms`` of an output that may.
        before: the last reading without it; ``None`` where there is none.
    """
    layers, params = reading.topology.layers, reading.topology.params
    norm = reading.record.layer("output_l2_norm")
    broken = find_broken_outputs(reading, before)
    if broken.size:
        layer = layers[broken[0]]
        if "float16" in (layer.dtype, *(param.dtype for param in params)):
            return True
        sources = [
            source for source in layer.inputs if layer.passes_float16 or _is_float16(layers[source])
        ]
    else:
        grads = np.flatnonzero(np.isinf(reading.record.layer("grad_output_l2_norm")))[-1:]
        sources = [grad for grad in grads if _is_float16(layers[grad])]
    rms = norm / np.sqrt(reading.topology.output_numel)
    return any(
        np.isfinite(rms[source]) and rms[source] >= thresholds.overflow_rms for source in sources
    )


def _is_float16(layer: Layer) -> bool:
    return layer.dtype == "float16"


def _find_cause(
    history: History, first: Reading, origin: Origin, thresholds: Thresholds
) -> str | None:
    """By the step at which it broke: once it is in the weights, everything is NaN.

    Steps that have replaced weights have not sent a loss to infinity whose outputs are of the scale
    that they had at first.
    """
    if is_update_in_float16(first, origin):
        return "precision"
    if has_overflowed_float16(first, thresholds, history.broken.before):
        return "precision"
    if history.was_diverging(thresholds):
        return "learning_rate"
    is_by_loss = origin.what == "gradient" and origin.is_last
    if is_by_loss and not _have_outputs_grown(history, first, thresholds):
        return None
    return "learning_rate" if history.has_replaced_weights else None


def _have_outputs_grown(history: History, first: Reading, thresholds: Thresholds) -> bool:
    """Whether what the loss takes in is far beyond its first scale."""
    rms, levels = measure_rms(first), history.first_levels.rms
    growth = [
        rms[i] / max(levels.get(first.topology.layers[i].key, np.inf), 1.0)
        for i in first.topology.outputs
    ]
    return not all(value < thresholds.output_growth for value in growth)


NONFINITE = Rule(
    code="GW601",
    kind="nonfinite",
    title="NaN or Inf",
    examine=examine,
    persistence=1,
    doc="""\
## What it does
Finds gradients, updates, weights or a loss that are NaN or Inf, and the layer and pass in which
that began. Outputs alone do no harm: masked scores are -inf on purpose. A gradient at an output
that reaches no weight is a note: an activation behind it has a slope of 0 where it is NaN.

## Why it matters
One NaN in a gradient makes every weight NaN in the next step; the run is lost.

## How it is measured
A norm over all elements is not finite as soon as one element is not. The record in which something
was hurt first is kept: in it outputs are searched in the order of forward, without those that were
so while all was whole, then gradients from the loss back; where all of these were finite, the
optimizer's step is what broke. Where the weights were broken before that
record began, the origin was not seen, and the steps between which it lies are given; every step is
sampled for a while from then on, and again after a rollback. When the watch ends, all weights are
read once more. A step that a GradScaler skipped is no
finding, and a non-finite gradient that never reaches the weights counts only when it lasts for
`nonfinite_records`.

## Example
`log` of a probability that is 0; the square root's slope at 0; a NaN in the data.

## Known limits
A value that overflows only inside a fused operation is named by the layer that returned it. Which
operation between two layers made it is not measured: those that can, such as a log or a division,
are noted with their lines at some sampled steps, and all that stand at the place are named. Half
precision is named as the cause where the first broken value is float16, or where float16 lies
between it and layers whose outputs are larger than `overflow_rms`, or where a step broke weights
that are float16.

## Configure or silence
`ignore_kinds=("nonfinite",)`.
""",
)
