"""Who attenuates the gradient: the product of gains along a path, split by role.

On the way from the reference (where the gradient is full) back to a layer that gets too little,
each layer multiplies the gradient's norm by its gain. Activations contribute phi', weights W,
normalisation its own; what no layer accounts for is a constant factor in forward.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gradwatch.evidence.culprits import bends, find_culprit, log_ratio
from gradwatch.evidence.feeders import is_wrapped
from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.paths import LEAST_NORM, find_block, find_fed_path
from gradwatch.records import Layer
from gradwatch.schema.activations import RECTIFIER_GAIN, Activation, find_activation
from gradwatch.thresholds import Thresholds

RECTIFIER_LOG_GAIN = -math.log(RECTIFIER_GAIN)
"""A rectifier passes half of the gradient's energy; He's initialisation (2015) makes up for it in
the weights, so that much of a rectifier's loss is the weights' business."""

LIKE_FACTOR = math.log(1.5)
"""Factors that differ by less from their mean may be spoken of as those of each layer; it decides
nothing but words."""

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
        path: layers from the one that gets too little (excluded) to the reference (included).
        activation, weight, norm, other: share of each role.
        n_activations, n_weights, n_norms: how many of them stand on the path.
        derivative: mean |phi'| against its maximum over the path's saturating activations; NaN
            without.
        saturated: largest saturated fraction of the path's one-sided activations and softmaxes; NaN
            without.
        dead: largest share of silent units among the path's rectifiers; NaN without.
        blocked_by: layer that lets nothing through at all, or -1.
        culprit: layer on a long path that takes most of what is lost, or -1.
        factors: by layer of the path, the logarithm of what it multiplies the gradient by.
        gaps: by layer of the path, the logarithm of what is lost between it and the one before,
            which no layer accounts for: a factor in forward, or in a module that is only one.
        n_rounded: layers on the path where the gradient is below what float32 holds, of which no
            factor is known.
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
    saturated: float
    dead: float
    blocked_by: int
    culprit: int = -1
    factors: dict[int, float] = field(default_factory=dict)
    gaps: dict[int, float] = field(default_factory=dict)
    shift: float = 0.0
    n_norms: int = 0
    n_rounded: int = 0

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
        """What each layer of a role on the path multiplies the gradient by, as measured.

        Args:
            layers: of the layer set, in order.
            role: as in ``Layer.role``.

        Returns:
            Factors of the gradient's norm, 1 for a layer that changes nothing, in the path's order.
        """
        return [math.exp(log) for i, log in self.factors.items() if layers[i].role == role]


def attribute(reading: Reading, start: int, thresholds: Thresholds) -> Attribution:
    """Split the attenuation between a layer and its reference, in natural logarithms.

    A layer's factor is its gain ``||dL/dx|| / ||dL/dy||``; what is lost between one layer's output
    and the next one's input is "other", a constant factor in forward.

    Args:
        reading: of one record.
        start: index of the layer that gets too little.
        thresholds: ``dominant_share``, ``dominant_stages``, ``plain_factor``, ``closed_softmax``.

    Source:
        He et al. (2015), section 2.2, for the half that a rectifier drops.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> from gradwatch.thresholds import Thresholds
        >>> split = attribute(make_reading(), 0, Thresholds())  # fc0 gets 1/32
        >>> split.path, round(1 / math.exp(split.total), 3)
        ((1, 2), 32.0)
        >>> split.list_gains(make_reading().topology.layers, "activation")
        [0.25]
    """
    path, layers = find_fed_path(reading, start), reading.topology.layers
    grad, gains = reading.grad.tolist(), reading.gains.tolist()
    shares = {"activation": 0.0, "weight": 0.0, "norm": 0.0, "other": 0.0}
    counts = {"activation": 0, "weight": 0, "norm": 0, "other": 0, "rounded": 0}
    factors: dict[int, float] = {}
    gaps: dict[int, float] = {}
    source = start
    for index in path:
        role = _SHARES.get(layers[index].role, "other")
        above = grad[index]
        factor = log_ratio(grad[source], above)
        if grad[source] < LEAST_NORM and not above > LEAST_NORM:
            counts["rounded"] += 1
            source = index
            continue
        gain = gains[index]
        own = math.log(max(gain, LEAST_NORM / above)) if 0 < gain < math.inf else factor
        if role == "other" and bends(reading, source, index, own, thresholds):
            role = "activation"
        shares[role] += own
        factors[index] = own
        counts[role] += 1
        if role == "other" and not _was_measured(reading, index):
            factors[index], gaps[index] = 0.0, own
        elif is_wrapped(reading.topology, index):
            shares["activation"] += factor - own
            factors[index] = factor
        else:
            shares["other"] += factor - own
            gaps[index] = factor - own
        source = index
    blocked = find_block(reading, start)
    return _summarise(reading, path, shares, counts, blocked, factors, gaps, thresholds)


def attribute_by_slopes(reading: Reading, thresholds: Thresholds) -> Attribution | None:
    """The same where it is not known which layer feeds which: activations by their mean slope.

    What the slopes of all hidden activations do not account for is the weights' business.

    Args:
        reading: of one record.
        thresholds: see ``attribute``.

    Returns:
        ``None`` where no activation was measured, or no gradient.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> split = attribute_by_slopes(make_reading(), Thresholds())
        >>> round(1 / math.exp(split.activation)), round(1 / math.exp(split.weight))
        (4, 8)
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
    return _summarise(reading, tuple(inner), shares, counts, -1, factors, {}, thresholds)


def _summarise(
    reading: Reading,
    path: tuple[int, ...],
    shares: dict[str, float],
    counts: dict[str, int],
    blocked: int,
    factors: dict[int, float],
    gaps: dict[int, float],
    thresholds: Thresholds,
) -> Attribution:
    layers = reading.topology.layers
    acts = [i for i in path if layers[i].role == "activation"]
    rows = {i: row for i in acts if (row := find_activation(layers[i].type)) is not None}
    rectifying = [i for i, row in rows.items() if row.can_die]
    shift = RECTIFIER_LOG_GAIN * len(rectifying)
    measured = {i: log for i, log in factors.items() if _was_measured(reading, i)}
    return Attribution(
        path=path,
        activation=shares["activation"] - shift,
        weight=shares["weight"] + shift,
        norm=shares["norm"],
        other=shares["other"],
        n_activations=counts["activation"],
        n_weights=counts["weight"],
        derivative=_find_derivative(reading, rows),
        saturated=_find_saturated(reading, rows, thresholds),
        dead=_find_largest(reading.record.layer("dead_fraction")[rectifying]),
        blocked_by=blocked,
        culprit=find_culprit(measured, thresholds, list(gaps.values())),
        factors=factors,
        gaps=gaps,
        shift=shift,
        n_norms=counts.get("norm", 0),
        n_rounded=counts.get("rounded", 0),
    )


def _find_derivative(reading: Reading, rows: Mapping[int, Activation]) -> float:
    """Mean slope of what squashes, against its maximum."""
    mean = reading.record.layer("derivative_mean")
    relative = [
        mean[i] / row.maximum for i, row in rows.items() if row.squashes and row.is_elementwise
    ]
    return float(np.add.reduce(relative)) / len(relative) if relative else math.nan


def _find_saturated(
    reading: Reading, rows: Mapping[int, Activation], thresholds: Thresholds
) -> float:
    """Largest share of flat elements of what may rest; all those of a closed softmax are."""
    flat = [i for i, row in rows.items() if _may_rest(row)]
    closed = [
        not rows[i].is_elementwise and reading.gains[i] < thresholds.closed_softmax for i in flat
    ]
    return _find_largest(np.where(closed, 1.0, reading.record.layer("saturated_fraction")[flat]))


def _find_largest(shares: np.ndarray) -> float:
    return float(np.nanmax(shares)) if np.isfinite(shares).any() else math.nan


def _was_measured(reading: Reading, index: int) -> bool:
    """Whether a factor is the layer's own: what returns its input has none, nor has a container."""
    plain = reading.topology.layers[index].role in ("other", "container")
    return not plain or bool(np.isfinite(reading.gains[index]))


def _may_rest(row: Activation) -> bool:
    """Whether some flat elements are normal: on the one flat side, or in a sure softmax."""
    return (row.flat == "one" and not row.squashes) or not row.is_elementwise
