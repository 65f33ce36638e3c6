"""How the gradient changes on its way back through the layers.

Per layer, ``gain = ||dL/d(input)|| / ||dL/d(output)||``: what the layer multiplies the gradient
by. Per weight, sensitivity ``S = ||g|| * ||w||``: the change of the loss per relative change of
the weight, which is invariant to the scale of the loss's parametrisation and, in a positively
homogeneous network, the same for all layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby

import numpy as np

from gradwatch.evidence.topology import Mask, Topology, map_topology
from gradwatch.records import Array, StepRecord

ROUNDED_NORM = 1e-25
"""Stands for a norm that float32 rounded to zero although some elements are not zero."""


@dataclass(frozen=True)
class Reading:
    """A record with what follows from it; float64 ``(n_layers,)`` or ``(n_params,)``.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> reading = make_reading()
        >>> reading.relative_gradient.tolist(), reading.gains.tolist()
        ([0.03125, 0.125, 1.0], [nan, 0.25, 0.125])
        >>> reading.param_gradient.tolist(), reading.update_ratio.tolist()
        ([0.03125, 1.0], [0.00390625, 0.25])
        >>> reading.error_signal, reading.output_gain
        (1.0, 1.0)

    Attributes:
        record: the numbers as measured.
        topology: of its layer set.
        grad: gradient norm at each layer's output; NaN where none arrived.
        reference: largest gradient norm at or behind each layer on its way to the loss.
        sensitivity: ``||g||*||w||`` per judged parameter against the largest at or behind it on
            its way to the loss; one whose place is not known is held against all.
    """

    record: StepRecord
    topology: Topology
    grad: Array
    reference: Array
    sensitivity: Array
    _updates: dict[float, Array] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def relative_gradient(self) -> Array:
        """``||dL/dy||`` at each layer's output against the largest at or behind it; 1 is full."""
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            ratio: Array = self.grad / self.reference
        return np.minimum(ratio, 1.0)

    @cached_property
    def gains(self) -> Array:
        """``||dL/dx|| / ||dL/dy||``: what each layer multiplies the gradient's norm by; NaN when
        unknown. Source: Glorot & Bengio (2010), section 4.2.1."""
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            gains: Array = self.record.layer("grad_input_l2_norm") / self.grad
        return gains

    @cached_property
    def update_ratio(self) -> Array:
        """``||dw||/||w||`` per parameter, as measured; NaN without an update."""
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            ratio: Array = self.record.param("update_l2_norm") / self.record.param("weight_l2_norm")
        return ratio

    @cached_property
    def has_arrived(self) -> Mask:
        """Parameters for which a gradient reached some call of their module."""
        arrived = self.topology.gather(np.isfinite(self.grad), False)
        result: Mask = np.logical_or.reduce(arrived, axis=1)
        return result

    @cached_property
    def was_called(self) -> Mask:
        """Parameters whose module forward has called this step, as far as that can be seen."""
        measured = ~np.isnan(self.record.layer("output_l2_norm"))
        called: Mask = np.logical_or.reduce(self.topology.gather(measured, False), axis=1)
        return called | self.topology.is_bare

    @cached_property
    def judged(self) -> Mask:
        """Parameters whose standing still would do harm, and which got a gradient this step."""
        present = ~np.isnan(self.record.param("grad_l2_norm"))
        result: Mask = (
            self.topology.is_judged & present & (self.has_arrived | self.topology.is_bare)
        )
        return result

    @cached_property
    def param_gradient(self) -> Array:
        """Relative gradient at the best-fed call of each parameter's module; NaN without one."""
        result: Array = np.fmax.reduce(self.topology.gather(self.relative_gradient, np.nan), axis=1)
        for index, inner in self.topology.inner_layers.items():
            result[index] = np.fmin.reduce(self.relative_gradient[list(inner)])
        return result

    @cached_property
    def param_reference(self) -> Array:
        """Largest gradient on each parameter's way from the loss, its own error; NaN: none."""
        result: Array = np.fmax.reduce(self.topology.gather(self.reference, np.nan), axis=1)
        return result

    @cached_property
    def error_signal(self) -> float:
        """Gradient norm at the network's outputs, all heads together: how wrong it still is."""
        chosen = self.grad[self.topology.is_head & self.topology.is_reference]
        chosen = chosen[np.isfinite(chosen)]
        return float(np.linalg.norm(chosen)) if chosen.size else float("nan")

    @cached_property
    def is_unasked(self) -> Mask:
        """Parameters for which no gradient above zero stands anywhere on the way from the loss."""
        nowhere: Mask = np.isnan(self.param_reference) & ~self.topology.is_bare
        return nowhere

    @cached_property
    def output_gain(self) -> float:
        """Share of the gradient that passes the activations behind the last weights.

        Largest gradient at any weight's output against the largest at any layer's: 1 where the loss
        acts on a weight's output, next to 0 where an activation on the network's output is closed.
        NaN where no gradient was seen.
        """
        finite = np.where(np.isfinite(self.grad), self.grad, 0.0)
        largest = float(np.max(finite, initial=0.0))
        inner = float(np.max(finite[self.topology.is_reference], initial=0.0))
        return inner / largest if largest > 0 else float("nan")

    def measure_update(self, weight_floor: float) -> Array:
        """Update ratio ``||dw|| / max(||w||, floor)`` per parameter.

        Args:
            weight_floor: share of LeCun's norm ``sqrt(rows)`` that a smaller weight counts as.

        Returns:
            float64 ``(n_params,)``; NaN without an update. The array is kept: do not write to it.

        Example:
            >>> from gradwatch.evidence.worked_example import make_reading
            >>> make_reading().measure_update(0.1).tolist()
            [0.00390625, 0.25]
        """
        known = self._updates.get(weight_floor)
        if known is not None:
            return known
        floor = weight_floor * self.topology.lecun_norm
        weight = np.fmax(self.record.param("weight_l2_norm"), floor)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            ratio: Array = self.record.param("update_l2_norm") / weight
        self._updates[weight_floor] = ratio
        return ratio


def read_flow(records: Sequence[StepRecord]) -> list[Reading]:
    """Readings of many records at once; those of one layer set in a row share the walk.

    Args:
        records: in order.

    Example:
        >>> from gradwatch.evidence.worked_example import make_record
        >>> (reading,) = read_flow([make_record()])
        >>> reading.relative_gradient.tolist(), reading.sensitivity.round(3).tolist()
        ([0.03125, 0.125, 1.0], [0.062, 1.0])
    """
    readings: list[Reading] = []
    for _, group in groupby(records, key=lambda record: id(record.layer_set)):
        readings.extend(_read_group(list(group)))
    return readings


def _read_group(records: list[StepRecord]) -> list[Reading]:
    topology = map_topology(records[0].layer_set)
    grads = np.stack([_read_grad(record) for record in records])
    references = _spread_references(topology, grads)
    sensitivities = _compare_sensitivities(topology, records, grads)
    return [
        Reading(record, topology, *rows)
        for record, *rows in zip(records, grads, references, sensitivities, strict=True)
    ]


def _compare_sensitivities(topology: Topology, records: list[StepRecord], grads: Array) -> Array:
    """Sensitivity of each parameter against the largest behind it, ``(steps, params)``."""
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        own = np.stack([_read_sensitivity(record) for record in records])
        own = np.where(topology.is_judged & np.isfinite(own), own, np.nan)
        everything = np.fmax.reduce(own, axis=1, initial=np.nan)
        largest = np.zeros((len(records), len(topology.layers) + 1))  # the last one: no call
        for calls in topology.call_table.T:
            chosen = calls >= 0
            np.maximum.at(largest.T, calls[chosen], np.nan_to_num(own[:, chosen]).T)
        behind = spread_back(topology, largest[:, :-1])
        behind = np.concatenate([behind, np.zeros((len(records), 1))], axis=1)
        reference = behind[:, topology.call_table].max(axis=2)
        reference[:, topology.is_bare] = everything[:, None]
        result: Array = own / reference
    return result


def _read_sensitivity(record: StepRecord) -> Array:
    return record.param("grad_l2_norm") * record.param("weight_l2_norm")


def _read_grad(record: StepRecord) -> Array:
    """Gradient norms, with rounding to zero distinguished from true zeros."""
    grad: Array = record.layer("grad_output_l2_norm").copy()
    rounded = (grad == 0) & (record.layer("grad_zero_fraction") < 1)
    grad[rounded] = ROUNDED_NORM
    return grad


def read_param_gradients(record: StepRecord) -> Array:
    """Gradient norms of the parameters; what float32 rounded to zero is ``ROUNDED_NORM``.

    Args:
        record: of one step.

    Returns:
        float64 ``(n_params,)``; 0 where every element sampled is 0, NaN without a gradient.

    Example:
        >>> from gradwatch.evidence.worked_example import make_record
        >>> rows = {"grad_l2_norm": 0.0, "zero_fraction": (0.5, 1.0)}
        >>> read_param_gradients(make_record(param=rows)).tolist()
        [1e-25, 0.0]
    """
    grad: Array = record.param("grad_l2_norm").copy()
    grad[(grad == 0) & (record.param("zero_fraction") < 1)] = ROUNDED_NORM
    return grad


def _spread_references(topology: Topology, grads: Array) -> Array:
    """Largest gradient at or behind each layer, ``(steps, layers)``."""
    finite = np.where(np.isfinite(grads), grads, 0.0)
    references = spread_back(topology, np.where(topology.is_reference, finite, 0.0))
    references[references == 0] = np.nan
    return references


def spread_back(topology: Topology, values: Array) -> Array:
    """Largest value at or behind each layer: one walk from the loss back, in place.

    Args:
        topology: of the network.
        values: float64 ``(steps, n_layers)``, not NaN; is written to.

    Returns:
        The same array.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> spread_back(make_reading().topology, np.array([[1.0, 3.0, 2.0]])).tolist()
        [[3.0, 3.0, 2.0]]
    """
    for index in range(len(topology.layers) - 1, -1, -1):
        for source in topology.layers[index].inputs:
            if source < index:
                np.maximum(values[:, source], values[:, index], out=values[:, source])
    return values


def measure_rms(reading: Reading) -> Array:
    """Root mean square ``||y|| / sqrt(n)`` of each layer's output.

    Args:
        reading: of one record.

    Returns:
        float64 ``(n_layers,)``; NaN where no output was measured.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> measure_rms(make_reading()).round(2).tolist()
        [1.0, 0.5, 1.41]
    """
    rms: Array = reading.record.layer("output_l2_norm") / np.sqrt(reading.topology.output_numel)
    return rms
