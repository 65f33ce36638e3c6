"""GW301: a hidden activation whose elements stay where its derivative is almost zero."""

from __future__ import annotations

import numpy as np

from gradwatch.evidence.feeders import name_with_feeders
from gradwatch.evidence.gradient_flow import measure_rms
from gradwatch.evidence.history import History
from gradwatch.evidence.optimizer_pools import has_players
from gradwatch.evidence.softmaxes import find_softmaxes, measure_sureness
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.ignored import find_ignored_layers
from gradwatch.verdict.rule import Rule, Sign
from gradwatch.wording.phrases import name_percent, name_region, say_name


def examine(history: History, thresholds: Thresholds) -> list[Sign]:
    """Hidden activations with most of their elements saturated at the newest step.

    Args:
        history: of the run so far.
        thresholds: ``saturated_fraction``, ``flat_fraction``; ``stuck`` and ``rare_output`` of
            outputs and attention; ``converged`` and ``solved_loss``.

    Example:
        >>> from gradwatch.evidence.worked_example import make_history, make_record
        >>> record = make_record(layer={"saturated_fraction": (np.nan, 0.9, np.nan)})
        >>> [sign.layers for sign in examine(make_history([record]), Thresholds())]
        [('act', 'fc0')]
    """
    reading = history.latest
    fraction = reading.record.layer("saturated_fraction")
    topology, usual, whole = (
        reading.topology,
        thresholds.saturated_fraction,
        thresholds.flat_fraction,
    )
    if not np.count_nonzero(fraction >= min(usual, whole)):
        return []
    found = [i for i in topology.saturable if fraction[i] >= usual]
    found += [i for i in topology.one_sided if fraction[i] >= whole]
    is_solved = history.losses.remaining < thresholds.solved_loss
    if found and (is_solved or history.has_converged(thresholds)):
        found = [i for i in found if not _was_open(history, i, thresholds)]
    found += _find_stuck_outputs(history, thresholds)
    found += _find_stuck_softmaxes(history, thresholds)
    ignored = find_ignored_layers(topology, thresholds.ignore_layers)
    found = [index for index in found if not ignored[index]]
    if not found:
        return []
    found.sort(key=lambda index: -fraction[index])
    return [_describe(history, found, thresholds)]


def _describe(history: History, found: list[int], thresholds: Thresholds) -> Sign:
    reading, topology = history.latest, history.latest.topology
    fraction = reading.record.layer("saturated_fraction")
    layers = name_with_feeders(reading.topology, found)
    acts = tuple(dict.fromkeys(reading.topology.layers[index].fqn for index in found))
    worst = float(fraction[found[0]])
    derivative = float(np.fmin.reduce(reading.record.layer("derivative_mean")[found]))
    slope = "" if np.isnan(derivative) else f"; mean derivative {derivative:.2g}"
    message = (
        f"{name_percent(worst)} of the elements of {say_name(acts[0])} are saturated: its "
        f"derivative there is below 5 % of its maximum ({name_region(acts)}{slope})."
    )
    is_broken = history.broke_layers([topology.layers[found[0]]], thresholds)
    cause = "learning_rate" if is_broken else "saturation"
    faults = tuple(topology.layers[index].key for index in found)
    limit = thresholds.saturated_fraction
    return Sign(layers, cause, worst, limit, message, "warning", faults=faults)


def _find_stuck_outputs(history: History, thresholds: Thresholds) -> list[int]:
    """Activations of the network's outputs that are saturated although the task is not learned.

    Being sure is an output's job; beside a loss that has levelled off while it is still high, it is
    sure of what is wrong where the loss would have many of its elements back. Where that is not
    known, one that is off nearly everywhere may detect something rare. A gate may close a way.
    """
    topology = history.latest.topology
    outputs = [index for index in topology.outputs if not topology.layers[index].is_gate]
    if not outputs or not _has_stuck(history, thresholds):
        return []
    fraction = history.latest.record.layer("saturated_fraction")
    is_stuck = fraction >= thresholds.saturated_fraction
    opposed = history.latest.record.layer("opposed_fraction")
    is_on = measure_rms(history.latest) >= thresholds.rare_output
    is_stuck &= np.where(np.isnan(opposed), is_on, opposed >= thresholds.rare_output)
    return [index for index in outputs if is_stuck[index]]


def _has_stuck(history: History, thresholds: Thresholds) -> bool:
    """Whether the loss has levelled off while it is still high; what players of a game lose is
    what others win, and their sum says nothing."""
    if has_players(history.latest):
        return False
    return history.losses.remaining > thresholds.stuck and history.losses.has_levelled


def _find_stuck_softmaxes(history: History, thresholds: Thresholds) -> list[int]:
    """Softmaxes that have been sure from the start, in a training that does not get on.

    Attention that has learned where to look is sure; before any training it is so only because its
    scores are far too large. Its gradient then comes in bursts, at the few near ties.
    """
    topology, limit = history.latest.topology, thresholds.saturated_fraction
    found = find_softmaxes(topology)
    if not found or not _has_stuck(history, thresholds):
        return []
    now, first = measure_sureness(history.latest), history.first_levels.sureness
    flat = history.latest.record.layer("saturated_fraction") >= limit  # not so over a single entry
    sure = [i for i in found if flat[i] and now[i] >= limit]
    return [i for i in sure if first.get(topology.layers[i].key, 0.0) >= limit]


def _was_open(history: History, index: int, thresholds: Thresholds) -> bool:
    first = history.first_levels.saturated.get(history.latest.topology.layers[index].key, 1.0)
    return first < thresholds.saturated_fraction


SATURATED = Rule(
    code="GW301",
    kind="saturated",
    title="Saturated activation",
    examine=examine,
    doc="""\
## What it does
Finds hidden sigmoid- and tanh-like activations of which `saturated_fraction` (80 %) or more of the
elements stay saturated, and smooth rectifiers (ELU, Softplus, SiLU, GELU and the like) and clamps
of which `flat_fraction` (99 %) do: many of their elements are right to be off or beyond an end,
nearly all of them are not.

## Why it matters
Where |z| is large, phi' is almost zero: a saturated unit passes no gradient and says the same to
every input. It is no vanishing gradient by itself: a net can be 90 % saturated and still move.

## How it is measured
An element is saturated when |phi'| is below 5 % of its maximum: |z| > 4.36 for the sigmoid, |z| >
2.18 for tanh. Derivatives are taken from the outputs. Gates (outputs that multiply something) and
activations behind the last weight are left alone: being sure is their job. So are activations that
were open at first and have become sure in a training that has `converged` or whose loss has come
below `solved_loss` of its first values. A softmax inside the
network, as in attention or a router, counts when it has been one-hot since the first record (mean
`sum p^2` of its rows at `saturated_fraction`) and the loss has levelled off above `stuck` of its
first values. Source: Glorot & Bengio (2010), section 3.

## Example
Raw pixels from 0 to 255 fed to a tanh network: |z| is in the hundreds.

## Known limits
A gate is recognised by the multiplication that follows inside the watched model's forward.

## Configure or silence
`Thresholds(saturated_fraction=...)`; `ignore_kinds=("saturated",)`; `ignore_layers=(...)`.
""",
)
