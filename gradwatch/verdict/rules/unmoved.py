"""GW801: a gradient arrives and the weight never moves."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import lru_cache, partial

import numpy as np

from gradwatch.evidence.half_precision import find_rounded_away
from gradwatch.evidence.history import History
from gradwatch.evidence.progress import (
    has_gone_nowhere,
    is_at_rest,
    lacks_rate,
    measure_scaled_clipping,
    measure_way,
)
from gradwatch.evidence.standstill import LARGEST_SQUARED, find_cleared, find_lost, is_resting
from gradwatch.evidence.topology import Mask, Topology
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.ignored import find_ignored_params
from gradwatch.verdict.lost_steps import explain_lost, explain_overflow
from gradwatch.verdict.rule import Rule, Sign
from gradwatch.wording.module_names import count_params, name_owners, name_patterns
from gradwatch.wording.phrases import name_number, name_region


def examine(history: History, thresholds: Thresholds) -> list[Sign]:
    """Parameters that do not move, by what keeps them from it; else steps that are too small.

    Args:
        history: of the run so far.
        thresholds: ``still_*``, ``unstepped_steps``, ``run_progress``, ``elasticity``.
    """
    found = _find_still(history, thresholds)
    if not np.count_nonzero(found):
        return _look_at_way(history, thresholds)
    held = found & _mark(history.latest.topology, "optimized")
    signs = [
        *_look_at_loose(history, found & ~held),
        *_look_at_unstepped(history, held, thresholds),
        *_look_at_unknown(history, held),
        *_look_at_rates(history, held, thresholds),
        *_look_at_lost(history, held, thresholds),
    ]
    return signs or _look_at_way(history, thresholds)


@lru_cache(maxsize=16)
def _mark(topology: Topology, attribute: str) -> Mask:
    return np.array([getattr(param, attribute) for param in topology.params], dtype=bool)


def _find_still(history: History, thresholds: Thresholds) -> Mask:
    """Trainable parameters that have not moved, but for those that need not."""
    found = history.standstill.find(history.last_step, thresholds)
    if not np.count_nonzero(found):
        return found
    topology, patterns = history.latest.topology, thresholds.allow_unjudged
    found &= _mark(topology, "trainable")
    found &= ~find_ignored_params(topology, thresholds.ignore_layers)
    params = topology.params
    for index in np.flatnonzero(found) if patterns else ():
        names = params[index].fqn, params[index].module
        found[index] = not any(fnmatchcase(name, pattern) for name in names for pattern in patterns)
    return found


def _name_modules(history: History, indices: list[int]) -> tuple[str, ...]:
    params = history.latest.topology.params
    return name_owners(params[index] for index in indices)


def _name_places(history: History, layers: tuple[str, ...]) -> str:
    return name_patterns(layers, history.latest.topology.types)


def _count(history: History, indices: list[int]) -> str:
    params = history.latest.topology.params
    return count_params([params[index] for index in indices])


def _measure_span(history: History, indices: list[int]) -> int:
    """Optimizer steps in which none of them has moved."""
    return history.last_step - int(history.standstill.since[indices].max())


def _look_at_loose(history: History, found: Mask) -> list[Sign]:
    """No optimizer holds them: that may be meant, but not where one holds what was there before."""
    params = history.latest.topology.params
    chosen = found & (_mark(history.latest.topology, "replaced") | ~history.standstill.has_moved)
    indices = np.flatnonzero(chosen).tolist()
    if not indices:
        return []
    replaced = [index for index in indices if params[index].replaced]
    layers = _name_modules(history, replaced + indices)
    why = (
        f"; in place of {params[replaced[0]].fqn}, the optimizer holds a tensor that the model no "
        "longer has"
        if replaced
        else ""
    )
    message = (
        f"No watched optimizer holds {name_region(layers)}: trainable, with a gradient, and "
        f"unchanged over {_measure_span(history, indices)} steps "
        f"({_count(history, replaced or indices)}){why}."
    )
    remedy = (
        f"Make the optimizer after the model is complete, or hand it the parameters of "
        f"{_name_places(history, layers)} with add_param_group; requires_grad_(False) says that "
        "they are to stay as they are."
    )
    severity = "critical" if replaced else "note"
    return [Sign(layers, "not_optimized", 0.0, 0.0, message, severity, True, remedy)]


def _look_at_unstepped(history: History, held: Mask, thresholds: Thresholds) -> list[Sign]:
    """Their optimizer has never stepped while another one has; a note where it may wait its turn.

    Gradients that somebody clears at every step are meant to be used; those of a part that waits,
    as a body while its new head is warmed up, pile up meanwhile.
    """
    state = history.standstill
    waits = held & ~state.has_moved & (state.stepped == 0)
    waits &= history.last_step - state.since >= thresholds.unstepped_steps
    indices = np.flatnonzero(waits).tolist()
    if not indices:
        return []
    layers = _name_modules(history, indices)
    piles_up = bool((history.latest.record.param("stale_grad_l2_norm")[indices] > 0).any())
    message = (
        f"The optimizer of {name_region(layers)} was never stepped during "
        f"{_measure_span(history, indices)} steps of another one, although a gradient arrives "
        f"({_count(history, indices)})."
    )
    remedy = (
        f"Call step() of the optimizer that holds {_name_places(history, layers)}; freeze these "
        "parameters while others are trained if they are to wait."
    )
    severity = "note" if piles_up else "critical"
    return [Sign(layers, "not_stepped", 0.0, 0.0, message, severity, True, remedy)]


def _look_at_unknown(history: History, held: Mask) -> list[Sign]:
    """No optimizer is known, as where steps are marked by hand, and nothing has ever moved."""
    record = history.latest.record
    is_unknown = not np.isfinite(record.param("learning_rate")).any()
    waits = held & ~history.standstill.has_moved & (record.param("update_l2_norm") == 0)
    indices = np.flatnonzero(waits).tolist()
    is_whole = not history.standstill.has_moved.any() and np.isnan(record.step("learning_rate"))
    if not (indices and is_unknown and is_whole):
        return []
    layers = _name_modules(history, indices)
    message = (
        f"A gradient arrives at {name_region(layers)}, and nothing has changed over "
        f"{_measure_span(history, indices)} steps: whichever optimizer is stepped does not "
        f"hold these parameters ({_count(history, indices)})."
    )
    remedy = (
        "Make the optimizer after the model is complete: layers that are replaced later, or a copy "
        "of the model, have parameters that it was not given."
    )
    return [Sign(layers, "not_optimized", 0.0, 0.0, message, "critical", True, remedy)]


def _look_at_rates(history: History, held: Mask, thresholds: Thresholds) -> list[Sign]:
    """The learning rate is 0; a note where only some groups have that, or all is learned."""
    rates = history.latest.record.param("learning_rate")
    rests = is_resting(rates, history.rates.highest)
    indices = np.flatnonzero(held & rests).tolist()
    if not indices:
        return []
    layers, rate = _name_modules(history, indices), float(np.max(rates[indices]))
    is_whole = bool(rests[np.isfinite(rates)].all())
    has_learned = history.losses.remaining < thresholds.unfinished
    highest = history.rates.highest
    was = f" (highest so far: {highest:.3g})" if highest > rate else ""
    message = (
        f"The learning rate of {name_region(layers)} is {rate:.3g}{was}, and nothing has "
        f"changed over {_measure_span(history, indices)} steps."
    )
    remedy = (
        "Look at the scheduler: one that counts epochs must not be stepped per batch, its length "
        "must be that of the training, and one that warms up must be stepped at all."
    )
    severity = "critical" if is_whole and not has_learned else "note"
    return [Sign(layers, "learning_rate", rate, 0.0, message, severity, True, remedy)]


def _look_at_lost(history: History, held: Mask, thresholds: Thresholds) -> list[Sign]:
    """The optimizer steps with a gradient and a rate, and the weight is what it was."""
    record = history.latest.record
    lost = held & find_lost(history.standstill, history.latest, thresholds)
    lost &= ~find_cleared(record) & ~is_resting(
        record.param("learning_rate"), history.rates.highest
    )
    indices = np.flatnonzero(lost).tolist()
    if not indices:
        return []
    layers, span = _name_modules(history, indices), _measure_span(history, indices)
    largest = float(history.standstill.largest_grad[indices].min())
    cause, say = "lost_update", partial(explain_lost, record, indices, span)
    if largest >= LARGEST_SQUARED:
        cause, say = "precision", partial(explain_overflow, record, indices, span, largest)
    return [Sign(layers, cause, 0.0, 0.0, "", "critical", True, explain=say)]


def _look_at_way(history: History, thresholds: Thresholds) -> list[Sign]:
    """The whole network: there is a gradient, and the steps lead nowhere."""
    if history.last_step - history.first_step < thresholds.patience:
        return []
    if not (
        has_gone_nowhere(history, thresholds) or is_at_rest(history, thresholds)
    ) or not lacks_rate(history, thresholds):
        return []
    is_clipped = measure_scaled_clipping(history)[0] < thresholds.clipped
    if is_clipped or find_cleared(history.latest.record).any():
        return []  # GW802 says why
    if find_rounded_away(history, thresholds):
        return []  # GW501 does
    way, rates = measure_way(history), history.rates.latest
    if not rates and not way > 0:
        return []  # no optimizer is known, and none may have stepped
    reading, steps = history.latest, history.last_step - history.first_step + 1
    layers = tuple(
        dict.fromkeys(reading.topology.param_layers[i] for i in np.flatnonzero(reading.judged))
    )
    at = f" at a learning rate of {rates[-1]:.3g}" if rates else ""
    message = (
        f"All {steps} steps together could have changed the loss by {way:.1g} of what it was at "
        f"first{at}: the gradient arrives, and the steps are too small."
    )
    factor = f", some {name_number(0.01 * steps / way)} times for a start" if way > 0 else ""
    remedy = (
        f"Raise the learning rate{factor}, or look for what makes the gradient small before the "
        "optimizer gets it."
    )
    return [Sign(layers, "learning_rate", way, thresholds.run_progress, message, remedy=remedy)]


UNMOVED = Rule(
    code="GW801",
    kind="unmoved",
    title="Weight that never moves",
    examine=examine,
    doc="""\
## What it does
Finds trainable weights that a gradient arrives at and that do not change by a single bit, and says
why: no optimizer holds them, their optimizer is never stepped, their learning rate is 0, or the
step is lost on its way. It also finds a whole network whose steps are too small to lead anywhere.

## Why it matters
The loss falls, since the other layers learn, and every gradient looks as it should. Parameters that
are replaced after the optimizer was made (a new head, a resized embedding), a second optimizer that
nobody steps, or a scheduler that is stepped per batch and reaches its end after a tenth of the
training leave no other trace.

## How it is measured
At each sampled step the norm of the weight is compared with the one before, and with itself around
the optimizer's step. Equal over `still_records` sampled steps with a gradient and `still_steps`
optimizer steps is *still*. A step is *lost* when the learning rate times the gradient that the
optimizer got is more than float32 could round away (2^-22 of the weight) and a weight that moved
before has a gradient as large as then. Behind a gradient whose square float32 cannot hold (1.8e19)
an optimizer that divides by a running mean of squares makes steps of 0. What half precision rounds
away is GW501's. The steps of a network are too small when the sum of `|g . dw|` over the run is
below `run_progress` of the loss at the start, or no weight moves, although `||g||*||w||` reaches
`elasticity` of it. Source: Lan et al. (2019), "LCA: Loss Change Allocation", for the sum; Jiang et
al. (2025), "Training with Confidence" (TrainCheck), for errors of this kind.

## Example
`optimizer = Adam(model.parameters())`, and then `model.head = nn.Linear(512, 10)`.

## Known limits
A body that waits while its head is warmed up is taken for forgotten after `unstepped_steps`, if its
gradients are cleared all the same. A weight of which `gradwatch` samples no element with a gradient
is not judged. An optimizer that is not watched and steps more rarely than every `still_steps` steps
is taken for none. What may be meant is a note: groups with a rate of 0 beside others, and trainable
parameters that no optimizer holds and that have replaced nothing that one holds.

## Configure or silence
`Thresholds(still_steps=..., still_records=..., unstepped_steps=..., run_progress=...)`;
`Thresholds(allow_unjudged=("encoder.*",))` for what is to stay as it is although it is trainable;
`ignore_kinds=("unmoved",)`.
""",
)
