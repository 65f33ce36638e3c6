"""A player of a game that cannot move, because the other is sure of what it would change."""

from __future__ import annotations

import numpy as np

from gradwatch.evidence.history import History
from gradwatch.evidence.optimizer_pools import find_pools
from gradwatch.evidence.topology import Indices, Mask
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.ignored import find_ignored_params
from gradwatch.verdict.rule import Sign
from gradwatch.wording.phrases import name_percent, name_region, say_name


def find_outplayed(history: History, thresholds: Thresholds) -> list[Sign]:
    """Weights of one of several optimizers that all stand still behind an output at its wrong end.

    A player that has won, or a part that has nothing more to learn, stands still as well; what
    tells is where the loss pulls the output: further out, or back to where there is a slope.

    Args:
        history: of the run so far.
        thresholds: ``update_ratio`` of a weight that moves, ``saturated_fraction`` of an output
            whose elements are saturated and pulled back.
    """
    reading = history.latest
    outputs = list(reading.topology.outputs)
    opposed = reading.record.layer("opposed_fraction")[outputs]
    if not np.any(opposed >= thresholds.saturated_fraction) or history.rates.is_warming_up:
        return []
    still = _find_still(history, thresholds)
    if not still.any():
        return []
    index = outputs[int(np.nanargmax(opposed))]
    return [_describe(history, np.flatnonzero(still), index, thresholds)]


def _find_still(history: History, thresholds: Thresholds) -> Mask:
    """Weights of optimizers of which none moves, beside others of which some do."""
    reading = history.latest
    group, _ = find_pools(reading.topology)
    update = reading.measure_update(thresholds.weight_floor) * history.rates.decay
    judged = reading.judged & ~np.isnan(update)
    judged &= ~find_ignored_params(reading.topology, thresholds.ignore_layers)
    moving = judged & (update >= thresholds.update_ratio)
    alive = np.isin(group, group[moving])
    found: Mask = judged & ~alive & moving.any()
    return found


def _describe(history: History, indices: Indices, output: int, thresholds: Thresholds) -> Sign:
    reading, topology = history.latest, history.latest.topology
    layers = tuple(dict.fromkeys(topology.param_layers[index] for index in indices))
    name, key = say_name(topology.layers[output].fqn), topology.layers[output].key
    share = float(reading.record.layer("opposed_fraction")[output])
    message = (
        f"{name_region(layers)} stand still: {name_percent(share)} of the elements of {name} are "
        "saturated, and the loss would have them back where there is a slope."
    )
    remedy = (
        f"Use a loss that is steep where {name} is sure: for a generator -log(D) in place of "
        "log(1 - D), that is binary_cross_entropy_with_logits against ones on what comes before "
        f"{name}; or hold the other player back (a smaller rate, fewer steps, noise on its inputs)."
    )
    limit = thresholds.saturated_fraction
    return Sign(layers, "saturation", share, limit, message, faults=(key,), remedy=remedy)
