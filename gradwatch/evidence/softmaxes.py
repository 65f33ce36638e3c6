"""How sure each softmax is: all on one entry of each row, or spread over many."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.topology import Topology
from gradwatch.records import Array
from gradwatch.schema.activations import find_activation

ATTENTION = ":attention"
"""Suffix of the entries that capture makes for fused attention; ``saturated_fraction`` is of rows
there, by their largest weight, so that many keys do not make it large."""


@lru_cache(maxsize=16)
def find_softmaxes(topology: Topology) -> tuple[int, ...]:
    """Softmaxes inside the network, fused ones included; those of its outputs have to be sure.

    Args:
        topology: of the network.

    Returns:
        Indices of layers.
    """
    return tuple(
        index
        for index, layer in enumerate(topology.layers)
        if _is_softmax(layer.type) and not (topology.is_head[index] or topology.is_outside[index])
    )


def _is_softmax(kind: str) -> bool:
    row = find_activation(kind)
    return row is not None and not row.is_elementwise


def measure_sureness(reading: Reading) -> Array:
    """Mean ``sum p^2`` of a softmax's rows: 1 when one-hot, ``1 / n`` when even over ``n`` entries.

    With the mean ``d`` of ``p (1 - p)``, the norm ``L`` of all outputs and their number ``N`` there
    are ``N d + L^2`` rows. Of fused attention the share of sure rows itself is known.

    Args:
        reading: of one record.

    Returns:
        float64 ``(n_layers,)``; NaN but for the softmaxes inside the network.

    Example:
        >>> from gradwatch.evidence.worked_example import make_layer_set, make_reading
        >>> rows = {"derivative_mean": 0.0, "output_l2_norm": 8.0}
        >>> measure_sureness(make_reading(layer=rows, layer_set=make_layer_set("Softmax"))).tolist()
        [nan, 1.0, nan]
    """
    topology, record = reading.topology, reading.record
    sure = np.full(len(topology.layers), np.nan)
    chosen = list(find_softmaxes(topology))
    if not chosen:
        return sure
    squares = record.layer("output_l2_norm")[chosen] ** 2
    spread = record.layer("derivative_mean")[chosen] * topology.output_numel[chosen]
    with np.errstate(invalid="ignore", divide="ignore"):
        sure[chosen] = squares / (spread + squares)
    fused = [i for i in chosen if topology.layers[i].fqn.endswith(ATTENTION)]
    sure[fused] = record.layer("saturated_fraction")[fused]
    return sure
