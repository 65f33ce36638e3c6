"""A player of a game that cannot learn: an output, its own or another's, is at its wrong end."""

from __future__ import annotations

import numpy as np

from gradwatch.evidence.feeders import name_with_feeders
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
            whose elements are saturated and pulled back, ``converged`` of a gradient that is gone.
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
    """Weights of optimizers of which none moves, beside others of which some do.

    What moves while next to nothing is left of its largest gradient is moved by what is left, as
    Adam scales it up once the larger ones are forgotten.
    """
    reading = history.latest
    group, _ = find_pools(reading.topology)
    update = reading.measure_update(thresholds.weight_floor) * history.rates.decay
    judged = reading.judged & ~np.isnan(update)
    judged &= ~find_ignored_params(reading.topology, thresholds.ignore_layers)
    largest = history.standstill.largest_grad
    is_gone = reading.record.param("grad_l2_norm") < thresholds.converged * largest
    moving = judged & (update >= thresholds.update_ratio) & ~is_gone
    alive = np.isin(group, group[moving])
    found: Mask = judged & ~alive & moving.any()
    return found


def _describe(history: History, indices: Indices, output: int, thresholds: Thresholds) -> Sign:
    reading, topology = history.latest, history.latest.topology
    layers = tuple(dict.fromkeys(topology.param_layers[index] for index in indices))
    name, key = say_name(topology.layers[output].fqn), topology.layers[output].key
    share = float(reading.record.layer("opposed_fraction")[output])
    learn = "learns" if len(layers) == 1 else "learn"
    message = (
        f"{name_region(layers)} {learn} nothing: {name_percent(share)} of the elements of {name} "
        "are saturated, and the loss would have them back where there is a slope."
    )
    limit, faults = thresholds.saturated_fraction, (key,)
    if set(name_with_feeders(topology, [output])[1:]) & set(layers):  # its own output
        remedy = _OWN.format(name_region(layers[:1]), name)
        return Sign(layers, "saturation", share, limit, message, faults=faults, remedy=remedy)
    remedy = (
        f"Use a loss that is steep where {name} is sure: for a generator -log(D) in place of "
        "log(1 - D), that is binary_cross_entropy_with_logits against ones on what comes before "
        f"{name}; or hold the other player back (a smaller rate, fewer steps, noise on its inputs)."
    )
    return Sign(layers, "saturation", share, limit, message, faults=faults, remedy=remedy)


_OWN = (
    "Normalise what {0} takes in to mean 0 and a size of about 1, and begin the last weight before "
    "{1} small (within 3e-3, as in DDPG), so that {1} begins where it has a slope; a lower rate, "
    "or a penalty on what comes into {1}, keeps it there."
)
