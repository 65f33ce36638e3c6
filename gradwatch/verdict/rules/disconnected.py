"""GW701: a trainable parameter that takes part in forward and never gets a gradient."""

from __future__ import annotations

import numpy as np

from gradwatch.evidence.by_construction import NO_OUTPUT, NO_SIZE, NO_SPREAD, find_idle
from gradwatch.evidence.cuts import find_cuts, find_readings, find_unused
from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.half_precision import find_behind, find_flushed
from gradwatch.evidence.history import History
from gradwatch.evidence.topology import Mask
from gradwatch.evidence.zero_gradients import (
    find_shut_activations,
    find_unasked,
    find_walled,
    find_zero_bare,
    find_zero_factors,
)
from gradwatch.records import Param
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.ignored import find_ignored_params
from gradwatch.verdict.rule import Rule, Sign
from gradwatch.wording.cuts import advise_cut, describe_cuts
from gradwatch.wording.module_names import count_params, name_owners, name_patterns
from gradwatch.wording.phrases import name_region


def examine(history: History, thresholds: Thresholds) -> list[Sign]:
    """Parameters without any gradient over the whole window, although forward used them.

    Args:
        history: of the run so far.
        thresholds: ``disconnected_records`` make the window; ``patience`` where the gradient is 0.
    """
    if history.count < thresholds.disconnected_records:
        return []
    reading, params = history.latest, history.latest.topology.params
    idle = _find_idle(history, thresholds)
    by_design = {index for indices in idle.values() for index in indices}
    ignored = find_ignored_params(reading.topology, thresholds.ignore_layers)
    found = [index for index in _find_missing(history, thresholds) if not ignored[index]]
    missing = [index for index in found if index not in by_design]
    if not (missing or idle):
        return []
    learning = {
        params[index].layer for index in np.flatnonzero(history.params.without_gradient == 0)
    }
    used = [i for i in missing if params[i].used and not _is_idle_bias(params[i], learning)]
    unused = find_unused(reading, [i for i in used if not find_cuts(reading, [i])])
    cut = [index for index in used if index not in unused]
    never = [index for index in missing if not params[index].used]
    signs = [_describe_cut(reading, cut, thresholds)] if cut else []
    if unused:
        signs.append(_describe_unused(reading, sorted(unused), thresholds))
    elif never and not cut:
        signs.append(_describe_never(history, never, thresholds))
    signs += [_describe_idle(reading, indices, reason) for reason, indices in idle.items()]
    return signs


def _find_idle(history: History, thresholds: Thresholds) -> dict[str, list[int]]:
    """What nothing can teach, by the reason; one that rounding has to show holds for long."""
    idle = find_idle(history.latest, thresholds)
    if NO_SIZE in idle:
        lasts = history.loss_change.peak_share < thresholds.rounding_share
        idle[NO_SIZE] = [index for index in idle[NO_SIZE] if lasts[index]]
    return {reason: indices for reason, indices in idle.items() if indices}


def _find_missing(history: History, thresholds: Thresholds) -> list[int]:
    """Trainable parameters that an optimizer holds and that got no gradient."""
    cut = history.params.without_gradient >= thresholds.disconnected_records
    cut[_find_zero_paths(history, thresholds)] = True
    if not np.count_nonzero(cut):
        return []
    cut[find_zero_factors(history.latest.record, np.flatnonzero(cut).tolist())] = False
    cut &= ~_find_flushed(history, thresholds)  # half precision is to blame: another rule says so
    shut = find_shut_activations(history.latest, thresholds.saturated_fraction)
    cut[find_zero_bare(history.latest) if shut else []] = False  # and of these as well
    params = history.latest.topology.params
    found = np.flatnonzero(cut & ~history.params.is_maintained).tolist()
    return [index for index in found if params[index].trainable and params[index].optimized]


def _list_modules(reading: Reading, indices: list[int]) -> tuple[str, ...]:
    return name_owners(reading.topology.params[index] for index in indices)


def _count(reading: Reading, indices: list[int]) -> str:
    return count_params([reading.topology.params[index] for index in indices])


def _describe_cut(reading: Reading, indices: list[int], thresholds: Thresholds) -> Sign:
    layers, cuts = _list_modules(reading, indices), find_cuts(reading, indices)
    got = "no gradient"
    if _gets_zeros(reading, indices):
        cuts = [cut for cut in cuts if cut.is_flat]  # behind any other, there would be none at all
        got = "no gradient" if cuts else "a gradient of exactly 0"
    message = (
        f"{name_region(layers)} took part in forward and got {got} over the last "
        f"{thresholds.disconnected_records} sampled steps that used it ({_count(reading, indices)})"
    )
    if not cuts:
        remedy = "" if got == "no gradient" else _ZEROS.format(name_region(layers))
        return Sign(layers, "disconnected", 0.0, 0.0, f"{message}.", remedy=remedy)
    message = f"{message}; its way to the loss ends at {describe_cuts(cuts)}."
    remedy = advise_cut(cuts[0], name_patterns(layers, reading.topology.types))
    return Sign(layers, "disconnected", 0.0, 0.0, message, remedy=remedy, source=cuts[0].source)


_ZEROS = (
    "The way from the loss to {} is there, and what comes back on it is 0: look for a factor of 0 "
    "(a weight of the loss, a mask, an advantage that is its own baseline), for a clamp beyond "
    "whose limits all values lie, for a function of your own whose backward is 0 there (such as a "
    "narrow surrogate of a step), for a margin that is met, or for differences of equal values."
)


_ONE_ENTRY = (
    "Replace the softmax by a sigmoid, or leave it out and use binary_cross_entropy_with_logits; "
    "or give the last layer one output per class and use cross_entropy."
)
_ONE_VALUE = (
    "Normalise over several values: LayerNorm over several features, GroupNorm with several "
    "channels in a group or before the pooling, BatchNorm of different samples; or leave it out."
)
_ONE_WEIGHT = (
    "Multiply by the weight as the softmax gave it where one is chosen, or choose two or more "
    "before their weights are divided by their sum."
)
_FAULTY = {NO_OUTPUT: _ONE_ENTRY, NO_SPREAD: _ONE_VALUE, NO_SIZE: _ONE_WEIGHT}
"""What to do, by the reason why nothing can be learned, where that is a mistake."""


def _gets_zeros(reading: Reading, indices: list[int]) -> bool:
    """Whether a gradient comes to all of these parameters, and is 0."""
    grad = reading.record.param("grad_l2_norm")[indices]
    calls = [call for index in indices for call in reading.topology.calls[index]]
    return bool(np.all(grad == 0)) and bool(np.all(reading.grad[calls] == 0))


def _describe_unused(reading: Reading, indices: list[int], thresholds: Thresholds) -> Sign:
    layers = _list_modules(reading, indices)
    message = (
        f"{name_region(layers)} took part in forward, but nothing on the way to the loss used the "
        f"output over the last {thresholds.disconnected_records} sampled steps "
        f"({_count(reading, indices)}){_say_readings(reading, layers)}."
    )
    remedy = (
        f"Freeze {name_patterns(layers, reading.topology.types)} or leave it out of the optimizer "
        "if its output is not needed; else use the output in the loss."
    )
    return Sign(layers, "disconnected", 0.0, 0.0, message, "note", remedy=remedy)


def _say_readings(reading: Reading, layers: tuple[str, ...]) -> str:
    """Where plain numbers were made of an output that nothing else has used."""
    found = find_readings(reading, layers)
    return f"; plain numbers were made of it at {describe_cuts(found)}" if found else ""


def _describe_idle(reading: Reading, indices: list[int], reason: str) -> Sign:
    layers = _list_modules(reading, indices)
    message = f"{name_region(layers)} cannot learn ({_count(reading, indices)}): {reason}."
    if reason in _FAULTY:
        return Sign(layers, "disconnected", 0.0, 0.0, message, remedy=_FAULTY[reason])
    remedy = (
        f"Nothing is broken; with larger inputs {name_patterns(layers, reading.topology.types)} "
        "may come into play. To spare the memory, freeze them or leave them out."
    )
    return Sign(layers, "disconnected", 0.0, 0.0, message, "note", remedy=remedy)


def _describe_never(history: History, indices: list[int], thresholds: Thresholds) -> Sign:
    reading = history.latest
    layers = _list_modules(reading, indices)
    steps = history.last_step - history.first_step
    is_all = not (reading.topology.layers or history.params.was_fed.any())
    if is_all and steps >= thresholds.patience:
        message = (
            f"The optimizer has made {steps + 1:,} steps, and none of its parameters ever got a "
            f"gradient ({_count(reading, indices)}): the model was not called, and what is trained "
            "is something else."
        )
        return Sign(layers, "disconnected", 0.0, 0.0, message, remedy=_COPY)
    verb = "was" if len(layers) == 1 else "were"
    message = (
        f"{name_region(layers)} {verb} never used and got no gradient over the last "
        f"{thresholds.disconnected_records} sampled steps ({_count(reading, indices)})."
    )
    return Sign(layers, "disconnected", 0.0, 0.0, message, "note")


_COPY = (
    "Look at what the loss is computed of: a copy (copy.deepcopy, as in an inner loop, or a model "
    "that was made again) has parameters of its own, and backward() gives the gradients to those. "
    "Call the model itself, or torch.func.functional_call with its parameters, or add the copy's "
    "gradients to the model's before its optimizer steps."
)


def _find_zero_paths(history: History, thresholds: Thresholds) -> list[int]:
    """Parameters whose gradient is exactly zero at an operation without a slope, or all the way."""
    reading = history.latest
    silent = np.flatnonzero(history.params.with_zeros >= thresholds.disconnected_records)
    if not silent.size:
        return []
    found = find_walled(reading, silent.tolist())
    lasted = history.last_step - history.first_step >= thresholds.patience
    if lasted and not history.has_closed_outputs(thresholds):
        found |= find_unasked(reading, silent[~history.params.was_fed[silent]].tolist())
    return list(found)


def _find_flushed(history: History, thresholds: Thresholds) -> Mask:
    """Parameters behind a gradient that float16 has rounded to zero; a bare one may be anywhere."""
    reading = history.latest
    flushed = find_flushed(reading, thresholds, from_start=not history.errors.beginning > 0)
    if not flushed:
        return np.zeros(len(reading.topology.params), dtype=bool)
    is_zero = reading.record.param("grad_l2_norm") == 0
    behind: Mask = find_behind(reading, flushed) | (reading.topology.is_bare & is_zero)
    return behind


def _is_idle_bias(param: Param, learning: set[str]) -> bool:
    """A bias that cannot matter while its weight learns, as under a loss of derivatives."""
    is_bias = param.fqn.rpartition(".")[2].startswith("bias")
    return is_bias and param.layer in learning


DISCONNECTED = Rule(
    code="GW701",
    kind="disconnected",
    title="Disconnected parameter",
    examine=examine,
    persistence=1,
    doc="""\
## What it does
Finds trainable parameters that an optimizer holds and forward uses, and that get no gradient at all
over a window of sampled steps, and says which line of your code ends its way to the loss. One
that is never used is a note, and so is one whose output nothing uses; where a whole model is never
called, and its optimizer steps for `patience` steps and more, something else is being trained.

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
(target networks, moving averages) are left alone. At some sampled steps every call in forward that
is given what learns and returns what does not is noted with its line.

## Example
`features = self.encoder(x).detach()` left over from an experiment.

## Known limits
Between forward and the loss numbers that a call like `.item()` makes are not followed (the line of
one that makes many, as `.numpy()` does, stands in the note on the output that nothing else used),
and nothing is seen there inside a context such as `with torch.device(...)` around the loop.
Whether a branch is cut on purpose cannot be seen; freeze it (`requires_grad_(False)`) or leave it
out of the optimizer to say so.

## Configure or silence
`Thresholds(disconnected_records=...)`; `ignore_kinds=("disconnected",)`; `ignore_layers=(...)`.
""",
)
