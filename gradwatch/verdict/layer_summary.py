"""The layer table of a verdict, and how much of the model trains."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.history import History
from gradwatch.evidence.topology import Topology
from gradwatch.verdict.findings import LayerSummary, Trained


def summarise_layers(reading: Reading, flagged: set[str]) -> tuple[LayerSummary, ...]:
    """One row per layer of the newest step.

    Args:
        reading: of the newest record.
        flagged: fully qualified names that findings give.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> [(row.fqn, row.gain, row.flagged) for row in summarise_layers(make_reading(), {"act"})]
        [('fc0', nan, False), ('act', 0.25, True), ('fc1', 0.125, False)]
    """
    update = _spread_updates(reading)
    record = reading.record
    rectifies = np.isfinite(record.layer("zero_fraction"))  # its flat half is no saturation
    saturated = np.where(rectifies, np.nan, record.layer("saturated_fraction"))
    columns = (reading.relative_gradient, reading.gains, saturated, record.layer("dead_fraction"))
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return tuple(
        LayerSummary(
            fqn=layer.key,
            type=layer.type,
            role=layer.role,
            grad_ratio=grad_ratio,
            gain=gain,
            saturated_fraction=saturated_fraction,
            dead_fraction=dead_fraction,
            update_ratio=update.get(index, float("nan")),
            flagged=layer.fqn in flagged,
        )
        for index, (layer, (grad_ratio, gain, saturated_fraction, dead_fraction)) in enumerate(
            zip(reading.topology.layers, rows, strict=True)
        )
    )


def _spread_updates(reading: Reading) -> dict[int, float]:
    """Largest update ratio of a layer's weights, at the layer's calls."""
    found: dict[int, float] = {}
    topology, ratios = reading.topology, reading.update_ratio.tolist()
    for calls, param, value in zip(topology.calls, topology.params, ratios, strict=True):
        if param.role in ("weight", "embedding") and math.isfinite(value):
            for call in calls:
                found[call] = max(found.get(call, 0.0), value)
    return found


def count_trained(history: History) -> Trained:
    """Parameters that an optimizer holds and that have moved at some record.

    Where no update can be known, as without an optimizer, one that had a gradient counts.

    Args:
        history: of the run, with one record at least.

    Example:
        >>> from gradwatch.evidence.worked_example import make_history, make_record
        >>> count_trained(make_history([make_record()]))
        Trained(tensors=2, all_tensors=2, elements=24, all_elements=24)
    """
    reading = history.latest
    sizes = _list_sizes(reading.topology)
    is_known = ~np.isnan(reading.record.param("update_l2_norm"))
    moved = np.where(is_known, history.params.largest_update > 0, history.params.was_fed)
    chosen = [sizes[i] for i in np.flatnonzero(moved & reading.topology.is_held).tolist()]
    return Trained(len(chosen), len(sizes), sum(chosen), sum(sizes))


@lru_cache(maxsize=16)
def _list_sizes(topology: Topology) -> tuple[int, ...]:
    return tuple(param.numel for param in topology.params)
