"""What is largest at a layer or behind it, on the way from the loss back."""

from __future__ import annotations

import numpy as np

from gradwatch.evidence.topology import Topology
from gradwatch.records import Array

FEW = 8
"""Records up to which Python's numbers take less time than numpy's arrays of so many."""


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
    if len(values) > FEW:
        for source, index in topology.links_back:
            np.maximum(values[:, source], values[:, index], out=values[:, source])
        return values
    rows = values.tolist()
    for row in rows:
        for source, index in topology.links_back:
            row[source] = max(row[source], row[index])
    values[:] = rows
    return values
