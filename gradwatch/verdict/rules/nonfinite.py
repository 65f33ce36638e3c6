"""GW601: NaN or Inf in outputs, gradients or weights."""

from __future__ import annotations

import numpy as np

from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.history import History
from gradwatch.records import Layer
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.rule import Rule, Sign


def examine(history: History, thresholds: Thresholds) -> list[Sign]:
    """The first layer and pass with a value that is not finite, once it has reached the weights.

    A non-finite gradient alone may have been kept from the weights by the training loop; it
    counts when it lasts.
    """
    reading = history.latest
    if not _is_broken(reading) or not (_reached_weights(reading) or _lasts(history)):
        return []
    where, what = find_origin(reading)
    cause = _find_cause(history, thresholds)
    count = float(np.nansum(reading.record.param("nonfinite_count")))
    message = (
        f"{what} of {where or 'the model'} is NaN or Inf; it is the first in the order of "
        f"computation ({count:,.0f} gradient elements are not finite)."
    )
    return [Sign((where,), cause, count, 0.0, message)]


def _is_broken(reading: Reading) -> bool:
    record = reading.record
    rows = (
        record.param("grad_l2_norm"),
        record.param("weight_l2_norm"),
        record.param("update_l2_norm"),
        record.layer("output_l2_norm"),
        record.layer("grad_output_l2_norm"),
    )
    return any(np.isinf(row).any() for row in rows)


def _reached_weights(reading: Reading) -> bool:
    record = reading.record
    return bool(
        np.isinf(record.param("update_l2_norm")).any()
        or np.isinf(record.param("weight_l2_norm")).any()
    )


def _lasts(history: History) -> bool:
    return len(history.window) > 1 and _is_broken(history.window[-2])


def find_origin(reading: Reading) -> tuple[str, str]:
    """Where it began: forward in order, else backward from the loss, else a parameter."""
    record, layers = reading.record, reading.topology.layers
    weights = np.flatnonzero(np.isinf(record.param("weight_l2_norm")))
    outputs = np.flatnonzero(np.isinf(record.layer("output_l2_norm")))
    if outputs.size:
        return layers[outputs[0]].fqn, "the output"
    grads = np.flatnonzero(np.isinf(record.layer("grad_output_l2_norm")))
    if grads.size:
        return layers[grads[-1]].fqn, "the gradient at the output"
    broken = np.flatnonzero(np.isinf(record.param("grad_l2_norm")))
    index = broken[-1] if broken.size else (weights[0] if weights.size else 0)
    return reading.topology.params[index].fqn, "the gradient"


def _find_first_broken(history: History) -> Reading:
    """First of the readings without a well one since, as far back as they are kept."""
    first = history.latest
    for reading in reversed(history.window):
        if not _is_broken(reading):
            break
        first = reading
    return first


def has_overflowed_float16(reading: Reading, thresholds: Thresholds) -> bool:
    """Whether float16 stands at the break, with values before it that may leave its range."""
    layers, params = reading.topology.layers, reading.topology.params
    norm = reading.record.layer("output_l2_norm")
    broken = np.flatnonzero(np.isinf(norm))
    if broken.size:
        layer = layers[broken[0]]
        if "float16" in (layer.dtype, *(one.dtype for one in params)):
            return True
        before = [one for one in layer.inputs if layer.passes_float16 or _is_float16(layers[one])]
    else:
        grads = np.flatnonzero(np.isinf(reading.record.layer("grad_output_l2_norm")))[-1:]
        before = [one for one in grads if _is_float16(layers[one])]
    rms = norm / np.sqrt(reading.topology.output_numel)
    return any(np.isfinite(rms[one]) and rms[one] >= thresholds.overflow_rms for one in before)


def _is_float16(layer: Layer) -> bool:
    return layer.dtype == "float16"


def _find_cause(history: History, thresholds: Thresholds) -> str | None:
    """By the step at which it broke: once it is in the weights, everything is NaN."""
    if has_overflowed_float16(_find_first_broken(history), thresholds):
        return "precision"
    return "learning_rate" if history.ever_thrown or history.was_diverging(thresholds) else None


NONFINITE = Rule(
    code="GW601",
    kind="nonfinite",
    title="NaN or Inf",
    examine=examine,
    persistence=1,
    doc="""\
## What it does
Finds the first layer and pass in which a value is NaN or Inf.

## Why it matters
One NaN in a gradient makes every weight NaN in the next step; the run is lost.

## How it is measured
A norm over all elements is not finite as soon as one element is not. Outputs are searched in the
order of forward, then gradients from the loss back. A step that a GradScaler skipped is no
finding, and a non-finite gradient that never reaches the weights counts only when it lasts.

## Example
`log` of a probability that is 0; the square root's slope at 0; a NaN in the data.

## Known limits
A value that overflows only inside a fused operation is named by the layer that returned it. Half
precision is named as the cause where the first broken value is float16, or where float16 lies
between it and layers whose outputs are larger than `overflow_rms`.

## Configure or silence
`ignore_kinds=("nonfinite",)`.
""",
)
