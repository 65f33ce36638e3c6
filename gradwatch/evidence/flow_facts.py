"""What follows from records about the gradient on its way back, one row per record.

Each is a function of a ``RecordTable``; ``Reading`` says in words what it measures.
"""

from __future__ import annotations

import numpy as np

from gradwatch.evidence.record_table import RecordTable
from gradwatch.evidence.spreading import spread_back
from gradwatch.evidence.topology import Mask
from gradwatch.records import Array

ROUNDED_NORM = 1e-25
"""Stands for a norm that float32 rounded to zero although some elements are not zero."""


@np.errstate(all="ignore")
def compare_sensitivities(table: RecordTable) -> Array:
    """``Reading.sensitivity`` of each record.

    Args:
        table: of the records.
    """
    topology = table.topology
    own = table.param("grad_l2_norm") * table.param("weight_l2_norm")
    own = np.where(topology.is_judged & np.isfinite(own), own, np.nan)
    everything = np.fmax.reduce(own, axis=1, initial=np.nan)
    largest = topology.spread_to_calls(np.where(np.isnan(own), 0.0, own))
    reference = topology.reduce_calls(np.maximum, spread_back(topology, largest), 0.0)
    reference[:, topology.is_bare] = everything[:, None]
    result: Array = own / reference
    return result


def read_grads(table: RecordTable) -> Array:
    """``Reading.grad`` of each record, with rounding to zero distinguished from true zeros.

    Args:
        table: of the records.
    """
    grad: Array = table.layer("grad_output_l2_norm").copy()
    grad[(grad == 0) & (table.layer("grad_zero_fraction") < 1)] = ROUNDED_NORM
    return grad


def list_grads(table: RecordTable) -> list[list[float]]:
    """The same as Python's numbers, for walks from layer to layer.

    Args:
        table: of the records.

    Returns:
        A list of floats for each record.
    """
    rows: list[list[float]] = table.ask(read_grads).tolist()
    return rows


def list_references(table: RecordTable) -> list[list[float]]:
    """``Reading.reference`` of each record as Python's numbers.

    Args:
        table: of the records.
    """
    rows: list[list[float]] = table.ask(spread_references).tolist()
    return rows


@np.errstate(all="ignore")
def relate_gradients(table: RecordTable) -> Array:
    """``Reading.relative_gradient`` of each record.

    Args:
        table: of the records.
    """
    return np.minimum(table.ask(read_grads) / table.ask(spread_references), 1.0)


@np.errstate(all="ignore")
def measure_gains(table: RecordTable) -> Array:
    """``Reading.gains`` of each record.

    Args:
        table: of the records.
    """
    gains: Array = table.layer("grad_input_l2_norm") / table.ask(read_grads)
    return gains


@np.errstate(all="ignore")
def measure_update_ratios(table: RecordTable) -> Array:
    """``Reading.update_ratio`` of each record.

    Args:
        table: of the records.
    """
    ratio: Array = table.param("update_l2_norm") / table.param("weight_l2_norm")
    return ratio


@np.errstate(all="ignore")
def measure_updates(table: RecordTable, weight_floor: float) -> Array:
    """``Reading.measure_update`` of each record.

    Args:
        table: of the records.
        weight_floor: share of LeCun's norm.
    """
    floor = weight_floor * table.topology.lecun_norm
    ratio: Array = table.param("update_l2_norm") / np.fmax(table.param("weight_l2_norm"), floor)
    return ratio


def find_arrived(table: RecordTable) -> Mask:
    """``Reading.has_arrived`` of each record.

    Args:
        table: of the records.
    """
    arrived = np.isfinite(table.ask(read_grads))
    result: Mask = table.topology.reduce_calls(np.logical_or, arrived, False)
    return result


def find_called(table: RecordTable) -> Mask:
    """``Reading.was_called`` of each record.

    Args:
        table: of the records.
    """
    measured = ~np.isnan(table.layer("output_l2_norm"))
    called: Mask = table.topology.reduce_calls(np.logical_or, measured, False)
    return called | table.topology.is_bare


def find_judged(table: RecordTable) -> Mask:
    """``Reading.judged`` of each record.

    Args:
        table: of the records.
    """
    topology, present = table.topology, ~np.isnan(table.param("grad_l2_norm"))
    result: Mask = topology.is_judged & present & (table.ask(find_arrived) | topology.is_bare)
    return result


def gather_gradients(table: RecordTable) -> Array:
    """``Reading.param_gradient`` of each record.

    Args:
        table: of the records.
    """
    relative = table.ask(relate_gradients)
    result: Array = table.topology.reduce_calls(np.fmax, relative, np.nan)
    for index, inner in table.topology.inner_layers.items():
        result[:, index] = np.fmin.reduce(relative[:, list(inner)], axis=1)
    return result


def gather_references(table: RecordTable) -> Array:
    """``Reading.param_reference`` of each record.

    Args:
        table: of the records.
    """
    result: Array = table.topology.reduce_calls(np.fmax, table.ask(spread_references), np.nan)
    return result


def find_gradientless(table: RecordTable) -> Mask:
    """``Reading.is_unasked`` of each record.

    Args:
        table: of the records.
    """
    topology = table.topology
    nowhere: Mask = np.isnan(table.ask(gather_references)) & ~topology.is_bare
    if not np.count_nonzero(nowhere):
        return nowhere
    acts = np.array([layer.role == "activation" for layer in topology.layers], dtype=bool)
    grads = table.ask(read_grads)
    asked = np.isfinite(grads) & acts & ~topology.is_outside
    sent = spread_back(topology, np.where(asked, grads, 0.0))
    nowhere &= ~(topology.reduce_calls(np.fmax, sent, 0.0) > 0)
    return nowhere


def measure_error_signals(table: RecordTable) -> Array:
    """``Reading.error_signal`` of each record.

    Args:
        table: of the records.
    """
    topology = table.topology
    chosen = table.ask(read_grads)[:, topology.is_head & topology.is_reference]
    return measure_row_norms(chosen, np.isfinite(chosen), missing=np.nan)


def measure_row_norms(values: Array, chosen: Mask, missing: float = 0.0) -> Array:
    """Euclidean norm of some of each record's numbers.

    Args:
        values: ``(n_records, n)``.
        chosen: which of them ``(n_records, n)``.
        missing: the norm of none at all.

    Returns:
        float64 ``(n_records,)``.

    Example:
        >>> values = np.array([[3.0, 4.0, np.nan], [np.nan] * 3])
        >>> measure_row_norms(values, np.isfinite(values)).tolist()
        [5.0, 0.0]
    """
    kept = (row[mask] for row, mask in zip(values, chosen, strict=True))
    squares = [float(row.dot(row)) if row.size else missing**2 for row in kept]
    norms: Array = np.sqrt(np.array(squares, dtype=np.float64))
    return norms


@np.errstate(all="ignore")
def measure_output_gains(table: RecordTable) -> Array:
    """``Reading.output_gain`` of each record.

    Args:
        table: of the records.
    """
    grad = table.ask(read_grads)
    finite = np.where(np.isfinite(grad), grad, 0.0)
    largest = np.max(finite, axis=1, initial=0.0)
    inner = np.max(finite[:, table.topology.is_reference], axis=1, initial=0.0)
    return np.where(largest > 0, inner / largest, np.nan)


def read_param_gradients(table: RecordTable) -> Array:
    """Gradient norms of the parameters; what float32 rounded to zero is ``ROUNDED_NORM``.

    Args:
        table: of records.

    Returns:
        float64 ``(n_records, n_params)``; 0 where every element sampled is 0, NaN without one.

    Example:
        >>> from gradwatch.evidence.worked_example import make_record
        >>> rows = {"grad_l2_norm": 0.0, "zero_fraction": (0.5, 1.0)}
        >>> read_param_gradients(RecordTable([make_record(param=rows)])).tolist()
        [[1e-25, 0.0]]
    """
    grad: Array = table.param("grad_l2_norm").copy()
    grad[(grad == 0) & (table.param("zero_fraction") < 1)] = ROUNDED_NORM
    return grad


def spread_references(table: RecordTable) -> Array:
    """``Reading.reference`` of each record.

    Args:
        table: of the records.
    """
    grads, topology = table.ask(read_grads), table.topology
    finite = np.where(np.isfinite(grads), grads, 0.0)
    references = spread_back(topology, np.where(topology.is_reference, finite, 0.0))
    references[references == 0] = np.nan
    return references


def measure_output_rms(table: RecordTable) -> Array:
    """``measure_rms`` of each record.

    Args:
        table: of the records.
    """
    rms: Array = table.layer("output_l2_norm") / np.sqrt(table.topology.output_numel)
    return rms
