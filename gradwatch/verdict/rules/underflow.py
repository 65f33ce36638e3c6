"""GW501: half-precision gradients flushed to zero."""

from __future__ import annotations

import numpy as np

from gradwatch.evidence.half_precision import find_behind, find_flushed, find_still_halves
from gradwatch.evidence.history import History
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.ignored import find_ignored_layers, find_ignored_params
from gradwatch.verdict.rule import Rule, Sign
from gradwatch.wording.module_names import name_owners, name_patterns
from gradwatch.wording.phrases import name_percent, name_region


def examine(history: History, thresholds: Thresholds) -> list[Sign]:
    """Half-precision gradients rounded to zero, or updates lost in half-precision weights.

    Args:
        history: of the run so far.
        thresholds: ``underflow_zero_fraction``, ``underflow_rms`` and ``lost_records``.
    """
    return _look_at_gradients(history, thresholds) or _look_at_updates(history, thresholds)


def _look_at_gradients(history: History, thresholds: Thresholds) -> list[Sign]:
    reading = history.latest
    flushed = find_flushed(reading, thresholds, from_start=not history.errors.beginning > 0)
    ignored = find_ignored_layers(reading.topology, thresholds.ignore_layers)
    flushed = [index for index in flushed if not ignored[index]]
    if not flushed:
        return []
    layers = reading.topology.layers
    behind = np.flatnonzero(find_behind(reading, flushed) & reading.topology.is_judged)
    params = [reading.topology.params[index].module for index in behind]
    names = tuple(dict.fromkeys([*params, *(layers[index].fqn for index in flushed)]))
    zeros = reading.record.layer("grad_zero_fraction")[flushed]
    worst = float(np.max(zeros))
    message = (
        f"{name_percent(worst)} of the gradient at the output of {layers[flushed[-1]].fqn} is "
        f"exactly zero in float16 ({name_region(names)}): smaller than 6e-8, its smallest number."
    )
    return [Sign(names, "precision", worst, thresholds.underflow_zero_fraction, message)]


def _look_at_updates(history: History, thresholds: Thresholds) -> list[Sign]:
    reading = history.latest
    params = reading.topology.params
    ignored = find_ignored_params(reading.topology, thresholds.ignore_layers)
    still = [index for index in find_still_halves(history, thresholds) if not ignored[index]]
    weights = [index for index in still if reading.topology.is_judged[index]]
    lost = weights or still
    if not lost:
        return []
    names = name_owners(params[index] for index in lost)
    count = int(history.params.unmoved[lost[0]])
    message = (
        f"{params[lost[0]].fqn} has a gradient but has hardly changed in any of {count} steps: its "
        f"updates are smaller than {params[lost[0]].dtype} can add to it ({name_region(names)})."
    )
    remedy = (
        f"Keep the weights of {name_patterns(names, reading.topology.types)} in float32 and "
        "compute in half precision under torch.autocast, or let the optimizer keep a float32 copy."
    )
    severity = "critical" if weights else "note"  # scales beside weights that learn
    return [Sign(names, "precision", 0.0, 0.0, message, severity, remedy=remedy)]


UNDERFLOW = Rule(
    code="GW501",
    kind="underflow",
    title="Gradient underflow",
    examine=examine,
    doc="""\
## What it does
Finds layers in float16 whose gradient is rounded to zero, and the weights behind them.

## Why it matters
float16 holds nothing below 6e-8. Autocast and casts in forward run the backward pass in float16
too, so that small gradients vanish there although the parameters and their gradients are float32.

## How it is measured
The share of exact zeros in the gradient at a float16 output, less what a ReLU behind it makes by
itself, is at least `underflow_zero_fraction`, and the gradient's root mean square, before the loss
scale is divided out, is below `underflow_rms`. Source: Micikevicius et al. (2018), "Mixed
precision training", section 3.2.

## Example
`torch.autocast(dtype=torch.float16)` without a `GradScaler` and a loss of 1e-6.

## Known limits
bfloat16 has float32's range and does not underflow; its 8 bits lose an update below about 2^-9 of
the weight. This is found when over `lost_records` steps a weight has never changed by more than a
hundredth of that, so that only elements near zero move; a partial loss is not. Of the scales of
norms, which begin at 1, it is a note.

## Configure or silence
`Thresholds(underflow_zero_fraction=..., underflow_rms=...)`; `ignore_kinds=("underflow",)`.
""",
)
