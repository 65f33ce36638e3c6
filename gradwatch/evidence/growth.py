"""How gradients grow on their way back, and outputs on their way forward."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from gradwatch.evidence.flow_facts import measure_error_signals, measure_output_rms, read_grads
from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.record_table import RecordTable
from gradwatch.evidence.topology import Mask, Topology
from gradwatch.records import Array, Layer
from gradwatch.schema.activations import find_activation

SQUASHING = frozenset(("softmax", "sigmoid", "logsigmoid"))
"""Activations that make of any score a bounded weight, or its logarithm."""


def measure_output_growth(reading: Reading) -> Array:
    """Root mean square of each hidden layer's output against the larger of the first one's and 1.

    Args:
        reading: of one record.

    Returns:
        float64 ``(n_layers,)``; 1 for heads and where no output was measured.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> grown = make_reading(layer={"output_l2_norm": (4.0, 400.0, 4.0)})
        >>> measure_output_growth(grown).tolist()
        [1.0, 100.0, 1.0]
    """
    return reading.ask(_compare_outputs)


@np.errstate(all="ignore")
def _compare_outputs(table: RecordTable) -> Array:
    layers, rms = table.topology.layers, table.ask(measure_output_rms)
    known: Mask = np.isfinite(rms) & (rms > 0)
    first = known.argmax(axis=1) if layers else np.zeros(len(table), np.int64)
    is_recurrent = _find_recurrent(table.topology)
    scale = np.fmax(rms[np.arange(len(table)), first], 1.0) if layers else np.ones(len(table))
    scale = np.where(is_recurrent[first] if layers else False, 1.0, scale)
    growth = rms / scale[:, None]
    grows = (
        np.logical_or.reduce(known, axis=1)[:, None] & ~table.topology.is_head & np.isfinite(growth)
    )
    return np.where(grows, growth, 1.0)


@lru_cache(maxsize=16)
def _find_recurrent(topology: Topology) -> Mask:
    return np.array([layer.role == "recurrent" for layer in topology.layers], dtype=bool)


def measure_gradient_growth(reading: Reading, threshold: float) -> Array:
    """Gradient at each layer's output against that at the network's, where gains explain it.

    A loss on a hidden layer (an auxiliary head, a penalty) also makes its gradient larger than the
    one at the output; only growth that the layers' own gains account for is explosion.

    Args:
        reading: of one record.
        threshold: growth below which the gains are not asked.

    Returns:
        float64 ``(n_layers,)``; 1 where no gradient arrived.

    Source:
        Pascanu, Mikolov & Bengio (2013), section 2, for the product of gains.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> arriving, handed_on = (900.0, 30.0, 1.0), (np.nan, 900.0, 30.0)
        >>> rows = {"grad_output_l2_norm": arriving, "grad_input_l2_norm": handed_on}
        >>> measure_gradient_growth(make_reading(layer=rows), 10.0).round(2).tolist()
        [30.0, 1.0, 0.03]
    """
    growth = reading.ask(_compare_gradients)
    if np.max(growth, initial=1.0) < threshold:
        return growth
    return np.minimum(growth, _multiply_gains(reading))


@np.errstate(all="ignore")
def _compare_gradients(table: RecordTable) -> Array:
    growth = table.ask(read_grads) / _measure_references(table)[:, None]
    return np.where(np.isfinite(growth), growth, 1.0)


def _measure_references(table: RecordTable) -> Array:
    """Gradient where the hidden layers begin: behind the heads, whose scale is the target's."""
    topology, error = table.topology, table.ask(measure_error_signals)
    inputs = table.layer("grad_input_l2_norm")[:, topology.is_head & topology.is_reference]
    largest = np.where(np.isfinite(inputs), inputs, 0.0).max(axis=1, initial=0.0)
    return np.where(largest > error, largest, error)  # NaN where there is no error signal


def measure_largest_growth(table: RecordTable) -> Array:
    """The largest of the gradients' growth and of the outputs', gains not asked ``(n_records,)``.

    Args:
        table: of records.
    """
    outputs = np.where(find_squashed(table.topology), 1.0, table.ask(_compare_outputs))
    largest: Array = np.maximum(
        table.ask(_compare_gradients).max(axis=1, initial=1.0), outputs.max(axis=1, initial=1.0)
    )
    return largest


def _multiply_gains(reading: Reading) -> Array:
    """Largest product of gains on a way from the loss to each layer's output."""
    logs = np.log(np.where(reading.gains > 0, reading.gains, np.nan))
    total = np.zeros(len(logs))
    for index in range(len(logs) - 1, -1, -1):
        ways = [
            total[c] + (0.0 if np.isnan(logs[c]) else logs[c])
            for c in reading.topology.consumers[index]
            if c > index
        ]
        total[index] = max(ways, default=0.0)
    result: Array = np.exp(np.minimum(total, 300.0))
    return result


@lru_cache(maxsize=16)
def find_squashed(topology: Topology) -> Mask:
    """Outputs that only a softmax or sigmoid takes in: a large number there is a mask's -1e9.

    What weights return is not spared: that is no mask, however it is used.

    Args:
        topology: of the network.

    Returns:
        ``(n_layers,)``.
    """
    result: Mask = np.zeros(len(topology.layers), dtype=bool)
    for index in range(len(topology.layers) - 1, -1, -1):
        behind = topology.consumers[index]
        is_plain = topology.layers[index].role in ("other", "container")
        result[index] = (
            is_plain
            and len(behind) > 0
            and all(result[user] or _squashes(topology.layers[user]) for user in behind)
        )
    return result


def _squashes(layer: Layer) -> bool:
    row = find_activation(layer.type)
    return row is not None and row.name in SQUASHING
