"""What no gradient can move by construction: attention over one key, f(x) - x where f(x) is x."""

from __future__ import annotations

import numpy as np

from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.paths import reach
from gradwatch.schema.activations import find_activation

NO_CHOICE = "its softmax has one key to choose from, so that queries and keys change nothing"
CANCELS = (
    "what uses its output sends back gradients that add up to zero, as x - f(x) does for f(x) = x"
)
"""Reasons, as phrases."""

ZERO_SHARE = 1e-6
"""A gradient below this share of the full one is what float32 leaves of an exact zero."""


def find_idle(reading: Reading, profile: float) -> dict[str, list[int]]:
    """Trainable parameters that an optimizer holds and nothing can teach, by the reason.

    Args:
        reading: of one record.
        profile: see ``Thresholds.profile``; more gradient than that is no rounding.

    Returns:
        Indices of parameters by ``NO_CHOICE`` or ``CANCELS``; a reason without any is left out.

    Example:
        >>> from gradwatch.evidence.worked_example import make_layer_set, make_reading
        >>> no_choice = {"derivative_mean": (np.nan, 0.0, np.nan), "grad_output_l2_norm": (0, 0, 1)}
        >>> find_idle(make_reading(layer=no_choice, layer_set=make_layer_set("Softmax")), 1e-3)
        {'its softmax has one key to choose from, so that queries and keys change nothing': [0]}
    """
    params = reading.topology.params
    with np.errstate(invalid="ignore"):
        faint = ~(reading.param_gradient >= profile)
    judged = [
        i for i, param in enumerate(params) if param.trainable and param.optimized and faint[i]
    ]
    choiceless = _find_choiceless(reading)
    owners = _find_owners(reading, choiceless)
    found = {
        NO_CHOICE: [
            i for i in judged if choiceless and _feeds_only(reading, i, choiceless, owners)
        ],
        CANCELS: [i for i in judged if _cancels(reading, i)],
    }
    return {reason: indices for reason, indices in found.items() if indices}


def _find_choiceless(reading: Reading) -> set[int]:
    """Softmaxes over a single value, which is always 1."""
    slope = reading.record.layer("derivative_mean")
    saturated = reading.record.layer("saturated_fraction")
    layers = reading.topology.layers
    flat = np.flatnonzero((slope == 0) & (saturated == 0)).tolist()
    return {index for index in flat if _mixes(layers[index].type)}


def _mixes(kind: str) -> bool:
    row = find_activation(kind)
    return row is not None and not row.is_elementwise


def _find_owners(reading: Reading, choiceless: set[int]) -> tuple[str, ...]:
    """Modules with such a softmax in one kernel, which is no link in the flow; a dot behind."""
    layers = reading.topology.layers
    owners = {layers[i].fqn.rpartition(":")[0] for i in choiceless if not layers[i].inputs}
    return tuple(f"{owner}." if owner else "" for owner in owners)


def _feeds_only(
    reading: Reading, index: int, choiceless: set[int], owners: tuple[str, ...]
) -> bool:
    """Whether all that a parameter computes ends in one of these softmaxes."""
    topology = reading.topology
    is_rounding = reading.param_gradient[index] < ZERO_SHARE
    if is_rounding and f"{topology.params[index].module}.".startswith(owners):
        return True
    calls = topology.calls[index]
    ahead = reach(calls, lambda call: set(topology.consumers[call]) - choiceless)
    users = [set(topology.consumers[call]) for call in ahead]
    return bool(calls) and all(users) and any(layers & choiceless for layers in users)


def _cancels(reading: Reading, index: int) -> bool:
    """Whether several layers want something of an output, and all in all nothing.

    What a call without a slope, such as ``round``, does to it is known by its line.
    """
    topology = reading.topology
    calls = topology.calls[index]
    flat = {name for cut in topology.layer_set.cuts for name in cut.layers}
    if not calls or any(
        reading.grad[call] != 0 or topology.layers[call].fqn in flat for call in calls
    ):
        return False
    users = {user for call in calls for user in topology.consumers[call]}
    return len([user for user in users if reading.grad[user] > 0]) > 1
