"""Where in the user's code a layer is called."""

from __future__ import annotations

from collections.abc import Iterable

from gradwatch.evidence.topology import Topology


def find_call_line(topology: Topology, names: Iterable[str]) -> str:
    """The line that calls the first of these that is a call, or holds one.

    Args:
        topology: of the network.
        names: fqn of modules, of activations or of parameters, the most important first.

    Returns:
        ``"path/model.py:42"``; ``""`` where no line is known.

    Example:
        >>> from gradwatch.evidence.topology import map_topology
        >>> from gradwatch.schema.layer_set import Layer, LayerSet
        >>> layers = Layer("fc1", source="model.py:9"), Layer("fc2", source="model.py:10")
        >>> find_call_line(map_topology(LayerSet(layers)), ["fc2", "fc1"])
        'model.py:10'
    """
    lines: dict[str, str] = {}
    for layer in topology.layers:
        if layer.source:
            lines.setdefault(layer.fqn, layer.source)
            lines.setdefault(layer.key, layer.source)
    owners = {param.fqn: param.module for param in topology.params}
    found = (lines.get(name) or lines.get(owners.get(name, "")) for name in names)
    return next((line for line in found if line), "")
