"""GW101: a trainable region learns practically nothing because its gradient is too weak."""

from __future__ import annotations

from functools import partial

import numpy as np

from gradwatch.evidence.attribution import find_opening
from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.half_precision import find_behind, find_flushed
from gradwatch.evidence.history import History
from gradwatch.evidence.topology import Mask, is_flat
from gradwatch.evidence.zero_gradients import find_shut, find_walled
from gradwatch.records import Array
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.rule import Rule, Sign
from gradwatch.verdict.vanishing_causes import explain
from gradwatch.wording.phrases import name_lack, name_region


def examine(history: History, thresholds: Thresholds) -> list[Sign]:
    """Weights that are cut off from the loss and stand still; one sign per newest step."""
    reading = history.latest
    starved = find_starved(history, thresholds) & ~_find_recovering(history, thresholds)
    flushed = find_flushed(reading, thresholds, from_start=not history.first_error > 0)
    if flushed:  # the precision is to blame, and another rule says so
        starved &= ~find_behind(reading, flushed)
    zero = np.flatnonzero(starved & (reading.record.param("grad_l2_norm") == 0))
    starved[list(find_walled(reading, zero.tolist()))] = False  # as good as disconnected
    starved[list(find_shut(reading, zero.tolist()))] = False  # an expert that is not chosen
    if reading.topology.has_joins:  # only beside a skip can a closed branch do no harm
        behind = np.flatnonzero(starved).tolist()
        starved[list(find_opening(reading, behind, thresholds.opening))] = False
    indices = np.flatnonzero(starved)
    if not indices.size:
        return _look_at_network(history, thresholds)
    share = measure_share(reading)
    ordered = indices[np.argsort(share[indices], kind="stable")].tolist()  # NaN comes last
    names = reading.topology.param_layers
    layers = tuple(dict.fromkeys(names[index] for index in ordered))
    observed = float(share[ordered[0]])
    ask = partial(explain, history, reading, layers, ordered, thresholds)
    return [Sign(layers, None, observed, thresholds.profile, "", explain=ask)]


def _look_at_network(history: History, thresholds: Thresholds) -> list[Sign]:
    """A network that stands still as a whole although its loss is not low: each layer alike."""
    reading = history.latest
    update = reading.measure_update(thresholds.weight_floor)[reading.judged] * history.rates.decay
    is_still = update.size and np.all(update < thresholds.update_ratio)
    if not is_still or not history.stands_still(thresholds):
        return []
    names = [reading.topology.param_layers[index] for index in np.flatnonzero(reading.judged)]
    layers = tuple(dict.fromkeys(names))
    if reading.output_gain < thresholds.output_gain:
        return [_describe_outputs(reading, layers, thresholds)]
    indices = np.flatnonzero(reading.judged)
    ordered = indices[np.argsort(reading.param_gradient[indices], kind="stable")].tolist()
    ask = partial(explain, history, reading, layers, ordered, thresholds)
    motion = history.measure_motion(now=True)
    return [Sign(layers, None, motion, thresholds.loss_progress, "", explain=ask)]


def _describe_outputs(reading: Reading, layers: tuple[str, ...], thresholds: Thresholds) -> Sign:
    topology = reading.topology
    closed = np.flatnonzero(topology.is_head & ~topology.is_reference).tolist()
    outputs = name_region([topology.layers[index].fqn for index in closed])
    lack = name_lack(reading.output_gain, "the loss sends")
    message = f"Every layer gets {lack}: {outputs} lets next to nothing through."
    rectifies = any(is_flat(topology.layers[index], "zero") for index in closed)
    cause = "dead_units" if rectifies else "saturation"
    return Sign(layers, cause, reading.output_gain, thresholds.output_gain, message)


def find_starved(history: History, thresholds: Thresholds) -> Mask:
    """Which parameters starve: cut off from the loss, and standing still because of it.

    Cut off alone does no harm where the optimizer makes up for it (Adam); standing still alone is
    what a converged or resting network does. A schedule makes all weights stand still: updates
    are judged as at the learning rate that the training had, and while it warms up only against
    each other.
    """
    reading = history.latest
    update = reading.measure_update(thresholds.weight_floor) * history.rates.decay
    fastest = np.nanmax(update[reading.judged], initial=0.0)
    with np.errstate(invalid="ignore"):
        faint = reading.param_gradient < thresholds.profile
        share = history.loss_change.peak_share
        by_flow = faint | (reading.sensitivity < thresholds.sensitivity)
        rests = history.measure_motion(now=True) < thresholds.loss_progress
        no_share = by_flow if rests else (share < thresholds.loss_share) & ~reading.is_unasked
        cut_off = np.where(np.isnan(share), by_flow, no_share)
        still = update < thresholds.update_ratio
        lags = update < thresholds.relative_update * fastest
    if not history.rates.is_warming_up:
        lags |= faint
    result: Mask = reading.judged & cut_off & still & lags
    if history.has_converged(thresholds):  # what has moved has learned what there was to learn
        result &= ~(history.largest_updates >= thresholds.update_ratio)
    return result


def measure_share(reading: Reading) -> Array:
    """Share of the full gradient that reaches each parameter, by the fainter of both signals."""
    return np.fmin(reading.param_gradient, reading.sensitivity)


def _find_recovering(history: History, thresholds: Thresholds) -> Mask:
    """Parameters whose share has been growing: zero-initialised branches open within some steps."""
    latest = history.latest
    nothing = np.zeros(len(latest.topology.params), dtype=bool)
    if len(history.window) < 2:
        return nothing
    earlier = history.window[-min(len(history.window), thresholds.persistence)]
    if earlier.topology is not latest.topology:
        return nothing
    with np.errstate(invalid="ignore"):
        now, before = measure_share(latest), measure_share(earlier)
        return (now > before * thresholds.recovery) & (now > 0)


VANISHING = Rule(
    code="GW101",
    kind="vanishing",
    title="Vanishing gradient",
    examine=examine,
    doc="""\
## What it does
Finds trainable weights that are cut off from the loss and therefore stand still.

## Why it matters
Backpropagation multiplies one factor per layer. When the factors are small, the layers near the
input receive so little gradient that they keep their random initial values: the network learns
only with its last layers, or not at all.

## How it is measured
A weight is *cut off* when the gradient at its layer's output is below `profile` of the largest
gradient further down, or when its sensitivity `S = ||g||*||w||`, the change of the loss per
relative change of the weight, is below `sensitivity` of the largest behind it. It *stands still*
when its measured update `||dw||/||w||` (without what weight decay does) is below `update_ratio`
per step. Both must hold: Adam makes up for a weak gradient until it nears its `eps`, and a
converged network stands still without being ill. Updates are judged as at the learning rate that
the training had, and while it warms up only against each other. What is growing back by itself is
left alone, and so is a residual branch whose factor, made to begin near zero, moves by `opening` of
its own size; and in a training that has `converged`, what has moved before rests.

An activation at the network's output is never judged for being sure. But when it has let less than
`output_gain` through since the first step, for `patience` steps, and nothing moves, it is pinned.

The cause follows from the gains `||dL/d input|| / ||dL/d output||` between the starved layer and
the loss: the activations' share is phi', the weights' share W. Sources: Bengio, Simard & Frasconi
(1994); Glorot & Bengio (2010), section 4; He et al. (2015), section 2.2.

## Example
Twelve `Linear` + `Sigmoid` layers trained with SGD: each sigmoid multiplies the gradient by at
most 0.25, so that the first layer gets some ten-millionth of the last layer's gradient.

## Known limits
Without any layer output (a model of bare `nn.Parameter`s and arithmetic) only sensitivity is
seen. A loss over time is found only when the task does not progress (see `patience`).

## Configure or silence
`Thresholds(profile=..., sensitivity=..., update_ratio=...)`; `ignore_kinds=("vanishing",)`;
`ignore_layers=("encoder.frozen.*",)`.
""",
)
