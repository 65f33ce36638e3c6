"""What lies at both ends of a layer's way to the loss: what it takes in, and what it is asked for.

Between its ends the gains of layers say who takes the gradient away. A weight of a loss term, a
gate or a routing weight stands behind the last of them; inputs that are next to nothing, before the
first; and a function of the layer's own may be flat where all samples lie.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from gradwatch.evidence.flow_facts import list_grads, read_grads
from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.paths import LEAST_NORM, find_fed_path
from gradwatch.evidence.record_table import RecordTable
from gradwatch.evidence.topology import Indices
from gradwatch.thresholds import Thresholds


class WayEnd(NamedTuple):
    """Where the way of a layer ends at the loss.

    Attributes:
        layer: index of the last one on it.
        strongest: index of the layer that the loss sends most.
        share: gradient at the former's output against that at the latter's.
    """

    layer: int
    strongest: int
    share: float


def find_exit(reading: Reading, index: int) -> WayEnd | None:
    """How much the loss sends to the end of a parameter's way, against the best-fed of all ends.

    Args:
        reading: of one record.
        index: of the parameter.

    Returns:
        ``None`` where no gradient above zero was seen at any call of its module.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> find_exit(make_reading(), 0)
        WayEnd(layer=2, strongest=2, share=1.0)
    """
    grad = reading.pick(list_grads)
    calls = [call for call in reading.topology.calls[index] if grad[call] > 0]
    if not calls:
        return None
    start = max(calls, key=grad.__getitem__)
    path = find_fed_path(reading, start)
    last, strongest = path[-1] if path else start, int(reading.ask(_find_strongest))
    asked = grad[strongest] if reading.topology.is_reference[strongest] else 0.0
    asked = asked if math.isfinite(asked) else 0.0
    return WayEnd(last, strongest, grad[last] / max(asked, LEAST_NORM))


def _find_strongest(table: RecordTable) -> Indices:
    """The layer that the loss sends most, of each record."""
    grad = table.ask(read_grads)
    asked = np.where(table.topology.is_reference & np.isfinite(grad), grad, 0.0)
    strongest: Indices = np.argmax(asked, axis=1)
    return strongest


def find_closed_end(reading: Reading, index: int, thresholds: Thresholds) -> int:
    """A saturated activation right behind a parameter's module that lets next to nothing through.

    Behind it no weight need follow, as behind a router's softmax or a gate's sigmoid: it then is on
    no way from one layer to the next.

    Args:
        reading: of one record.
        index: of the parameter.
        thresholds: ``saturated_fraction`` and ``closed_softmax``, of the gradient.

    Returns:
        Index of the layer, or -1.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> shut = {"saturated_fraction": (np.nan, 1.0, np.nan), "grad_input_l2_norm": 0.0}
        >>> find_closed_end(make_reading(layer=shut), 0, Thresholds())
        1
    """
    saturated = reading.record.layer("saturated_fraction") >= thresholds.saturated_fraction
    for call in reading.topology.calls[index]:
        for user in reading.topology.consumers[call]:
            is_closed = reading.grad[user] > 0 and reading.gains[user] < thresholds.closed_softmax
            if is_closed and saturated[user]:
                return user
    return -1


def takes_in_little(reading: Reading, index: int, thresholds: Thresholds) -> bool:
    """Whether a weight that takes in the network's inputs gets less than its bias: ``g = d x``.

    What cancels over samples would cancel in the bias too.

    Args:
        reading: of one record.
        index: of the parameter.
        thresholds: ``sensitivity``, of a weight's gradient against that of its bias.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> takes_in_little(make_reading(), 0, Thresholds())  # it has no bias
        False
    """
    params, calls = reading.topology.params, reading.topology.calls[index]
    if not calls or any(reading.topology.layers[call].inputs for call in calls):
        return False
    grad, module = reading.record.param("grad_l2_norm"), params[index].module
    biases = [i for i, param in enumerate(params) if param.module == module and i != index]
    usual = max((float(grad[i]) for i in biases if len(params[i].shape) == 1), default=0.0)
    return bool(grad[index] < thresholds.sensitivity * usual)


def find_mute(reading: Reading, indices: Iterable[int]) -> int:
    """A layer that computes nothing but zeros by a function of its own, or -1.

    A gradient arrives, its weights are not zero, and they get none of it: so it is with kernels
    that are too narrow to reach any sample. What only multiplies by a ``weight`` is not meant.

    Args:
        reading: of one record.
        indices: of parameters.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> find_mute(make_reading(), [0, 1])
        -1
    """
    output, weights = reading.record.layer("output_l2_norm"), reading.record.param("weight_l2_norm")
    grads, params = reading.record.param("grad_l2_norm"), reading.topology.params
    for index in indices:
        is_plain = params[index].fqn.endswith("weight")
        if is_plain or not weights[index] > 0 or grads[index] > 0:
            continue
        for call in reading.topology.calls[index]:
            if output[call] < LEAST_NORM and reading.grad[call] > 0:
                return call
    return -1
