"""GW101: a trainable region learns practically nothing because its gradient is too weak."""

from __future__ import annotations

from functools import partial

import numpy as np

from gradwatch.evidence.by_construction import find_idle
from gradwatch.evidence.ends import find_exit
from gradwatch.evidence.erasure import find_erased
from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.half_precision import find_flushed
from gradwatch.evidence.history import History
from gradwatch.evidence.progress import is_at_rest, lacks_rate
from gradwatch.evidence.topology import Indices, Mask
from gradwatch.evidence.zero_gradients import find_unasked
from gradwatch.records import Array
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.closed_outputs import describe_closed_outputs, have_outputs_closed
from gradwatch.verdict.excessive_decay import find_excessive_decay
from gradwatch.verdict.ignored import find_ignored_params
from gradwatch.verdict.outplayed import find_outplayed
from gradwatch.verdict.rule import Guard, Rule, Sign
from gradwatch.verdict.vanishing_causes import explain
from gradwatch.verdict.vanishing_guards import GUARDS


def examine(
    history: History, thresholds: Thresholds, guards: tuple[Guard, ...] = GUARDS
) -> list[Sign]:
    """Weights without a part in the loss's change that stand still; else a network at rest.

    Args:
        history: of the run so far.
        thresholds: of the run; see ``find_unreached``.
        guards: what spares a weight that the criterion has found.

    Example:
        >>> from gradwatch.evidence.worked_example import make_history, make_record
        >>> faint = {"grad_l2_norm": (1e-7, 2.0), "update_l2_norm": (1e-8, 0.25)}
        >>> faint |= {"loss_change": (-1e-15, -0.5), "step_grad_l2_norm": (1e-7, 2.0)}
        >>> arriving = {"grad_output_l2_norm": (1e-7, 0.125, 1.0), "grad_input_l2_norm": np.nan}
        >>> history = make_history([make_record(param=faint, layer=arriving)])
        >>> (sign,) = examine(history, Thresholds())
        >>> sign.layers, sign.explained().cause
        (('fc0',), 'activation_derivative')
    """
    unreached = find_unreached(history, thresholds)
    for guard in guards:
        if not np.count_nonzero(unreached):
            break
        spared = guard.find(history, thresholds, unreached)
        if np.count_nonzero(spared):
            unreached &= ~spared
    if not np.count_nonzero(unreached):
        decayed = find_excessive_decay(history, thresholds)
        outplayed = [] if decayed else find_outplayed(history, thresholds)
        return decayed or outplayed or _look_at_network(history, thresholds)
    heard = unreached & ~find_ignored_params(history.latest.topology, thresholds.ignore_layers)
    if not heard.any():
        return []
    shares = measure_share(history.latest)
    ordered = _order(np.flatnonzero(heard), shares)
    share = float(shares[ordered[0]])
    end = find_exit(history.latest, ordered[0])
    if end is not None and end.share < thresholds.profile:
        share = min(share, end.share)
    return [_make_sign(history, ordered, share, thresholds.profile, thresholds)]


def find_unreached(history: History, thresholds: Thresholds) -> Mask:
    """Parameters that take no part in the loss's change, and stand still.

    No part alone does no harm where the optimizer makes up for it, as Adam does for a head with a
    small loss of its own; standing still alone is what a resting network does. Updates are judged
    as at the learning rate that the training had, and while it warms up only against each other.

    Args:
        history: of the run so far.
        thresholds: ``loss_share``, ``update_ratio`` and ``relative_update`` decide; ``profile`` and
            ``sensitivity`` where the loss change is not known or the whole network is at rest.

    Returns:
        bool ``(n_params,)``.
    """
    reading = history.latest
    update = reading.measure_update(thresholds.weight_floor) * history.rates.decay
    still: Mask = reading.judged & (update < thresholds.update_ratio)
    erased = find_erased(history, thresholds)  # what moves these is not the task
    if not (np.count_nonzero(still) or np.count_nonzero(erased)):
        return still
    fastest = np.fmax.reduce(update[reading.judged], initial=0.0)
    faint = reading.param_gradient < thresholds.profile
    lags = update < thresholds.relative_update * fastest
    if not history.rates.is_warming_up:
        lags |= faint
    still &= lags & _find_partless(history, faint, thresholds)
    return still | (erased & faint)


def _find_partless(history: History, faint: Mask, thresholds: Thresholds) -> Mask:
    """Parameters without a part in what is learned."""
    reading, share = history.latest, history.loss_change.peak_share
    by_flow: Mask = faint | (reading.sensitivity < thresholds.sensitivity)
    if history.measure_motion(now=True) < thresholds.loss_progress:
        return by_flow  # at rest, shares of next to nothing mean nothing
    by_share = (share < thresholds.loss_share) & ~reading.is_unasked
    return np.where(np.isnan(share), by_flow, by_share)


def measure_share(reading: Reading) -> Array:
    """Share of the full gradient that reaches each parameter, by the fainter of both signals.

    Args:
        reading: of one record.

    Returns:
        float64 ``(n_params,)``: the less of ``Reading.param_gradient`` and ``sensitivity``.
    """
    return np.fmin(reading.param_gradient, reading.sensitivity)


def _order(indices: Indices, by: Array) -> list[int]:
    """The least first; NaN comes last."""
    ordered: list[int] = indices[np.argsort(by[indices], kind="stable")].tolist()
    return ordered


def _make_sign(
    history: History, ordered: list[int], observed: float, limit: float, thresholds: Thresholds
) -> Sign:
    names = history.latest.topology.param_layers
    layers = tuple(dict.fromkeys(names[index] for index in ordered))
    ask = partial(explain, history, history.latest, layers, ordered, thresholds)
    return Sign(layers, None, observed, limit, "", explain=ask)


def _look_at_network(history: History, thresholds: Thresholds) -> list[Sign]:
    """A network that stands still as a whole although its loss is not low: each layer alike."""
    reading = history.latest
    if not is_at_rest(history, thresholds) or lacks_rate(history, thresholds):
        return []
    if find_flushed(reading, thresholds, from_start=not history.errors.beginning > 0):
        return []  # GW501 says why
    ignored = find_ignored_params(reading.topology, thresholds.ignore_layers)
    indices = np.flatnonzero(reading.judged & ~ignored)
    if not indices.size:
        return []
    if not history.has_closed_outputs(thresholds) and _is_unasked(history, indices):
        return []  # GW701 says that the loss sends nothing
    idle = {i for found in find_idle(reading, thresholds).values() for i in found}
    if idle.issuperset(indices.tolist()):
        return []  # GW701 says what cannot learn by construction
    if have_outputs_closed(reading, thresholds):
        return [describe_closed_outputs(history, indices, thresholds)]
    ordered = _order(indices, reading.param_gradient)
    motion = history.measure_motion(now=True)
    return [_make_sign(history, ordered, motion, thresholds.loss_progress, thresholds)]


def _is_unasked(history: History, indices: Indices) -> bool:
    """Whether the loss has never sent any of these parameters a gradient above zero."""
    asked = history.params.was_fed[indices].any()
    return not asked and find_unasked(history.latest, indices.tolist()) >= set(indices.tolist())


def list_guards(guards: tuple[Guard, ...]) -> str:
    """What the guards spare, as a list in Markdown.

    Args:
        guards: of a rule.
    """
    return "\n".join(f"- {guard.name}: {guard.why}" for guard in guards)


VANISHING = Rule(
    code="GW101",
    kind="vanishing",
    title="Vanishing gradient",
    examine=examine,
    guards=GUARDS,
    doc=f"""\
## What it does
Finds trainable weights that are cut off from the loss and therefore stand still.

## Why it matters
Backpropagation multiplies one factor per layer. When the factors are small, the layers near the
input receive so little gradient that they keep their random initial values: the network learns
only with its last layers, or not at all.

## How it is measured
At each sampled step, every weight matrix has a share in the change of the loss that the step makes:
`|g . dw|` against the sum over the matrices of its optimizer. A weight whose share stays below
`loss_share` has *no part* in what is learned. It *stands still* when its update `||dw||/||w||`
(without what weight decay does) is below `update_ratio` per step. Both must hold: Adam moves a
layer with a weak gradient, and a network that has converged stands still without being unhealthy.
Updates are judged as at the learning rate that the training had, and while it warms up only against
each other. Where a log lacks the loss change, or the whole network is at rest, the gradient at the
layer's output against the largest further down (`profile`) and `||g||*||w||` against the largest
behind it (`sensitivity`) decide in its place.

Where most weights have less than `weight_floor` of their first size left, what moves them is weight
decay or a penalty in the loss: the gradient at a layer's output alone decides. Weight decay that
takes `shaking_update` of a weight per step (rate times decay), while the loss is above `progress`
of its first values, is a sign by itself.

The *whole network* stands still when a step changes the loss by less than `loss_progress` of what
it began with, no weight moves, and more than `unfinished` of the loss is left: from the first step
on, or since the activations on the outputs let less than `output_gain` of the gradient through. At
a minimum above 0 the gradients of single samples cancel in the weights and nowhere else, so that
the outputs stay open. Where the gradient is there (`elasticity`) and only the steps are too small,
GW801 says so.

Of several optimizers, as the players of a game have them, one whose weights all stand still is a
sign where an output's elements are saturated and the loss pulls `saturated_fraction` of them back
to the slope: the other player is sure, and this one cannot change that.

Also left alone:

{list_guards(GUARDS)}

Where no layer on the way takes the gradient, its ends do: what the loss sends there against the
best-fed output, a saturated activation that no weight follows, inputs that are next to nothing.
The cause follows from the gains `||dL/d input|| / ||dL/d output||` between the layer and the
loss: the activations' share is phi', the weights' share W. Sources: Bengio, Simard & Frasconi
(1994); Lan et al. (2019), "LCA: Loss Change Allocation"; Glorot & Bengio (2010), section 4; He et
al. (2015), section 2.2.

## Example
Twelve `Linear` + `Sigmoid` layers trained with SGD: each sigmoid multiplies the gradient by at
most 0.25, so that the first layer gets some ten-millionth of the last layer's gradient.

## Known limits
The players of a game share no loss, so each optimizer's weights are held against each other. Where
their loss is made of logits, no activation shows which end an output is at. A loss over time is
found only when the task does not progress (see `patience`).

## Configure or silence
`Thresholds(loss_share=..., loss_progress=..., update_ratio=...)`; `ignore_kinds=("vanishing",)`;
`ignore_layers=("encoder.frozen.*",)`.
""",
)
