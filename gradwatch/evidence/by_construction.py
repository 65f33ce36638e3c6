"""What no gradient can move by construction: attention over one key, a norm over one value."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.paths import reach
from gradwatch.evidence.topology import Topology
from gradwatch.schema.activations import find_activation
from gradwatch.thresholds import Thresholds

NO_CHOICE = "its softmax has one key to choose from, so that queries and keys change nothing"
NO_OUTPUT = "the softmax at the output has one entry to choose from, and is always 1"
NO_SPREAD = (
    "the normalisation behind has one value at a time, or equal ones, and returns its own bias "
    "whatever it is given"
)
CANCELS = (
    "what uses its output sends back gradients that add up to zero, as x - f(x) does for f(x) = x"
)
NO_SIZE = (
    "what uses the output of its softmax does not depend on it, as a weight that is divided by "
    "itself, and sends back no more than rounding"
)
"""Reasons, as phrases."""


def find_idle(reading: Reading, thresholds: Thresholds) -> dict[str, list[int]]:
    """Trainable parameters that an optimizer holds and nothing can teach, by the reason.

    Args:
        reading: of one record.
        thresholds: ``profile``, above which a gradient is no rounding, and ``rounding_share``.

    Returns:
        Indices of parameters by ``NO_CHOICE``, ``NO_OUTPUT``, ``NO_SPREAD``, ``NO_SIZE`` or
        ``CANCELS``; a reason without any is left out.

    Example:
        >>> from gradwatch.evidence.worked_example import make_layer_set, make_reading
        >>> no_choice = {"derivative_mean": (np.nan, 0.0, np.nan), "grad_output_l2_norm": (0, 0, 1)}
        >>> reading = make_reading(layer=no_choice, layer_set=make_layer_set("Softmax"))
        >>> find_idle(reading, Thresholds())
        {'its softmax has one key to choose from, so that queries and keys change nothing': [0]}
    """
    topology = reading.topology
    choiceless, shared = _find_choiceless(reading), _find_shared(topology)
    spreadless = _find_spreadless(reading, thresholds.profile)
    sizeless = _find_sizeless(reading, thresholds.rounding_share) - choiceless
    if not (choiceless or shared or spreadless or sizeless):
        return {}
    faint = topology.is_held & ~(reading.param_gradient >= thresholds.profile)
    judged = np.flatnonzero(faint).tolist()
    inside = _find_inside(reading, choiceless, thresholds.rounding_share)
    idle = [
        i
        for i in (judged if choiceless else ())
        if i in inside or _feeds_only(reading, i, choiceless)
    ]
    is_output = all(topology.layers[call].is_head for call in choiceless)
    found = {
        NO_OUTPUT if is_output else NO_CHOICE: idle,
        NO_SPREAD: [i for i in judged if spreadless and _feeds_only(reading, i, spreadless)],
        NO_SIZE: [i for i in judged if sizeless and _feeds_only(reading, i, sizeless)],
        CANCELS: [i for i in judged if i in shared and _cancels(reading, i)],
    }
    return {reason: indices for reason, indices in found.items() if indices}


def _find_choiceless(reading: Reading) -> set[int]:
    """Softmaxes over a single value, which is always 1."""
    mixing = _find_mixing(reading.topology)
    if not mixing:
        return set()
    slope = reading.record.layer("derivative_mean")
    saturated = reading.record.layer("saturated_fraction")
    return {index for index in mixing if slope[index] == 0 and saturated[index] == 0}


def _find_sizeless(reading: Reading, rounding: float) -> set[int]:
    """Softmaxes whose output gets no more of a gradient than rounding leaves of an exact zero.

    All that use it get one, and nothing that is recorded stands in between: what comes of a router
    that chooses one expert and divides its weight by the sum of the weights chosen, which is 1.
    """
    topology, given = reading.topology, reading.record.layer("grad_input_l2_norm")
    return {
        call
        for call in _find_mixing(topology)
        if topology.consumers[call]
        and all(
            0 < reading.grad[call] < rounding * given[user] for user in topology.consumers[call]
        )
    }


def _find_spreadless(reading: Reading, rounding: float) -> set[int]:
    """Normalisations of which each value is its own mean: ``(x - mean) / std`` is 0 there.

    A scale's gradient is the shift's times those zeros, and what goes on to the input cancels: of
    either no more is left than rounding.
    """
    layers, grad = reading.topology.layers, reading.record.param("grad_l2_norm")
    return {
        call
        for scale, shift in _find_affine(reading.topology)
        if grad[scale] < rounding * grad[shift]
        for call in reading.topology.calls[scale]
        if layers[call].inputs
        and all(reading.grad[i] < rounding * reading.grad[call] for i in layers[call].inputs)
    }


@lru_cache(maxsize=16)
def _find_affine(topology: Topology) -> tuple[tuple[int, int], ...]:
    """Scale and shift of each normalisation that has both."""
    by_name = {param.fqn: index for index, param in enumerate(topology.params)}
    norms = dict.fromkeys(layer.fqn for layer in topology.layers if layer.role == "norm")
    pairs = ((by_name.get(f"{fqn}.weight", -1), by_name.get(f"{fqn}.bias", -1)) for fqn in norms)
    return tuple(pair for pair in pairs if min(pair) >= 0)


@lru_cache(maxsize=16)
def _find_mixing(topology: Topology) -> tuple[int, ...]:
    """Activations that are not elementwise, as a softmax is none."""
    rows = [find_activation(layer.type) for layer in topology.layers]
    return tuple(i for i, row in enumerate(rows) if row is not None and not row.is_elementwise)


def _find_inside(reading: Reading, choiceless: set[int], rounding_share: float) -> set[int]:
    """Parameters of modules with such a softmax in one kernel, which is no link in the flow."""
    layers = reading.topology.layers
    owners = {layers[i].fqn.rpartition(":")[0] for i in choiceless if not layers[i].inputs}
    prefixes = tuple(f"{owner}." if owner else "" for owner in owners)
    if not prefixes:
        return set()
    return {
        index
        for index, param in enumerate(reading.topology.params)
        if f"{param.module}.".startswith(prefixes)
        and reading.param_gradient[index] < rounding_share
    }


def _feeds_only(reading: Reading, index: int, choiceless: set[int]) -> bool:
    """Whether all that a parameter computes ends in one of these softmaxes."""
    topology = reading.topology
    calls = topology.calls[index]
    ahead = reach(calls, lambda call: set(topology.consumers[call]) - choiceless)
    users = [set(topology.consumers[call]) for call in ahead]
    return bool(calls) and all(users) and any(layers & choiceless for layers in users)


@lru_cache(maxsize=16)
def _find_shared(topology: Topology) -> frozenset[int]:
    """Parameters of which several layers use what their module computes."""
    users = [
        {user for call in calls for user in topology.consumers[call]} for calls in topology.calls
    ]
    return frozenset(index for index, found in enumerate(users) if len(found) > 1)


def _cancels(reading: Reading, index: int) -> bool:
    """Whether several layers want something of an output, and all in all nothing.

    What a call without a slope, such as ``round``, does to it is known by its line.
    """
    topology, grad = reading.topology, reading.grad
    calls = topology.calls[index]
    flat = {name for cut in topology.layer_set.cuts for name in cut.layers}
    if not calls or any(grad[call] != 0 or topology.layers[call].fqn in flat for call in calls):
        return False
    users = {user for call in calls for user in topology.consumers[call]}
    return len([user for user in users if grad[user] > 0]) > 1
