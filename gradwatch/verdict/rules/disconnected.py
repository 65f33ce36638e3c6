"""GW701: a trainable parameter that takes part in forward and never gets a gradient."""

from __future__ import annotations

import numpy as np

from gradwatch.evidence.half_precision import find_behind, find_flushed
from gradwatch.evidence.history import History
from gradwatch.evidence.topology import Mask
from gradwatch.evidence.zero_gradients import find_unasked, find_walled, find_zero_factors
from gradwatch.records import Param
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.rule import Rule, Sign
from gradwatch.wording.phrases import name_region


def examine(history: History, thresholds: Thresholds) -> list[Sign]:
    """Parameters without any gradient over the whole window, although forward used them."""
    if history.count < thresholds.disconnected_records:
        return []
    reading = history.latest
    cut = history.starved_records >= thresholds.disconnected_records
    cut[_find_zero_paths(history, thresholds)] = True
    cut[find_zero_factors(reading.record, np.flatnonzero(cut).tolist())] = False
    cut &= ~_find_flushed(history, thresholds)  # half precision is to blame: another rule says so
    params = reading.topology.params
    missing = [
        index
        for index in np.flatnonzero(cut & ~history.maintained)
        if params[index].trainable and params[index].optimized
    ]
    learning = {params[index].module for index in np.flatnonzero(history.starved_records == 0)}
    used = [
        index
        for index in missing
        if params[index].used and not _is_idle_bias(params[index], learning)
    ]
    chosen, severity = (used, "critical") if used else (missing, "note")
    if not chosen:
        return []
    found = [params[index] for index in chosen]
    layers = tuple(dict.fromkeys(param.module or param.fqn for param in found))
    verb = "took part in forward" if used else "was never used"
    message = (
        f"{name_region(layers)} {verb} and got no gradient over the last "
        f"{thresholds.disconnected_records} sampled steps that used it "
        f"({len(found)} parameters, first {found[0].fqn})."
    )
    cause = "disconnected"
    return [Sign(layers, cause, 0.0, 0.0, message, severity)]


def _find_zero_paths(history: History, thresholds: Thresholds) -> list[int]:
    """Parameters whose gradient is exactly zero at an operation without a slope, or all the way."""
    reading = history.latest
    silent = np.flatnonzero(history.silent_records >= thresholds.disconnected_records)
    found = find_walled(reading, silent.tolist())
    lasted = history.last_step - history.first_step >= thresholds.patience
    if lasted and not history.has_pinned_outputs(thresholds):
        found |= find_unasked(reading, silent[~history.ever_fed[silent]].tolist())
    return list(found)


def _find_flushed(history: History, thresholds: Thresholds) -> Mask:
    """Parameters behind a gradient that float16 has rounded to zero; a bare one may be anywhere."""
    reading = history.latest
    flushed = find_flushed(reading, thresholds, from_start=not history.first_error > 0)
    if not flushed:
        return np.zeros(len(reading.topology.params), dtype=bool)
    is_zero = reading.record.param("grad_l2_norm") == 0
    behind: Mask = find_behind(reading, flushed) | (reading.topology.is_bare & is_zero)
    return behind


def _is_idle_bias(param: Param, learning: set[str]) -> bool:
    """A bias that cannot matter while its weight learns, as under a loss of derivatives."""
    is_bias = param.fqn.rpartition(".")[2].startswith("bias")
    return is_bias and param.module in learning


DISCONNECTED = Rule(
    code="GW701",
    kind="disconnected",
    title="Disconnected parameter",
    examine=examine,
    persistence=1,
    doc="""\
## What it does
Finds trainable parameters that an optimizer holds and forward uses, and that get no gradient at all
over a window of sampled steps. One that is never used is a note.

## Why it matters
A `.detach()`, a `torch.no_grad()`, an `.item()` or an `argmax` on the way cuts the graph silently:
the loss still falls, but this part never learns.

## How it is measured
The gradient is `None`, or no gradient arrives at any call of its module, for
`disconnected_records` sampled steps in a row; or it is exactly zero all that time behind an
operation without a slope, such as `round`, or has been exactly zero on the whole way to the loss
since the start, for `patience` steps at least: a loss with a weight of 0, an output that is clamped
where no target lies. Zeros for a step or two are something else:
zero-initialised branches have them by design. Parameters that somebody changes without a gradient
(target networks, moving averages) are left alone.

## Example
`features = self.encoder(x).detach()` left over from an experiment.

## Known limits
Whether a branch is cut on purpose cannot be seen; freeze it (`requires_grad_(False)`) or leave it
out of the optimizer to say so.

## Configure or silence
`Thresholds(disconnected_records=...)`; `ignore_kinds=("disconnected",)`; `ignore_layers=(...)`.
""",
)
