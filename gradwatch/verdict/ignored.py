"""Layers that the user has asked not to hear of, taken out before anything is counted."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import lru_cache

import numpy as np

from gradwatch.evidence.topology import Mask, Topology


@lru_cache(maxsize=16)
def find_ignored_layers(topology: Topology, patterns: tuple[str, ...]) -> Mask:
    """Layers whose name matches, ``(n_layers,)``.

    Args:
        topology: of the network.
        patterns: ``Thresholds.ignore_layers``.
    """
    return _match([layer.fqn for layer in topology.layers], patterns)


@lru_cache(maxsize=16)
def find_ignored_params(topology: Topology, patterns: tuple[str, ...]) -> Mask:
    """Parameters that a finding would name so, by module or by themselves, ``(n_params,)``.

    Args:
        topology: of the network.
        patterns: ``Thresholds.ignore_layers``.
    """
    return _match([param.module or param.fqn for param in topology.params], patterns) | _match(
        topology.param_layers, patterns
    )


def _match(names: list[str] | tuple[str, ...], patterns: tuple[str, ...]) -> Mask:
    found = [any(fnmatchcase(name, pattern) for pattern in patterns) for name in names]
    return np.array(found, dtype=bool)
