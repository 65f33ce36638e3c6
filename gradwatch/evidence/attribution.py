"""Who attenuates the gradient: the product of gains along a path, split by role.

On the way from the reference (where the gradient is full) back to a starved layer, each layer
multiplies the gradient's norm by its gain. Activations contribute phi', weights W, normalisation
its own; what no layer accounts for is a constant factor in forward.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.topology import Topology
from gradwatch.records import Layer
from gradwatch.schema.activations import RECTIFIER_GAIN, Activation, find_activation

RECTIFIER_LOG_GAIN = -math.log(RECTIFIER_GAIN)
"""A rectifier passes half of the gradient's energy; He's initialisation (2015) makes up for it in
the weights, so that much of a rectifier's loss is the weights' business."""

MILD_LOG = math.log(2)
"""Factors nearer to 1 than this are too small to tell what they come from."""

CLOSED_SOFTMAX = 1e-3
"""A softmax over n equal entries multiplies a gradient by 1/n; far below that it is nearly one-hot
in the rows that the gradient reaches, however many of the other rows are."""

LEAST_NORM = 1e-18
"""Norms below it are made of elements whose squares float32 rounds (its least normal number is
1.2e-38): a quotient of two of them is no gain."""

DOMINANT = 0.5
"""A layer that takes this share of all that is lost, in logarithms, is to blame by itself."""

MANY_STAGES = 3
"""Layers on a path from which it says something that one of them takes most."""

LIKE_FACTOR = math.log(3)
"""Factors that differ by less from their mean may be spoken of as those of each layer."""

_SHARES = {
    "activation": "activation",
    "weight": "weight",
    "recurrent": "weight",
    "embedding": "weight",
    "norm": "norm",
}


@dataclass(frozen=True)
class Attribution:
    """Attenuation along one path, in natural logarithms (negative: the gradient shrinks).

    Attributes:
        path: layers from the starved one (excluded) to the reference (included).
        activation, weight, norm, other: share of each role.
        n_activations, n_weights: how many of them stand on the path.
        derivative: mean |phi'| against its maximum over the path's saturating activations; NaN
            without.
        pinned: largest saturated fraction of the path's one-sided activations and softmaxes; NaN
            without.
        dead: largest share of silent units among the path's rectifiers; NaN without.
        blocked_by: layer that lets nothing through at all, or -1.
        culprit: layer on a long path that takes most of what is lost, or -1.
        factors: by layer of the path, the logarithm of what it multiplies the gradient by.
        shift: what rectifiers' share has been relieved of, at the weights' expense.
    """

    path: tuple[int, ...]
    activation: float
    weight: float
    norm: float
    other: float
    n_activations: int
    n_weights: int
    derivative: float
    pinned: float
    dead: float
    blocked_by: int
    culprit: int = -1
    factors: dict[int, float] = field(default_factory=dict)
    shift: float = 0.0

    @property
    def total(self) -> float:
        """Logarithm of the gradient's share that arrives."""
        return self.activation + self.weight + self.norm + self.other

    @property
    def measured_activation(self) -> float:
        """Activations' share without the shift for rectifiers."""
        return self.activation + self.shift

    @property
    def measured_weight(self) -> float:
        """Weights' and constant factors' share without the shift for rectifiers."""
        return self.weight + self.other - self.shift

    def list_gains(self, layers: Sequence[Layer], role: str) -> list[float]:
        """What each layer of a role on the path multiplies the gradient by, as measured."""
        return [math.exp(log) for i, log in self.factors.items() if layers[i].role == role]


def find_path(reading: Reading, start: int) -> tuple[int, ...]:
    """Layers from one behind ``start`` to its reference, each time the best-fed consumer."""
    reference, here = reading.reference[start], start
    path: list[int] = []
    seen = {start}
    while True:
        ahead = [c for c in reading.topology.consumers[here] if c not in seen]
        ahead = [c for c in ahead if reading.reference[c] >= reference]
        if not ahead or reading.grad[here] >= reference:
            return tuple(path)
        here = max(ahead, key=lambda c: _rank(float(reading.grad[c])))
        seen.add(here)
        path.append(here)


def _rank(value: float) -> float:
    return value if np.isfinite(value) else -1.0


def attribute(reading: Reading, start: int) -> Attribution:
    """Split the attenuation between ``start`` and its reference."""
    path = find_path(reading, start)
    shares = {"activation": 0.0, "weight": 0.0, "norm": 0.0, "other": 0.0}
    counts = {"activation": 0, "weight": 0, "norm": 0, "other": 0}
    factors: dict[int, float] = {}
    blocked, source = -1, start
    for index in path:
        role = _SHARES.get(reading.topology.layers[index].role, "other")
        factor = _log_ratio(reading.grad[source], reading.grad[index])
        if 0 < reading.grad[source] < LEAST_NORM:
            source = index
            continue
        gain = float(reading.gains[index])
        own = math.log(gain) if 0 < gain < math.inf else factor
        if reading.grad[source] == 0 and reading.grad[index] > LEAST_NORM:
            blocked = index
        if role == "other" and _bends(reading, source, index, own):
            role = "activation"
        shares[role] += own
        factors[index] = own
        counts[role] += 1
        shares["activation" if _find_wrapper(reading, index) else "other"] += factor - own
        source = index
    return _summarise(reading, path, shares, counts, blocked, factors)


def attribute_by_slopes(reading: Reading) -> Attribution | None:
    """The same where it is not known which layer feeds which: activations by their mean slope.

    What the slopes of all hidden activations do not account for is the weights' business. ``None``
    where no activation was measured, or no gradient.
    """
    layers, mean = reading.topology.layers, reading.record.layer("derivative_mean")
    inner = [i for i, layer in enumerate(layers) if layer.role == "activation" and mean[i] > 0]
    grads = reading.grad[np.isfinite(reading.grad) & (reading.grad > LEAST_NORM)]
    if not inner or not grads.size:
        return None
    total = math.log(float(np.min(grads) / np.max(grads)))
    factors = {i: math.log(float(mean[i])) for i in inner}
    activation = max(sum(factors.values()), total)
    n_weights = sum(layer.role == "weight" for layer in layers)
    shares = {"activation": activation, "weight": total - activation, "norm": 0.0, "other": 0.0}
    counts = {"activation": len(inner), "weight": n_weights}
    return _summarise(reading, tuple(inner), shares, counts, -1, factors)


def find_culprit(factors: dict[int, float]) -> int:
    """Layer that takes most of what is lost on a path of several; -1 when they share it."""
    lost = {index: log for index, log in factors.items() if log < 0}
    if len(factors) < MANY_STAGES or not lost:
        return -1
    worst = min(lost, key=lambda index: lost[index])
    return worst if lost[worst] <= DOMINANT * sum(lost.values()) else -1


def find_opening(reading: Reading, indices: Iterable[int], opening: float) -> set[int]:
    """Parameters behind a bottleneck that is opening by itself.

    A branch that begins at zero (ReZero, a zero-initialised last layer, LayerScale) lets nothing
    through at first, but its factor moves fast against its own size: it is made to open. The
    weights of a network that starves stand still where the gradient is lost.
    """
    topology = reading.topology
    return {
        index
        for index in indices
        if _is_opening(reading, find_bottleneck(reading, topology.calls[index]), opening)
        and has_way_around(topology, topology.calls[index][0])
    }


def has_way_around(topology: Topology, layer: int) -> bool:
    """Whether what comes before a layer reaches what comes behind it without passing through it."""
    before = reach([layer], lambda index: topology.layers[index].inputs)
    behind = reach([layer], lambda index: topology.consumers[index])
    around = reach(before - {layer}, lambda index: topology.consumers[index], avoid=layer)
    return bool(around & (behind - {layer}))


def reach(
    starts: Iterable[int], follow: Callable[[int], Iterable[int]], avoid: int = -1
) -> set[int]:
    """These layers and all that following from them leads to, never through ``avoid``."""
    found = set(starts)
    ahead = list(found)
    while ahead:
        fresh = [one for one in follow(ahead.pop()) if one not in found and one != avoid]
        found.update(fresh)
        ahead.extend(fresh)
    return found


def find_bottleneck(reading: Reading, calls: Iterable[int]) -> int:
    """Layer that takes most of what is lost on the way to the loss; -1 when none takes half."""
    known = [call for call in calls if np.isfinite(reading.relative_gradient[call])]
    if not known:
        return -1
    source = max(known, key=lambda call: float(reading.relative_gradient[call]))
    whole = float(reading.relative_gradient[source])
    drops = [(1.0, -1)]
    for index in find_path(reading, source):
        own = float(reading.gains[index])
        is_join = reading.topology.layers[index].role in ("container", "other")
        if np.isnan(own) and is_join:  # a factor of a block's own, such as ReZero's
            own = float(reading.grad[source] / reading.grad[index])
        drops.append((own if np.isfinite(own) else 1.0, index))
        source = index
    drop, layer = min(drops)
    return layer if drop * drop <= whole else -1


def _is_opening(reading: Reading, layer: int, opening: float) -> bool:
    if layer < 0:
        return False
    owner = reading.topology.layers[layer].fqn
    update = reading.record.param("update_l2_norm")
    weight = reading.record.param("weight_l2_norm")
    return any(
        update[index] > opening * weight[index]
        for index, param in enumerate(reading.topology.params)
        if param.module == owner and param.trainable and param.role != "bias"
    )


def _bends(reading: Reading, source: int, index: int, own: float) -> bool:
    """Whether an unknown layer acts as an activation: a plain factor scales outputs alike.

    A function of degree one (a factor, a mean) multiplies the signal forward by what it multiplies
    the gradient by backward (Euler); where the two differ, a derivative is at work.
    """
    if len(reading.topology.layers[index].inputs) != 1 or abs(own) < MILD_LOG:
        return False
    size = reading.topology.output_numel
    rms = reading.record.layer("output_l2_norm") / np.sqrt(size)
    return abs(_log_ratio(rms[index], rms[source]) - own) > abs(own) / 2


def _find_wrapper(reading: Reading, index: int) -> bool:
    """Whether an activation is called inside a module made for it, which may scale its input."""
    layer = reading.topology.layers[index]
    owner, _, function = layer.fqn.rpartition(":")
    if layer.role != "activation" or not owner or not function:
        return False
    return not any(
        param.module == owner or param.module.startswith(f"{owner}.")
        for param in reading.topology.params
    )


def _log_ratio(below: float, above: float) -> float:
    if below > 0 and above > 0 and np.isfinite(below) and np.isfinite(above):
        return math.log(below) - math.log(above)
    return 0.0


def _summarise(
    reading: Reading,
    path: tuple[int, ...],
    shares: dict[str, float],
    counts: dict[str, int],
    blocked: int,
    factors: dict[int, float],
) -> Attribution:
    layers = reading.topology.layers
    acts = [i for i in path if layers[i].role == "activation"]
    rows = {i: row for i in acts if (row := find_activation(layers[i].type)) is not None}
    mean = reading.record.layer("derivative_mean")
    relative = [
        mean[i] / row.maximum for i, row in rows.items() if row.squashes and row.is_elementwise
    ]
    rectifying = [i for i, row in rows.items() if row.can_die]
    flat = [i for i, row in rows.items() if _may_rest(row)]
    pinned = reading.record.layer("saturated_fraction")[flat]
    closed = [not rows[i].is_elementwise and reading.gains[i] < CLOSED_SOFTMAX for i in flat]
    pinned = np.where(closed, 1.0, pinned)
    dead = reading.record.layer("dead_fraction")[rectifying]
    shift = RECTIFIER_LOG_GAIN * len(rectifying)
    return Attribution(
        path=path,
        activation=shares["activation"] - shift,
        weight=shares["weight"] + shift,
        norm=shares["norm"],
        other=shares["other"],
        n_activations=counts["activation"],
        n_weights=counts["weight"],
        derivative=float(np.mean(relative)) if relative else math.nan,
        pinned=float(np.nanmax(pinned)) if np.isfinite(pinned).any() else math.nan,
        dead=float(np.nanmax(dead)) if np.isfinite(dead).any() else math.nan,
        blocked_by=blocked,
        culprit=find_culprit(factors),
        factors=factors,
        shift=shift,
    )


def _may_rest(row: Activation) -> bool:
    """Whether some flat elements are normal: on the one flat side, or in a sure softmax."""
    return (row.flat == "one" and not row.squashes) or not row.is_elementwise
